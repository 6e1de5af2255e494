/** What can go wrong for whoever reads or publishes. `why` is for programs, the message for people. */
export class PushError extends Error {
  /**
   * @param {string} why a word, such as `forbidden`, `timed-out`, `closed`, `given-up`, `unauthorized`
   * @param {string} message
   * @param {object} [more] such as `channel`, `id`, `code`, `mayHaveTakenEffect`
   */
  constructor(why, message, more) {
    super(message);
    Object.assign(this, more);
    this.name = 'PushError';
    this.why = why;
  }
}

/** What a gateway refuses today and not tomorrow. */
const PASSING = ['log-away', 'rate', 'full', 'busy', 'paced'];
const AGAIN_S = 0.1;

/** After how long a refused request has another chance, in seconds; 0 where it has none unchanged. */
export const againS = ({ why, after_s: afterS }) => afterS || (PASSING.includes(why) ? AGAIN_S : 0);

/** Calls what the user gave. What it throws is the page's to hear of, and stops nothing here. */
export function call(listener, value) {
  try {
    listener?.(value);
  } catch (problem) {
    queueMicrotask(() => {
      throw problem;
    });
  }
}
