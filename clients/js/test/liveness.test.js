import assert from 'node:assert/strict';
import test from 'node:test';
import { liveness } from '../src/liveness.js';
import { POLICY } from '../src/policy.js';

const policy = { ...POLICY, lookS: 0.005 };
const near = (got, wanted, within = 1e-9) => assert.ok(Math.abs(got - wanted) <= within, `${got} is not about ${wanted}`);

function beating(gapS = 0.05, beatS = 0.05, beats = 200) {
  const machine = liveness(policy, beatS, 0);
  let now = 0;
  for (let beat = 0; beat < beats; beat++) machine.heard((now += gapS));
  return { machine, now };
}

test('three beats that do not come are death after a second look', () => {
  const { machine, now } = beating();
  near(machine.wakeAt(), now + 0.15);
  assert.equal(machine.wake(now + 0.149), false);
  assert.equal(machine.wake(now + 0.151), false);
  near(machine.wakeAt(), now + 0.156);
  assert.equal(machine.wake(now + 0.156), true);
});

test('what is heard between the looks is life', () => {
  const { machine, now } = beating();
  assert.equal(machine.wake(now + 0.151), false);
  machine.heard(now + 0.155);
  assert.equal(machine.wake(now + 0.16), false);
  assert.ok(machine.wakeAt() > now + 0.3);
});

test('who slept for an hour waits a second for what was not read', () => {
  const { machine, now } = beating(2, 2);
  assert.equal(machine.wake(now + 3600), false);
  near(machine.wakeAt(), now + 3601);
  machine.heard(now + 3600.9);
  near(machine.heardAt, now + 3600.9);
  assert.equal(machine.wake(now + 3601), false);
});

test('who was 300 ms late waits for 300 ms', () => {
  const { machine, now } = beating();
  assert.equal(machine.wake(now + 0.45), false);
  near(machine.wakeAt(), now + 0.75);
  assert.equal(machine.wake(now + 0.75), true);
});

test('who is late at every look still comes to an end', () => {
  const { machine, now } = beating();
  const verdicts = [];
  for (let look = 1; look < 8; look++) verdicts.push(machine.wake(now + 10 * look));
  assert.equal(verdicts.indexOf(true), 5);
});

test('a gateway that beats late is waited for longer, up to a bound', () => {
  near(beating(0.08).machine.wakeAt(), beating(0.08).now + 0.24, 1e-3);
  near(beating(1).machine.wakeAt(), beating(1).now + 0.45);
});

test('traffic between beats does not shorten the wait', () => {
  const { machine, now } = beating(0.001);
  near(machine.wakeAt(), now + 0.15);
});

test('a gateway that promises no beat is never dead of silence', () => {
  const machine = liveness(policy, 0, 0);
  assert.equal(machine.wakeAt(), Infinity);
  assert.equal(machine.wake(1e9), false);
});

test('a standby is silent on purpose', () => {
  near(liveness(policy, 0.05, 0, 10).wakeAt(), 10);
});
