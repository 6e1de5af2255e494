/** Messages on their way to a gateway: each sent until it is answered, under one id, so that it is one message. */
import { dataOf, sizeOf } from './codec.js';
import { PushError, againS } from './errors.js';

const newId = () =>
  // Pages without TLS have no randomUUID.
  crypto.randomUUID?.() ?? crypto.getRandomValues(new Uint32Array(4)).join('-');

/** The publishes of one client. `encode` makes frames, `timers` sets and clears time-outs. */
export function publishing(policy, metrics, encode, timers) {
  let link = null;
  let pause = null;
  let error = null;
  /** By ref, in the order of their first sending. */
  const sent = new Map();
  let unsent = [];

  function publish(ref, channel, data, { id = newId(), withinS = policy.publishS, trace } = {}) {
    return new Promise((resolve, reject) => {
      const pending = { ref, channel, id, resolve, reject, tries: 0 };
      if (error) return settle(pending, error.why, error.message);
      if (unsent.length >= policy.waitingMax) return settle(pending, 'busy', `${unsent.length} wait already`);
      try {
        const found = dataOf(data);
        if (JSON.stringify(found) === '{}') throw new TypeError('JSON has no word for it');
        pending.raw = encode({ type: 'pub', ref, channel, id, trace, ...found });
      } catch (problem) {
        return settle(pending, 'bad-data', problem.message);
      }
      pending.timer = timers.setTimeout(() => timedOut(pending, withinS), withinS * 1000);
      unsent.push(pending);
      flush();
    });
  }

  /** A connection takes messages from now on; those under way on another are sent again over it, in their order. */
  function open(next) {
    close(link);
    link = next;
    flush();
  }

  /** A connection takes none any more. */
  function close(ended) {
    if (ended !== link) return;
    link = null;
    again([...sent.values()]);
    sent.clear();
  }

  /** Whether it was the answer to one of these. */
  function answered({ ref, position, repeat = false, problem }) {
    const pending = sent.get(ref);
    if (!pending) return false;
    sent.delete(ref);
    const pauseS = problem ? againS(problem) : 0;
    if (!problem) {
      timers.clearTimeout(pending.timer);
      metrics.publishes++;
      if (repeat) metrics.repeats++;
      pending.resolve({ ...position, repeat });
    } else if (pauseS) {
      // What it says of one holds for the next as well, and those behind it are not to overtake it.
      again([pending]);
      pause ??= timers.setTimeout(() => {
        pause = null;
        flush();
      }, pauseS * 1000);
    } else settle(pending, problem.why, problem.happened, pending.tries > 1); // an earlier try may have arrived
    flush();
    return true;
  }

  /** Nothing is sent any more. */
  function fail(why) {
    error = why;
    timers.clearTimeout(pause);
    for (const pending of [...sent.values(), ...unsent]) settle(pending, error.why, error.message, pending.tries > 0);
    sent.clear();
    unsent = [];
  }

  function flush() {
    while (link && !pause && unsent.length && sent.size < policy.publishingMax) {
      const pending = unsent.shift();
      if (link.bytesMax && sizeOf(pending.raw) > link.bytesMax) {
        settle(pending, 'too-large', `a gateway takes ${link.bytesMax} bytes`, pending.tries > 0);
        continue;
      }
      pending.tries++;
      metrics.tries++;
      sent.set(pending.ref, pending);
      link.sendRaw(pending.raw);
    }
  }

  function again(found) {
    unsent = [...found, ...unsent].sort((a, b) => a.ref - b.ref);
  }

  function timedOut(pending, withinS) {
    sent.delete(pending.ref);
    unsent = unsent.filter((each) => each !== pending);
    settle(pending, 'timed-out', `no answer within ${withinS} s; publish it again with the same id`, pending.tries > 0);
    flush();
  }

  function settle({ channel, id, timer, reject }, why, happened, mayHaveTakenEffect = false) {
    timers.clearTimeout(timer);
    const effect = mayHaveTakenEffect ? 'it may have taken effect' : 'nothing was done';
    reject(new PushError(why, `publish to ${channel}: ${happened}; ${effect}`, { channel, id, mayHaveTakenEffect }));
  }

  return { publish, open, close, answered, fail };
}
