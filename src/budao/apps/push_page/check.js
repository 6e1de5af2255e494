/** Follows messages by two counts, the log's and the publisher's own, and says what is missing, doubled or out of order. */

export class Checker {
  checked = 0;
  /** Messages that are missing, and that no gap named. */
  holes = 0;
  /** Messages that came again, or after a later one. */
  doubled = 0;
  /** Gaps that were named. */
  gaps = 0;
  #places = new Map();
  #counts = new Map();

  message({ channel, position, data }) {
    this.checked++;
    const place = this.#places.get(channel);
    let missing = 0;
    if (place && place.epoch === position.epoch) missing = position.seq - place.seq - 1;
    else if (place) missing = position.seq - 1; // a channel that begins anew begins with 1
    this.#places.set(channel, position);
    const { run, n } = data ?? {};
    if (typeof n === 'number') {
      const count = this.#counts.get(channel);
      if (count && count.run === run) missing = worse(missing, n - count.n - 1);
      this.#counts.set(channel, { run, n });
    }
    if (missing > 0) this.holes += missing;
    else if (missing < 0) this.doubled++;
    return missing === 0;
  }

  gap({ channel, upto }) {
    this.gaps++;
    this.#places.set(channel, upto);
    this.#counts.delete(channel);
  }
}

const worse = (a, b) => (Math.abs(b) > Math.abs(a) ? b : a);
