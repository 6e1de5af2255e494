/** What one reader gets of one channel: by callbacks, or as an async iterator with a bounded buffer. */
import { PushError, call } from './errors.js';
import { Follower } from './follower.js';

/** Names that begin with `_` are for the client. */
export class Subscription {
  _isResting = false;
  _isAsked = false;
  _isOver = false;
  _error = null;
  _strikes = 0;
  #items = [];
  #waiters = [];

  constructor(channel, { after = null, last = 0, presence = false, onMessage, onGap, onPresence } = {}, bufferMax, owner) {
    this.channel = channel;
    /** After the last item that was handed out: what to keep to go on from in another page. */
    this.position = after;
    this._last = after ? 0 : last;
    this._presence = presence;
    this._on = { message: onMessage, gap: onGap, presence: onPresence };
    this._follower = new Follower(after);
    this._bufferMax = bufferMax;
    this._owner = owner;
    this._ready = {};
    /** Resolves with the place where it begins, once a gateway has said it: what is published then will be seen. */
    this.ready = new Promise((resolve, reject) => Object.assign(this._ready, { resolve, reject }));
    this.ready.catch(() => {}); // who does not ask is told by the iterator, or by the client's `error`
  }

  /** Ends it; what waits is dropped. */
  unsubscribe() {
    this.#items = [];
    this._end(null);
    this._owner.left(this);
  }

  [Symbol.asyncIterator]() {
    if (this._on.message) throw new PushError('callback', `${this.channel} has onMessage; iterate without it`);
    return this;
  }

  /** The next message or gap; waits for it. Throws, once what waits was handed out, what ended the subscription. */
  async next() {
    while (!this.#items.length) {
      if (this._error) throw this._error;
      if (this._isOver) return { done: true, value: undefined };
      await new Promise((resolve) => this.#waiters.push(resolve));
    }
    const value = this.#items.shift();
    this.position = value.position ?? value.upto;
    if (this._isResting && !this._isOver && this.#items.length * 2 <= this._bufferMax) this._owner.rested(this);
    return { done: false, value };
  }

  /** What leaving a `for await` calls. */
  async return() {
    this.unsubscribe();
    return { done: true, value: undefined };
  }

  get _isFull() {
    return this.#items.length >= this._bufferMax;
  }

  _begin(position) {
    this._follower.begin(position);
    this.position ??= position;
    this._ready.resolve(this._follower.place);
  }

  _put(item) {
    if (this._on.message) {
      call(this._on[item.type], item);
      this.position = item.position ?? item.upto;
    } else {
      this.#items.push(item);
      this.#wake();
    }
  }

  _end(error) {
    if (this._isOver) return;
    this._isOver = true;
    this._error = error;
    this._ready.reject(error ?? new PushError('closed', `${this.channel} is read no more`));
    this.#wake();
  }

  #wake() {
    for (const resolve of this.#waiters.splice(0)) resolve();
  }
}
