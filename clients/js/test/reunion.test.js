import assert from 'node:assert/strict';
import test from 'node:test';
import { POLICY } from '../src/policy.js';
import { reunion } from '../src/reunion.js';
import { seeded } from './random.js';

const A = 'wss://a/v1/stream';
const B = 'wss://b/v1/stream';
const C = 'wss://c/v1/stream';
const first = () => 0;

/** A machine and what it asked for: `+1 wss://a` dials, `=1` adopts, `^1` promotes, `-1` hangs up, `x1` cuts, `!code` gives up. */
function machine(urls, options = {}, random = first, policy = POLICY) {
  const it = reunion(urls, policy, random, options);
  const shown = (effects) => effects.map(({ do: what, link, url, role, isDead, code, ticket }) => ({
    dial: () => `+${link} ${url.slice(6, 7)} ${role}${ticket ? ` ${ticket}` : ''}`,
    promote: () => `^${link}`,
    adopt: () => `=${link}`,
    hangUp: () => `${isDead ? 'x' : '-'}${link}`,
    giveUp: () => `!${code}`,
  })[what]());
  return {
    it,
    start: (now) => shown(it.start(now)),
    wake: (now) => shown(it.wake(now)),
    hurry: (now) => shown(it.hurry(now)),
    close: () => shown(it.close()),
    tell: (is, link, now, more = {}) => shown(it.handle({ is, link, ...more }, now)),
  };
}

function online(urls, options, random) {
  const one = machine(urls, options, random);
  assert.deepEqual(one.start(0), ['+1 a active']);
  assert.deepEqual(one.tell('welcomed', 1, 0, { beatS: 2 }), ['=1']);
  return one;
}

function withStandby(urls = [A, B]) {
  const one = online(urls, { standby: true });
  assert.deepEqual(one.wake(0), ['+2 b standby']);
  assert.deepEqual(one.tell('welcomed', 2, 0.1, { beatS: 2 }), []);
  return one;
}

test('it goes online, and somewhere else when its gateway is lost', () => {
  const one = online([A, B]);
  assert.equal(one.it.state, 'online');
  assert.deepEqual(one.tell('ended', 1, 5, { code: 1006, advice: 'now', problem: 'cut' }), []);
  assert.equal(one.it.state, 'connecting');
  assert.equal(one.it.wakeAt(), 5);
  assert.deepEqual(one.wake(5), ['+2 b active']); // a is free, but may be gone
  assert.match(one.it.problem, /^wss:\/\/a\/v1\/stream: cut$/);
});

test('a gateway that failed is left alone while another is tried', () => {
  const one = machine([A, B], {}, () => 0.25);
  one.start(0);
  assert.deepEqual(one.tell('ended', 1, 1, { code: 1006, advice: 'now', problem: '' }), ['+2 b active']);
  assert.deepEqual(one.tell('ended', 2, 1, { code: 1006, advice: 'now', problem: '' }), []);
  assert.equal(one.it.wakeAt(), 1.0125);
  assert.deepEqual(one.wake(1.0125), ['+3 a active']);
  assert.deepEqual(one.tell('ended', 3, 1.02, { code: 1006, advice: 'now', problem: '' }), ['+4 b active']);
});

test('a gateway that asks for time is given it, whatever hurries', () => {
  const one = online([A]);
  assert.deepEqual(one.tell('ended', 1, 1, { code: 4200, advice: 'later', afterS: 20, problem: '' }), []);
  one.wake(1);
  assert.equal(one.it.wakeAt(), 21);
  assert.deepEqual(one.hurry(2), []);
  assert.equal(one.it.wakeAt(), 21);
  assert.deepEqual(one.wake(21), ['+2 a active']);
});

test('what hurries ends a pause that nobody asked for', () => {
  const one = machine([A], {}, () => 0.99);
  one.start(0);
  for (let number = 1; number < 6; number++) {
    one.tell('ended', number, number * 100, { code: 1006, advice: 'now', problem: '' });
    one.wake((number + 1) * 100 - 1);
  }
  one.tell('ended', 6, 700, { code: 1006, advice: 'now', problem: '' });
  assert.ok(one.it.wakeAt() > 710);
  assert.deepEqual(one.hurry(701), ['+7 a active']);
});

test('a welcome that does not come is waited for, longer after failures', () => {
  const one = machine([A]);
  one.start(0);
  assert.equal(one.it.wakeAt(), 2);
  assert.deepEqual(one.wake(2), ['x1', '+2 a active']);
  assert.equal(one.it.wakeAt(), 6);
  assert.deepEqual(one.wake(6), ['x2', '+3 a active']);
  assert.equal(one.it.wakeAt(), 14);
});

test('never gives up, and a refused token does so only where no other is to be had', () => {
  const one = online([A]);
  assert.deepEqual(one.tell('ended', 1, 1, { code: 4302, advice: 'never', problem: 'no' }), ['!4302']);
  assert.equal(one.it.state, 'given-up');
  const fixed = online([A]);
  assert.deepEqual(fixed.tell('ended', 1, 1, { code: 4300, advice: 'never', problem: 'no' }), ['!4300']);
  const fresh = online([A], { canRefresh: true });
  assert.deepEqual(fresh.tell('ended', 1, 1, { code: 4301, advice: 'never', problem: 'old' }), []);
  assert.deepEqual(fresh.wake(1), ['+2 a active']);
  assert.deepEqual(fresh.tell('ended', 2, 2, { code: 4300, advice: 'never', problem: 'no' }), ['+3 a active']);
  assert.deepEqual(fresh.tell('ended', 3, 3, { code: 4300, advice: 'never', problem: 'no' }), ['!4300']);
});

test('the standby takes over at once, and the next one is opened elsewhere', () => {
  const one = withStandby([A, B, C]);
  assert.equal(one.it.standby, 2);
  assert.deepEqual(one.tell('ended', 1, 5, { code: 1006, advice: 'now', problem: 'cut' }), ['^2', '=2']);
  assert.equal(one.it.active, 2);
  assert.deepEqual(one.tell('delivers', 2, 5.01), []);
  assert.deepEqual(one.wake(5.01), ['+3 c standby']);
});

test('an active connection that falls silent is replaced by the standby', () => {
  const one = withStandby();
  assert.deepEqual(one.wake(6.0), []);
  const look = one.it.wakeAt();
  assert.ok(Math.abs(look - 6.01) < 1e-9);
  assert.deepEqual(one.wake(look), ['x1', '^2', '=2', '+3 a standby']);
});

test('a standby that does not deliver is cut, and a new connection opened', () => {
  const one = withStandby();
  assert.deepEqual(one.tell('ended', 1, 5, { problem: 'cut' }), ['^2', '=2']);
  assert.deepEqual(one.wake(5.5), ['x2', '+3 a active', '+4 b standby']);
});

test('a move opens the new home beside the old one, which is let go then', () => {
  const one = online([A, B]);
  assert.deepEqual(one.tell('move', 1, 1, { url: C, ticket: 't', withinS: 5 }), ['+2 c next t']);
  assert.equal(one.it.active, 1);
  assert.deepEqual(one.tell('move', 1, 1.1, { url: B, ticket: 't', withinS: 5 }), []); // one at a time
  assert.deepEqual(one.tell('welcomed', 2, 2), ['=2', '-1']);
  assert.deepEqual(one.tell('ended', 2, 3, { code: 1006, advice: 'now', problem: '' }), []);
  assert.deepEqual(one.wake(3), ['+3 b active']); // a sent us away
});

test('a home that cannot be opened is replaced by another while there is time', () => {
  const one = online([A, B]);
  assert.deepEqual(one.tell('move', 1, 1, { url: C, ticket: 't', withinS: 5 }), ['+2 c next t']);
  assert.deepEqual(one.tell('ended', 2, 2, { problem: '' }), ['+3 b next']);
  assert.deepEqual(one.tell('ended', 3, 7, { problem: '' }), []);
  assert.equal(one.it.active, 1);
});

test('a ticket that is not good is followed by the token', () => {
  const one = online([A, B]);
  one.tell('move', 1, 1, { url: B, ticket: 't', withinS: 5 });
  assert.deepEqual(one.tell('ended', 2, 2, { code: 4304, advice: 'now', problem: '' }), ['+3 b next']);
});

test('an old home that ends early leaves the place to the new one on its way', () => {
  const one = online([A, B]);
  one.tell('move', 1, 1, { url: B, withinS: 5 });
  assert.deepEqual(one.tell('ended', 1, 2, { code: 1006, advice: 'now', problem: '' }), []);
  assert.equal(one.it.state, 'connecting');
  assert.deepEqual(one.tell('welcomed', 2, 2.1), ['=2']);
});

test('a gateway names where to stand by, with a ticket', () => {
  const one = online([A, B], { standby: true });
  assert.deepEqual(one.tell('standby', 1, 0, { url: C, ticket: 't' }), ['+2 c standby t']);
});

test('a standby goes where the home says, and is where it is sent away from no more', () => {
  const one = withStandby();
  assert.deepEqual(one.tell('standby', 1, 1, { url: B, ticket: 't' }), []); // it is there
  assert.deepEqual(one.tell('standby', 1, 1, { url: C, ticket: 't' }), ['-2', '+3 c standby t']);
  assert.deepEqual(one.tell('move', 3, 1, { url: B, ticket: 't', withinS: 5 }), ['-3', '+4 b standby t']);
  assert.deepEqual(online([A, B]).tell('standby', 1, 1, { url: C, ticket: 't' }), []); // nobody wants one
});

for (const [who, link, withinS] of [['its gateway', 2], ['the home', 1, 5]]) {
  test(`a standby that ${who} wants promoted delivers before the home is let go, and another is opened elsewhere`, () => {
    const one = withStandby([A, B, C]);
    assert.deepEqual(one.tell('asked', link, 1, { withinS }), ['^2']);
    assert.deepEqual([one.it.active, one.it.standby, one.it.state], [1, null, 'online']);
    assert.deepEqual(one.tell('asked', link, 1, { withinS }), []); // said again, it changes nothing
    assert.deepEqual(one.tell('delivers', 2, 1.01), ['=2', '-1']);
    assert.equal(one.it.active, 2);
    assert.deepEqual(one.tell('delivers', 2, 1.02), []);
    assert.deepEqual(one.wake(1.02), ['+3 c standby']); // a is left alone for a while
  });
}

test('who lost its new home goes back to the one that sent it away, if no other is free', () => {
  const one = withStandby();
  one.tell('asked', 1, 1, { withinS: 5 });
  one.tell('delivers', 2, 1.01);
  assert.equal(one.wake(14).length, 0); // it was to leave by 6, and stands by there 10 s later at the earliest
  assert.deepEqual(one.tell('ended', 2, 14, { code: 1006, advice: 'now', problem: '' }), []);
  assert.deepEqual(one.wake(14), ['+3 a active']);
});

test('a promotion that fails leaves everything as it was', () => {
  const one = withStandby();
  assert.deepEqual(one.tell('asked', 2, 1), ['^2']);
  assert.deepEqual(one.tell('ended', 2, 1.1, { problem: 'cut' }), []);
  assert.deepEqual([one.it.active, one.it.state], [1, 'online']);
  assert.deepEqual(one.wake(1.1), ['+3 b standby']);
  const late = withStandby();
  late.tell('asked', 2, 1);
  assert.equal(late.it.wakeAt(), 1 + POLICY.promoteS);
  assert.deepEqual(late.wake(1 + POLICY.promoteS), ['x2', '+3 b standby']);
  assert.equal(late.it.active, 1);
});

for (const [how, fact] of [
  ['ends', { code: 1006, advice: 'now' }], ['is replaced by it', { code: 4104, advice: 'never' }],
]) {
  test(`a home that ${how} during a promotion is followed by the standby`, () => {
    const one = withStandby([A, B, C]);
    one.tell('asked', 2, 1);
    assert.deepEqual(one.tell('ended', 1, 1.01, { ...fact, problem: '' }), ['=2']);
    assert.deepEqual([one.it.active, one.it.state], [2, 'online']);
    assert.deepEqual(one.tell('delivers', 2, 1.02), []);
    assert.deepEqual(one.wake(1.02), ['+3 c standby']);
  });
}

test('a gateway that cannot be reached does not keep the one that was lost before from being tried', () => {
  const one = online([A, B, C], { standby: true });
  one.wake(0);
  assert.deepEqual(one.tell('ended', 2, 20, { problem: '' }), []); // b cannot be reached
  assert.deepEqual(one.wake(20), ['+3 c standby']);
  assert.deepEqual(one.tell('ended', 3, 20, { problem: '' }), []); // nor c
  assert.deepEqual(one.wake(20), ['+4 b standby']);
});

test('who is to be promoted without a standby goes elsewhere, and not while it does so already', () => {
  const one = online([A, B]);
  assert.deepEqual(one.tell('asked', 1, 1, { withinS: 5 }), ['+2 b next']);
  assert.deepEqual(one.tell('asked', 1, 1, { withinS: 5 }), []);
  assert.deepEqual(one.tell('welcomed', 2, 1.1), ['=2', '-1']);
});

test('who was replaced comes back, for it was a connection of its own that a gateway read late', () => {
  const one = online([A]);
  assert.deepEqual(one.tell('ended', 1, 1, { code: 4104, advice: 'never', problem: '' }), []);
  assert.deepEqual(one.wake(1), ['+2 a active']);
});

test('a standby that gave way to a new home is replaced if that one cannot be opened', () => {
  const one = withStandby();
  assert.deepEqual(one.tell('move', 1, 1, { url: B, withinS: 0 }), ['-2', '+3 b next']);
  assert.deepEqual(one.tell('ended', 3, 2, { problem: '' }), []);
  assert.deepEqual(one.wake(2), ['+4 b standby']);
});

test('what hurries ends the pause of a standby as well', () => {
  const one = machine([A, B], { standby: true }, () => 0.99);
  one.start(0);
  one.tell('welcomed', 1, 0); // the second of the two, as chance has it
  const [dialed] = one.wake(1);
  assert.equal(dialed, '+2 a standby');
  for (let number = 2; number < 8; number++) {
    one.tell('ended', number, number * 100, { problem: '' });
    one.wake(number * 100 + 99);
  }
  one.tell('ended', 8, 900, { problem: '' });
  assert.ok(one.it.wakeAt() > 900.9);
  one.wake(901);
  assert.ok(one.it.wakeAt() > 910);
  assert.deepEqual(one.hurry(902), ['+9 a standby']);
});

test('peers are learned up to a bound', () => {
  const one = machine([A]);
  one.start(0);
  const peers = Array.from({ length: 20 }, (_, number) => `wss://p${number}/v1/stream`);
  one.tell('welcomed', 1, 0, { peers });
  assert.equal(one.it.urls.length, 1 + POLICY.peersMax);
});

test('close ends every connection, and nothing happens after it', () => {
  const one = withStandby();
  assert.deepEqual(one.close(), ['-1', '-2']);
  assert.equal(one.it.state, 'closed');
  assert.equal(one.it.wakeAt(), Infinity);
  assert.deepEqual(one.tell('ended', 1, 9, { problem: '' }), []);
});

test('in random histories there is one active connection at most, and always something to wait for', () => {
  for (let seed = 0; seed < 400; seed++) {
    const random = seeded(seed);
    const it = reunion([A, B, C].slice(0, 1 + random.upTo(2)), POLICY, random, { standby: random() < 0.5, canRefresh: true });
    const open = new Set();
    const promoted = new Set();
    let now = 0;
    const carryOut = (effects) => {
      for (const { do: what, link } of effects) {
        if (what === 'promote') promoted.add(link);
        if (what === 'dial') open.add(link);
        else if (what === 'hangUp') assert.ok(open.delete(link), `seed ${seed}: ${link} is hung up and was not open`);
        else if (link) assert.ok(open.has(link), `seed ${seed}: ${link} was not open: ${what}`);
      }
      assert.ok(open.size <= 3, `seed ${seed}`);
      if (it.standby) assert.ok(it.active, `seed ${seed}: a standby without a home`);
    };
    carryOut(it.start(now));
    for (let step = 0; step < 150 && it.state !== 'given-up'; step++) {
      now += random() * random.of([0.01, 1, 20]);
      const is = random.of(['welcomed', 'ended', 'delivers', 'move', 'standby', 'asked', 'wake', 'hurry']);
      const link = is === 'delivers' ? random.of([...promoted].filter((each) => open.has(each))) : random.of([...open, 0]);
      if (is === 'wake') carryOut(it.wake((now = Math.max(now, Math.min(it.wakeAt(), now + 60)))));
      else if (is === 'hurry') carryOut(it.hurry(now));
      else {
        if (is === 'ended') open.delete(link);
        const advice = random.of(['now', 'later', null, 'never']);
        const code = advice === 'never' ? random.of([4301, 4104]) : 1006;
        const more = { url: random.of([A, B, C, null]), withinS: 5, ticket: 't', beatS: 2, problem: '' };
        carryOut(it.handle({ is, link, advice, code, afterS: random.of([0, 0, 3]), ...more }, now));
      }
      if (it.state === 'given-up') assert.equal(open.size, 0);
      else assert.ok(it.wakeAt() < Infinity || it.state === 'closed', `seed ${seed}: nothing is waited for`);
    }
  }
});
