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

test('where an older log was put in place its messages are news', () => {
  const follower = new Follower(at(4));
  const back = gap(at(4), at(2), 'epoch');
  assert.equal(follower.take(back), back);
  assert.equal(follower.take(back), null);
  assert.ok(follower.take(message(at(3))));
  assert.equal(follower.missed, 0);
  assert.throws(() => follower.take(back), BrokenPromise); // said of another place: asked again, it is told of ours
  assert.ok(follower.take(gap(at(3), at(1, 'e2'), 'epoch')));
  assert.equal(follower.take(message(at(4))), null);
  assert.ok(follower.take(gap(at(1, 'e2'), at(2), 'epoch'))); // a life that was over
  assert.ok(follower.take(message(at(3))));
  assert.equal(follower.take(message(at(2, 'e2'))), null);
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

function told(places, from, to) {
  const [before, after] = [places[from], places[to]];
  if (to === from + 1 && after.seq) return message(after);
  return gap(before, after, before.epoch === after.epoch ? 'trimmed' : 'epoch');
}

/** Several connections say what is to come; the twin is one number. A turn: who, how far (0: it ends), and where it begins. */
function isAsTheTwinSays(lives, start, turns, label) {
  const places = placesOf(lives);
  const top = places.length - 1;
  let naive = start;
  const follower = new Follower(places[naive]);
  const heard = new Set([places[naive].epoch]);
  const links = new Map();
  const say = (which, to) => {
    const from = links.get(which);
    const item = told(places, from, to);
    links.set(which, to);
    try {
      const got = follower.take(item);
      if (to <= naive) assert.equal(got, null, label);
      else if (item.upto) assert.deepEqual([got.after, got.upto], [places[naive], places[to]], label);
      else assert.deepEqual([got, from], [item, naive], label);
      naive = Math.max(naive, to);
      heard.add(places[naive].epoch);
    } catch (broken) {
      if (!(broken instanceof BrokenPromise)) throw broken;
      // Only where nobody could know: a life it never heard of, told by somebody who does not come from its own.
      assert.ok(!heard.has(places[to].epoch) && places[from].epoch !== places[naive].epoch, label);
      links.set(which, naive); // that is asked what follows our place
    }
    assert.deepEqual(follower.place, places[naive], label);
  };
  for (const [which, jump, begin] of turns) {
    // Nobody begins ahead of the reader, nor behind the place it came with: that is what it asked for.
    if (!links.has(which)) links.set(which, start + (begin % (naive + 1 - start)));
    if (!jump) links.delete(which);
    else if (links.get(which) < top) say(which, Math.min(top, links.get(which) + jump));
  }
  for (const which of links.keys()) { // whoever is left tells the rest, and nothing of it is lost
    while (links.get(which) < top) say(which, links.get(which) + 1);
    assert.deepEqual(follower.place, places[top], label);
  }
}

test('in random histories of several connections it says what a naive twin says', () => {
  for (let seed = 0; seed < 3000; seed++) {
    const random = seeded(seed);
    const lives = Array.from({ length: 1 + random.upTo(3) }, () => random.upTo(12));
    const start = random.upTo(placesOf(lives).length - 1);
    const turn = () => [random.upTo(2), random.of([0, 1, 1, 1, 1, 1, 1, 2, 5]), random.upTo(50)];
    isAsTheTwinSays(lives, start, Array.from({ length: random.upTo(40) }, turn), `seed ${seed}`);
  }
});

test('a life that one connection left out, and another begins to tell, takes nobody back', () => {
  const lives = [1, 1, 1]; // 0 is the start, 1 the only place of the first life, then two places for each
  isAsTheTwinSays(lives, 1, [[0, 3, 0], [1, 1, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]], 'behind');
  isAsTheTwinSays(lives, 1, [[0, 1, 0], [1, 3, 0], [0, 1, 0], [0, 1, 0], [1, 1, 0]], 'ahead');
  isAsTheTwinSays(lives, 0, [[0, 5, 0], [1, 1, 0], [1, 1, 0], [1, 2, 0]], 'from the start');
  isAsTheTwinSays(lives, 0, [[0, 5, 0], [1, 1, 3], [1, 1, 0]], 'from a life it never heard of');
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
