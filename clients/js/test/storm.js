/** A pretend network of gateways that are killed, frozen, cut off and drained, for one client with a standby. */
import { POLICY } from '../src/policy.js';

const TRIP_S = 0.01;
const BEAT_S = 1;
const WITHIN_S = 5;
/** What src calls so. */
const LEFT_S = 10;
export const HARMS = ['kill', 'freeze', 'cut', 'leave', 'move', 'promote'];

class Gateway {
  state = 'up';
  since = 0;
  /** Sockets that it knows, with what each is to it: home or standby. */
  known = new Map();
  /** By socket: what arrived while it was frozen. */
  #late = new Map();

  constructor(net, number) {
    this.net = net;
    this.url = `ws://127.0.0.1:${number + 1}/v1/stream`;
    this.#beat();
  }

  #beat() {
    if (this.state === 'up') for (const socket of this.known.keys()) socket.hears({ type: 'ping' });
    this.net.after(BEAT_S, () => this.#beat());
  }

  /** Something arrives: it is done now, later, or never. */
  get(socket, act) {
    if (this.state === 'up') act();
    else if (this.state === 'frozen') this.#late.set(socket, [...(this.#late.get(socket) ?? []), act]);
  }

  came(socket, { standby, beat_s: wished }) {
    if (this.state === 'gone') socket.ends(1006);
    else {
      this.get(socket, () => {
        this.known.set(socket, 'standby');
        socket.opens();
        const session = 's-1';
        socket.hears({ type: 'welcome', version: 1, session, gateway: this.url, beat_s: Math.max(BEAT_S, wished), frame_bytes_max: 1e6 });
        if (!standby) this.#settle(socket);
      });
    }
  }

  said(socket, frame) {
    this.get(socket, () => {
      if (frame.type !== 'standby' || !this.known.has(socket)) return;
      socket.hears({ type: 'ack', ref: frame.ref, channels: {} });
      this.#settle(socket);
    });
  }

  /** The home of the session is this one from now on, and an older one here is replaced. */
  #settle(socket) {
    for (const [each, role] of this.known) if (role === 'home' && each !== socket) this.#end(each, 4104);
    this.known.set(socket, 'home');
  }

  #end(socket, code) {
    this.known.delete(socket);
    socket.ends(code);
  }

  // ------------------------------------------------------------------------------------------------------ harms

  kill() {
    this.#becomes('gone');
    for (const socket of [...this.known.keys()]) this.#end(socket, 1006);
  }

  freeze() {
    this.#becomes('frozen');
  }

  /** Nothing comes through, and when something does again, it has forgotten everybody. */
  cut() {
    this.#becomes('cut');
    this.known.clear();
  }

  /** Sends its clients to another one, which may be gone by then. */
  move() {
    const others = this.net.gateways.filter((each) => each !== this && each.state === 'up');
    const url = others.length ? this.net.random.of(others).url : this.url; // nowhere else to go
    for (const socket of this.known.keys()) socket.hears({ type: 'move', url, ticket: 't', within_s: WITHIN_S, why: 'drain' });
  }

  leave() {
    this.move();
    this.net.after(WITHIN_S, () => this.net.harm('kill', this));
  }

  promote() {
    const [socket, role] = [...this.known].sort(([, a], [, b]) => (a < b ? 1 : -1))[0] ?? [];
    if (role === 'standby') socket.hears({ type: 'standby' });
    else socket?.hears({ type: 'move', url: '', why: 'promote', within_s: WITHIN_S });
  }

  back() {
    if (this.state === 'up') return;
    this.#becomes('up');
    // Each socket in order, but of several any: it may read last what was said on one that was given up long ago.
    const late = [...this.#late.values()];
    this.#late.clear();
    while (late.length) {
      const index = this.net.random.upTo(late.length - 1);
      late[index].shift()();
      if (!late[index].length) late.splice(index, 1);
    }
  }

  #becomes(state) {
    this.state = state;
    this.since = this.net.time;
    if (state !== 'up') this.#late.clear();
  }
}

class Socket {
  readyState = 0;
  #gateway;
  #isOver = false;

  constructor(net, url) {
    this.net = net;
    this.#gateway = net.gateways.find((each) => url.startsWith(each.url));
    const hello = JSON.parse(Buffer.from(new URL(url).searchParams.get('hello'), 'base64url'));
    net.after(TRIP_S, () => this.#gateway.came(this, hello));
  }

  #soon(act) {
    this.net.after(TRIP_S, () => this.#isOver || act());
  }

  opens() {
    this.#soon(() => {
      this.readyState = 1;
      this.onopen({});
    });
  }

  hears(frame) {
    this.#soon(() => this.onmessage({ data: JSON.stringify(frame) }));
  }

  ends(code) {
    this.#soon(() => {
      this.#isOver = true;
      this.readyState = 3;
      this.onclose({ code, reason: '' });
    });
  }

  send(raw) {
    this.net.after(TRIP_S, () => this.#gateway.said(this, JSON.parse(raw)));
  }

  close() {
    this.#isOver = true;
    this.readyState = 3;
    this.net.after(TRIP_S, () => this.#gateway.get(this, () => this.#gateway.known.delete(this)));
  }
}

/** The network, its time, and its one client. */
export class Net {
  time = 0;
  /** When harm was done last. */
  harmedAt = 0;
  #due = [];
  #number = 0;

  constructor(Client, random, count, policy) {
    const net = this;
    this.random = random;
    this.gateways = Array.from({ length: count }, (_, number) => new Gateway(this, number));
    this.client = new Client({
      urls: this.gateways.map(({ url }) => url),
      standby: true,
      policy,
      WebSocket: class {
        constructor(url) {
          return new Socket(net, url);
        }
      },
      now: () => this.time,
      random,
      timers: {
        setTimeout: (call, ms) => this.after(ms / 1000, call),
        clearTimeout: (timer) => timer && (timer.call = null),
      },
      page: {},
    });
    const { standbySilentS, standbySpreadS, welcomeS, maxS } = { ...POLICY, ...policy };
    /** With two gateways that work, and so long after the last harm, all is well: a dead standby is found, a third gateway is tried in
     * vain, and one that was avoided is tried again. */
    this.calmS = standbySilentS + 4 * welcomeS + Math.max(maxS, WITHIN_S + LEFT_S) + standbySpreadS + 1;
  }

  after(seconds, call) {
    const event = { at: this.time + seconds, number: ++this.#number, call };
    let index = this.#due.length;
    while (index && this.#due[index - 1].at > event.at) index--;
    this.#due.splice(index, 0, event);
    return event;
  }

  harm(how, gateway) {
    if (gateway.state !== 'up') return;
    gateway[how]();
    this.harmedAt = this.time;
  }

  /** Since when two gateways work and nobody harmed anything. */
  get calmSince() {
    const ups = this.gateways.filter(({ state }) => state === 'up').map(({ since }) => since).sort((a, b) => a - b);
    return ups.length < 2 ? Infinity : Math.max(this.harmedAt, ups[1]);
  }

  /** Whether it has a home and a standby, at two gateways that say so as well. */
  get isWhole() {
    const roles = this.gateways.flatMap(({ state, known, url }) => (state === 'up' ? [...known.values()].map((role) => [role, url]) : []));
    const [home, ...others] = roles.sort();
    const { client } = this;
    return roles.length === 2 && home[0] === 'home' && home[1] === client.gateway && others[0][0] === 'standby' && others[0][1] !== home[1]
      && client.state === 'online' && client.health.hasStandby;
  }

  toString() {
    const { gateway, problem, health } = this.client;
    const all = this.gateways.map(({ url, state, known }) => `${url} ${state} ${[...known.values()]}`);
    return `${all.join(', ')}; the client is at ${gateway}, ${JSON.stringify(health)}, ${problem}`;
  }

  /** Time passes; `check` is called whenever something has happened. */
  async pass(seconds, check) {
    const until = this.time + seconds;
    while (this.#due[0]?.at <= until) {
      const { at, call } = this.#due.shift();
      this.time = at;
      call?.();
      await null; // a dial that waits for its token
      await null;
      check();
    }
    this.time = until;
  }
}
