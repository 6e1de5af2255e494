import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { adviceFor, pauseS } from '../src/backoff.js';
import { POLICY } from '../src/policy.js';

const most = () => 1;

test('the advice of every code is the one that the document states', () => {
  const page = readFileSync(new URL('../../../docs/reference/push-frames.md', import.meta.url), 'utf8');
  const rows = [...page.matchAll(/^\| (\d{4}) \| `[a-z-]+` \| (\w+) \|$/gm)];
  assert.ok(rows.length >= 24);
  for (const [, code, advice] of rows) assert.equal(adviceFor(Number(code)), advice, code);
});

test('a code that is not known is taken by its hundred', () => {
  assert.deepEqual([4199, 4299, 4399, 1012, 3000].map(adviceFor), ['now', 'later', 'never', 'now', 'now']);
});

test('the ceiling doubles with each failure up to a bound', () => {
  const ceilings = [0, 1, 2, 6, 7, 5000].map((failed) => pauseS(POLICY, failed, most, null, 0));
  assert.deepEqual(ceilings, [0.5, 1, 2, 30, 30, 30]);
});

test('the pause is drawn evenly from nothing to the ceiling', () => {
  assert.equal(pauseS(POLICY, 3, () => 0, null, 0), 0);
  assert.equal(pauseS(POLICY, 3, () => 0.25, null, 0), 1);
});

test('now is a short jitter the first time, and full jitter after that', () => {
  assert.deepEqual([0, 1, 2].map((failed) => pauseS(POLICY, failed, most, 'now', 0)), [0.05, 1, 2]);
});

test('a time that was asked for is kept, bounded, and a little spread', () => {
  assert.equal(pauseS(POLICY, 0, () => 0, 'later', 3.5), 3.5);
  assert.equal(pauseS(POLICY, 9, most, 'now', 10), 11);
  assert.equal(pauseS(POLICY, 0, () => 0, 'later', 1e9), 600);
  assert.equal(pauseS(POLICY, 0, most, 'later', NaN), 0.5);
});
