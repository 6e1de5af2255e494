/** Each message once and in order, or a gap that names what is missing. */

/** Lives of a channel that are remembered as over: a connection still in one of them says nothing new. */
const LIVES_MAX = 4;

/** The place before everything. */
export const START = Object.freeze({ epoch: '', seq: 0 });

const same = (a, b) => a.epoch === b.epoch && a.seq === b.seq;
const shown = (place) => `${place.epoch || '(start)'}:${place.seq}`;

/** Messages were left out and nobody said so, or a place went backwards. The gateway is wrong; the reader stays where it was. */
export class BrokenPromise extends Error {
  constructor(place, item) {
    const said = item.upto ? `a gap from ${shown(item.after)} to ${shown(item.upto)}` : `the message ${shown(item.position)}`;
    super(`channel ${item.channel}: ${said} does not follow ${shown(place)}; subscribe again from that place`);
    this.name = 'BrokenPromise';
    this.why = 'broken-promise';
    this.channel = item.channel;
  }
}

/** The place of one reader in one channel, whichever and however many connections tell of it. */
export class Follower {
  /** Messages that gaps named, where their number is known: not over the border of two lives. */
  missed = 0;
  #over = [];

  constructor(place = null) {
    this.place = place;
  }

  /** A connection says where it begins, which is news only for a reader that has no place yet. */
  begin(position) {
    this.place ??= position;
  }

  /** What the reader gets: the item, a gap cut down to what is news, or null for a repetition. Throws BrokenPromise. */
  take(item) {
    if (item.upto) return this.#takeGap(item);
    const { place } = this;
    const { position } = item;
    if (place) {
      const follows = position.epoch === place.epoch ? position.seq === place.seq + 1 : !place.epoch && position.seq === 1;
      if (!follows) {
        const isOld = position.epoch === place.epoch ? position.seq <= place.seq : this.#isOver(position);
        if (!isOld) throw new BrokenPromise(place, item);
        return null;
      }
    }
    this.place = position;
    return item;
  }

  #takeGap(gap) {
    const { after, upto } = gap;
    const place = this.place ?? after;
    if (this.place && !this.#isNews(gap, place)) return null;
    if (!place.epoch || (place.epoch === upto.epoch && place.seq < upto.seq)) this.missed += upto.seq - place.seq;
    else if (place.epoch !== upto.epoch) {
      this.#over = [...this.#over.filter((each) => each !== upto.epoch), place.epoch].slice(-LIVES_MAX);
    }
    this.place = upto;
    return same(after, place) ? gap : { ...gap, after: place };
  }

  /** Whether it leads on from the place. Throws if it leaves out something itself, or nobody can tell. */
  #isNews(gap, place) {
    const { after, upto } = gap;
    const isOfOurs = after.epoch === place.epoch;
    const isSame = upto.epoch === place.epoch;
    let isNews = !isSame || upto.seq > place.seq;
    let isFine = true;
    if (isOfOurs && isSame && upto.seq < after.seq) { // an older log was put in place
      isNews = !same(upto, place);
      isFine = !isNews || (same(after, place) && gap.why === 'epoch');
    } else if (isOfOurs || !place.epoch || !isNews) {
      isNews &&= !!upto.epoch;
      isFine = !isNews || after.seq <= place.seq;
    } else if (!isSame) {
      // Of two lives that came after an earlier one nobody here knows which is newer; going back would leave out the newer one.
      isNews = false;
      isFine = !upto.epoch || this.#isOver(upto);
    }
    if (!isFine) throw new BrokenPromise(place, gap);
    return isNews;
  }

  #isOver(position) {
    return this.#over.includes(position.epoch);
  }
}
