/** A pretend world for a client: its time, timers, sockets and page. */
import { Client } from '../src/index.js';

export const A = 'ws://127.0.0.1:1/v1/stream';
export const B = 'ws://127.0.0.1:2/v1/stream';
export const C = 'ws://127.0.0.1:3/v1/stream';

class Socket {
  readyState = 0;
  sent = [];

  constructor(world, url, protocols) {
    this.url = url;
    this.protocols = protocols;
    const query = new URL(url).searchParams;
    this.token = query.get('token');
    const hello = query.get('hello');
    this.hello = hello && JSON.parse(Buffer.from(hello, 'base64url'));
    world.sockets.push(this);
  }

  /** The gateway answers. */
  open() {
    this.readyState = 1;
    this.onopen?.({});
  }

  /** The gateway says this. */
  say(...frames) {
    for (const frame of frames) this.onmessage({ data: typeof frame === 'string' ? frame : JSON.stringify(frame) });
  }

  welcome(more = {}) {
    this.open();
    this.say({ type: 'welcome', version: 1, session: 's-1', gateway: 'g', beat_s: 2, frame_bytes_max: 1000, ...more });
  }

  msg(channel, ...numbers) {
    for (const seq of numbers) this.say({ type: 'msg', channel, epoch: 'e1', seq, at: 1, data: seq });
  }

  cut(code = 1006, reason = '') {
    this.readyState = 3;
    this.onclose({ code, reason });
  }

  send(raw) {
    this.sent.push(JSON.parse(raw));
  }

  close(code) {
    this.readyState = 2;
    this.closedWith = code;
  }

  /** What was sent of one type. */
  of(type) {
    return this.sent.filter((frame) => frame.type === type);
  }
}

export class World {
  time = 0;
  sockets = [];
  random = () => 0;
  page = Object.assign(new EventTarget(), { document: Object.assign(new EventTarget(), { visibilityState: 'visible' }) });
  #timers = new Map();
  #number = 0;

  client(options = {}) {
    const world = this;
    return new Client({
      urls: [A, B],
      WebSocket: class {
        constructor(url, protocols) {
          return new Socket(world, url, protocols);
        }
      },
      now: () => this.time,
      random: () => this.random(),
      timers: {
        setTimeout: (call, ms) => {
          this.#timers.set(++this.#number, { at: this.time + ms / 1000, call });
          return this.#number;
        },
        clearTimeout: (timer) => this.#timers.delete(timer),
      },
      page: this.page,
      ...options,
    });
  }

  /** Timers that are set. */
  get waiting() {
    return this.#timers.size;
  }

  /** Lets what was promised happen. */
  async settle() {
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
  }

  /** Time passes, and what was set for it rings in order. */
  async pass(seconds) {
    const until = this.time + seconds;
    await this.settle();
    for (;;) {
      const [number, due] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!due || due.at > until) break;
      this.#timers.delete(number);
      this.time = Math.max(this.time, due.at);
      due.call();
      await this.settle();
    }
    this.time = until;
    await this.settle();
  }

  /** A client that is online, and its socket. */
  async online(options = {}, welcome = {}) {
    const client = this.client(options);
    await this.settle();
    this.sockets[0].welcome(welcome);
    return [client, this.sockets[0]];
  }
}
