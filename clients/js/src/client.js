/** A client of the push gateways: reads channels, publishes, and keeps both going while gateways come and go. */
import { addressOf, isSafe, isTls } from './address.js';
import { JSON_CODEC, itemOf } from './codec.js';
import { PushError, againS, call } from './errors.js';
import { open } from './link.js';
import { POLICY } from './policy.js';
import { publishing } from './publishing.js';
import { TOKEN_CODES, reunion } from './reunion.js';
import { Subscription } from './subscription.js';

/** Times in a row that a gateway may leave something out before the reader hears of it. */
const STRIKES_MAX = 3;
const TIMERS = {
  setTimeout: (then, ms) => setTimeout(then, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};

/** One session with the gateways behind `urls`. */
export class Client {
  constructor(options) {
    return Object.setPrototypeOf(connect(options), new.target.prototype); // the getters of what is inside are its own
  }
}

function connect({
  urls, token = null, standby = false, name = 'budao-js', codec = JSON_CODEC, policy: stated = {},
  WebSocket = globalThis.WebSocket, now = () => performance.now() / 1000, random = Math.random, timers = TIMERS,
  page = globalThis,
}) {
  if (!WebSocket) {
    throw new PushError('no-websocket', 'no WebSocket here: use Node 22, --experimental-websocket, or the one of ws');
  }
  if (!Array.isArray(urls) || !urls.length) throw new TypeError('urls: a list of URLs of gateways');
  const given = [...new Set(urls.map(addressOf))];
  if (token && !given.every(isSafe)) throw new TypeError('a token needs https or wss beyond this machine');
  const policy = { ...POLICY, ...stated };
  const metrics = {
    connects: 0, resumes: 0, failures: 0, promotions: 0, moves: 0, messages: 0, gaps: 0, missed: 0, duplicates: 0,
    brokenPromises: 0, rests: 0, publishes: 0, repeats: 0, tries: 0, recoveryS: null,
  };
  const machine = reunion(given, policy, random, { standby, canRefresh: typeof token === 'function' });
  const outbox = publishing(policy, metrics, codec.encode, timers);
  const listeners = { state: new Set(), error: new Set(), health: new Set(), gap: new Set() };
  const links = new Map();
  const dials = new Set();
  const readings = new Map();
  /** Subscriptions that wait for an answer, by ref; those without a reading are promotions. */
  const asked = new Map();
  let ref = 0;
  let session;
  let current = null;
  let lostAt = null;
  let over = null;
  let timer = null;
  let timerAt = Infinity;
  let latestToken = null;
  let said = '';
  let healthTimer = null;
  let pinged = {};
  let rttS = null;

  // ----------------------------------------------------------------------------------------------------- reading

  function subscribe(channel, options) {
    if (over) throw over;
    if (readings.has(channel)) throw new PushError('subscribed', `${channel} is read already; share that subscription`, { channel });
    const reading = new Subscription(channel, options, policy.bufferMax, { left, rested });
    readings.set(channel, reading);
    again(reading);
    return reading;
  }

  function take(link, reading, item) {
    const follower = reading._follower;
    const { missed } = follower;
    let found;
    if (reading._isFull) { // its reader is slow: the gateway stops, and nothing more is taken until there is room
      metrics.rests++;
      reading._isResting = true;
      unlisten(reading.channel, link);
      return;
    }
    try {
      found = follower.take(item);
    } catch (broken) { // a gateway left something out: it is asked for it again, a few times
      metrics.brokenPromises++;
      unsub(link, reading.channel);
      if (++reading._strikes >= STRIKES_MAX) fail(reading, broken);
      else ask(link, reading);
      return;
    }
    if (!found) {
      metrics.duplicates++;
      return;
    }
    reading._strikes = 0;
    if (found.upto) {
      metrics.gaps++;
      metrics.missed += follower.missed - missed;
      emit('gap', found);
    } else metrics.messages++;
    reading._put(found);
  }

  /** The reader of a channel that rests has taken half. */
  function rested(reading) {
    reading._isResting = false;
    again(reading);
  }

  /** Its reader is gone. */
  function left(reading) {
    if (readings.get(reading.channel) !== reading) return;
    readings.delete(reading.channel);
    unlisten(reading.channel, reading._isResting ? null : activeLink());
  }

  /** Nothing of a channel is taken any more, and the gateway is told. */
  function unlisten(channel, told) {
    for (const link of links.values()) link.listening.delete(channel);
    if (told) unsub(told, channel);
  }

  function unsub(link, channel) {
    link.listening.delete(channel);
    link.send({ type: 'unsub', ref: ++ref, channel });
  }

  /** Asks a gateway for a channel, from the place of its reader. */
  function ask(link, reading) {
    const { channel, _presence: presence } = reading;
    const after = reading._follower.place;
    asked.set(++ref, { link, reading });
    reading._isAsked = true;
    link.send({ type: 'sub', ref, channel, after, last: after ? 0 : reading._last, presence });
  }

  /** Asks for a channel, unless it comes already, or nobody wants it. */
  function again(reading) {
    const link = activeLink();
    if (link && !reading._isOver && !reading._isResting && !reading._isAsked && !link.listening.has(reading.channel)) ask(link, reading);
  }

  /** A connection says where channels begin, and which it does not give. */
  function placed(link, { channels = {}, refused = {} }) {
    for (const [channel, position] of Object.entries(channels)) begin(link, channel, position);
    for (const [channel, problem] of Object.entries(refused)) refuse(readings.get(channel), problem);
  }

  function begin(link, channel, position) {
    const reading = readings.get(channel);
    if (!reading || reading._isResting) { // it was wanted when the connection was opened
      unsub(link, channel);
    } else {
      reading._begin(position);
      link.listening.set(channel, reading);
    }
  }

  function refuse(reading, problem) {
    if (!reading) return;
    const { channel } = reading;
    const pauseS = againS(problem);
    reading._isAsked = false;
    if (pauseS) timers.setTimeout(() => again(reading), pauseS * 1000);
    else fail(reading, new PushError(problem.why, `cannot read ${channel}: ${problem.happened}; nothing was done`, { channel }));
  }

  function fail(reading, error) {
    readings.delete(reading.channel);
    reading._end(error);
    emit('error', error);
  }

  /** A connection tells of every channel, but for those that it was not asked for yet. */
  function delivers() {
    if (lostAt !== null) metrics.recoveryS = now() - lostAt;
    lostAt = null;
    readings.forEach(again);
  }

  function answered({ ref: number, problem, position, channels, refused }) {
    const { link, reading } = asked.get(number) ?? {};
    if (!asked.delete(number)) return;
    if (reading) {
      reading._isAsked = false;
      if (reading._isOver) return;
      if (problem) refuse(reading, problem);
      else if (position) begin(link, reading.channel, position);
    } else if (problem) {
      link.hangUp();
      owner.ended(link, { problem: `it does not promote its standby: ${problem.happened}` });
    } else {
      placed(link, { channels, refused });
      tell(link, 'delivers');
      delivers();
    }
  }

  // ----------------------------------------------------------------------------------------- what connections tell

  const owner = {
    now,

    welcomed(link, { resumed, session: named, peers = [], beat_s: beatS, ...welcome }) {
      metrics.connects++;
      if (resumed) metrics.resumes++;
      session ??= named;
      if (!link.isStandby) placed(link, welcome);
      tell(link, 'welcomed', { beatS, peers: peers.map((url) => trusted(url, link)).filter(Boolean) });
      link.liveness = machine.livenessOf(link.number);
      if (!link.isStandby) delivers();
    },

    received(link, frame) {
      const { type, channel } = frame;
      const reading = link.listening.get(channel);
      if (type === 'ack') outbox.answered(frame) || answered(frame);
      else if (type === 'pong') ponged(frame.number);
      else if (type === 'move' || type === 'standby') sent(link, frame);
      else if (!reading) return;
      else if (type === 'presence') call(reading._on.presence, frame);
      else if (type === 'msg' || type === 'gap') take(link, reading, itemOf(frame));
    },

    ended(link, fact) {
      metrics.failures++;
      if (TOKEN_CODES.includes(fact.code)) latestToken = null;
      release(link);
      tell(link, 'ended', fact);
    },
  };

  /** A gateway wants us elsewhere, or our standby; without a URL, at the standby that we have. */
  function sent(link, { type, url: text, ticket, within_s: withinS }) {
    const isMove = type === 'move';
    const url = text && trusted(text, link);
    if (!text) {
      if (isMove || link.number === machine.standby) tell(link, 'asked', { withinS });
    } else if (url || isMove) { // a move to where we do not go is still a wish that we leave
      if (isMove) metrics.moves++;
      tell(link, type, { url, ticket: url && ticket, withinS });
    }
  }

  /** The URL of a gateway that another one named, if we may go there: as safe as where we are, or nowhere. */
  function trusted(text, link) {
    try {
      const url = addressOf(text);
      const isFine = policy.peersMax && isTls(url) === isTls(link.url) && (!token || isSafe(url));
      return isFine || given.includes(url) ? url : null;
    } catch {
      return null;
    }
  }

  // -------------------------------------------------------------------------------------------------- connections

  function activeLink() {
    return links.get(machine.active);
  }

  function tell({ number: link }, is, more) {
    perform(machine.handle({ ...more, is, link }, now()));
  }

  function perform(effects) {
    for (const effect of effects) ({ dial, promote, adopt, hangUp, giveUp })[effect.do](effect);
    const { state, problem } = machine;
    const { gateway } = client;
    if (said !== (said = `${state} ${gateway}`)) {
      rttS = null;
      emit('state', { state, gateway, problem });
      measure();
    }
    const at = machine.wakeAt();
    if (timer !== null && timerAt <= at && at < Infinity) return; // it rings early, and looks again
    timers.clearTimeout(timer);
    timerAt = at;
    timer = at === Infinity ? null : timers.setTimeout(ring, Math.max(0, Math.ceil((at - now()) * 1000)));
  }

  function ring() {
    timer = null;
    perform(machine.wake(now()));
  }

  async function dial({ link: number, url, role, beatS, ticket }) {
    dials.add(number);
    try {
      const shown = await freshToken();
      if (!dials.has(number)) return;
      const hello = {
        type: 'hello', version: 1, session, ticket: ticket ?? undefined, channels: places(), standby: role === 'standby' || undefined,
        beat_s: beatS, client: name,
      };
      links.set(number, open(number, url, WebSocket, codec, hello, shown, owner));
    } catch (problem) {
      if (!dials.has(number)) return;
      metrics.failures++;
      emit('error', problem);
      tell({ number }, 'ended', { problem: `it cannot be opened: ${problem.name}` });
    } finally {
      dials.delete(number);
    }
  }

  /** The token, from its source if there is one, which is asked again after a gateway refused what it gave. */
  async function freshToken() {
    if (typeof token !== 'function') return token;
    return (latestToken ??= await token());
  }

  /** Where to go on. What needs more than a place is asked for once the connection is welcomed. */
  function places() {
    const found = {};
    for (const [channel, reading] of readings) {
      const { place } = reading._follower;
      if (!reading._isResting && !reading._presence && (place || !reading._last)) found[channel] = place;
    }
    return found;
  }

  /** One round trip: the places go there, and the answer says where it begins. */
  function promote({ link: number }) {
    const link = links.get(number);
    metrics.promotions++;
    link.liveness = machine.livenessOf(number);
    asked.set(++ref, { link });
    link.send({ type: 'standby', ref, channels: places() });
  }

  function adopt({ link }) {
    current = links.get(link);
    outbox.open(current);
  }

  function hangUp({ link: number, isDead }) {
    dials.delete(number);
    const link = links.get(number);
    if (!link) return;
    if (isDead) metrics.failures++;
    link.hangUp();
    release(link);
  }

  function giveUp({ code, problem }) {
    const why = TOKEN_CODES.includes(code) ? 'unauthorized' : 'given-up';
    stop(new PushError(why, `${problem}; change what is wrong and open another client`, { code }));
    emit('error', over);
  }

  /** A connection is used no more. */
  function release(link) {
    links.delete(link.number);
    if (current === link) lostAt = link.liveness?.heardAt ?? now();
    for (const [number, each] of asked) {
      if (each.link === link && asked.delete(number) && each.reading) each.reading._isAsked = false;
    }
    outbox.close(link);
  }

  /** Nothing goes on: everybody who waits hears why. */
  function stop(error) {
    if (over) return;
    over = error;
    for (const reading of readings.values()) reading._end(error.why === 'closed' ? null : error);
    readings.clear();
    outbox.fail(error);
    watch('removeEventListener');
  }

  function wake() {
    perform(machine.hurry(now()));
  }

  function watch(how) {
    page[how]?.('online', wake);
    page.document?.[how]('visibilitychange', looked);
  }

  function looked() {
    if (page.document.visibilityState === 'visible') wake();
  }

  // ------------------------------------------------------------------------------------------------------ events

  /** Measures a round trip now and then, while somebody listens. */
  function measure() {
    timers.clearTimeout(healthTimer);
    const link = activeLink();
    if (!listeners.health.size || over || !link) return;
    pinged = { number: ++ref, at: now() };
    link.send({ type: 'ping', number: ref });
    healthTimer = timers.setTimeout(measure, policy.healthS * 1000);
  }

  function ponged(number) {
    if (number !== pinged.number) return;
    rttS = now() - pinged.at;
    emit('health', client.health);
  }

  function emit(event, value) {
    for (const each of listeners[event]) call(each, value);
  }

  const client = {
    metrics,
    subscribe,
    wake,
    publish: (channel, data, options) => outbox.publish(++ref, channel, data, options),
    on(event, listener) {
      listeners[event].add(listener);
      if (event === 'health') measure();
      return () => listeners[event].delete(listener);
    },
    close() {
      stop(new PushError('closed', 'the client is closed'));
      perform(machine.close());
    },
    get state() {
      return machine.state;
    },
    get gateway() {
      return activeLink()?.url ?? null;
    },
    get urls() {
      return machine.urls;
    },
    get problem() {
      return machine.problem;
    },
    get session() {
      return session;
    },
    get health() {
      const liveness = activeLink()?.liveness;
      return {
        state: machine.state, gateway: client.gateway, hasStandby: machine.standby !== null, rttS,
        beatS: liveness?.beatS ?? null, silentS: liveness ? now() - liveness.heardAt : null,
      };
    },
  };
  watch('addEventListener');
  perform(machine.start(now()));
  return client;
}
