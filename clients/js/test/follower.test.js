import assert from 'node:assert/strict';
import test from 'node:test';
import { BrokenPromise, Follower, START } from '../src/follower.js';
import { seeded } from './random.js';

const at = (seq, epoch = 'e1') => ({ epoch, seq });
const message = (position) => ({ type: 'message', channel: 'c', position, data: null });
const gap = (after, upto, why = 'trimmed') => ({ type: 'gap', channel: 'c', after, upto, why });

test('each message is handed out once and in order', () => {
  const follower = new Follower(at(4));
  assert.equal(follower.take(message(at(4))), null);
  const next = message(at(5));
  assert.equal(follower.take(next), next);
  assert.equal(follower.take(next), null);
  assert.deepEqual(follower.place, at(5));
});

test('a reader without a place takes the first one it is told', () => {
  const told = new Follower();
  told.begin(at(7));
  told.begin(at(9));
  assert.deepEqual(told.place, at(7));
  const first = message(at(3));
  assert.equal(new Follower().take(first), first);
});

test('a hole that nobody names raises, and the place stays', () => {
  const follower = new Follower(at(4));
  assert.throws(() => follower.take(message(at(6))), /c: the message e1:6 does not follow e1:4/);
  assert.throws(() => follower.take(message(at(5, 'e2'))), BrokenPromise);
  assert.throws(() => follower.take(gap(at(5), at(9))), /a gap from e1:5 to e1:9/);
  assert.deepEqual(follower.place, at(4));
});

test('from the start, one is the first message of any life', () => {
  const follower = new Follower(START);
  assert.ok(follower.take(message(at(1, 'any'))));
  assert.throws(() => new Follower(START).take(message(at(2, 'any'))), BrokenPromise);
});

test('a gap is cut down to what is news', () => {
  const follower = new Follower(at(4));
  assert.deepEqual(follower.take(gap(at(1), at(9))), gap(at(4), at(9)));
  assert.equal(follower.missed, 5);
  assert.equal(follower.take(gap(at(4), at(8))), null);
  assert.throws(() => follower.take(gap(at(9), at(8))), BrokenPromise); // backwards
});

test('a life that is over says nothing new', () => {
  const follower = new Follower(at(4));
  assert.ok(follower.take(gap(at(4), at(2, 'e2'), 'epoch')));
  assert.equal(follower.missed, 0);
  assert.equal(follower.take(message(at(5))), null);
  assert.equal(follower.take(gap(at(4), at(9))), null);
  assert.ok(follower.take(message(at(3, 'e2'))));
});

/** Every place of a channel, in order. Before the first life there is one place for all. */
function placesOf(lives) {
  const places = [START];
  lives.forEach((count, number) => {
    for (let seq = number ? 0 : 1; seq <= count; seq++) places.push(at(seq, `life${number}`));
  });
  return places;
}

const lifeOf = (epoch) => (epoch ? Number(epoch.slice(4)) : -1);

function told(places, from, to) {
  const [before, after] = [places[from], places[to]];
  if (to === from + 1 && after.seq) return message(after);
  return gap(before, after, before.epoch === after.epoch ? 'trimmed' : 'epoch');
}

test('in random histories of several connections it says what a naive twin says', () => {
  for (let seed = 0; seed < 3000; seed++) {
    const random = seeded(seed);
    const places = placesOf(Array.from({ length: 1 + random.upTo(3) }, () => random.upTo(12)));
    const top = places.length - 1;
    const start = random.upTo(top);
    let naive = start; // the twin is one number
    const follower = new Follower(places[naive]);
    const links = [];
    for (let step = random.upTo(40); step > 0; step--) {
      // Nobody begins ahead of the reader, nor behind the place it came with: that is what it asked for.
      if (!links.length || random.upTo(5) === 0) links.push(start + random.upTo(naive - start));
      const which = random.upTo(links.length - 1);
      const from = links[which];
      if (from === top) continue;
      // Each life is told of: a reader cannot know which of two lives came first if it never heard of one.
      const next = places.findLastIndex(({ epoch }) => lifeOf(epoch) <= lifeOf(places[from].epoch) + 1);
      const to = Math.min(next, from + random.of([1, 1, 1, 1, 2, 5]));
      links[which] = to;
      const item = told(places, from, to);
      const got = follower.take(item);
      if (to <= naive) assert.equal(got, null, `seed ${seed}`);
      else if (item.upto) assert.deepEqual([got.after, got.upto], [places[naive], places[to]], `seed ${seed}`);
      else assert.equal(got, item, `seed ${seed}`);
      naive = Math.max(naive, to);
      assert.deepEqual(follower.place, places[naive], `seed ${seed}`);
    }
  }
});

test('in random histories what one connection leaves out never goes unnoticed', () => {
  for (let seed = 0; seed < 1000; seed++) {
    const random = seeded(seed);
    const places = placesOf(Array.from({ length: 1 + random.upTo(3) }, () => 1 + random.upTo(7)));
    const leftOut = 1 + random.upTo(places.length - 3);
    if (leftOut + 1 >= places.length) continue;
    const follower = new Follower(places[0]);
    for (let index = 1; index < leftOut; index++) follower.take(told(places, index - 1, index));
    const next = told(places, leftOut, leftOut + 1);
    assert.throws(() => follower.take(next), BrokenPromise, `seed ${seed}`);
  }
});
