/** The client against real gateways, which are killed, frozen and drained under it. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { Client, START } from '../src/index.js';
import { OPEN, gateways, token } from './gateways.js';

const COUNT = 100;
const ALL = Array.from({ length: COUNT }, (_, number) => number);
const PATIENCE_MS = 30_000;

async function until(holds) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `not within ${PATIENCE_MS} ms: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A client that ends with the test. */
function connect(t, options) {
  const client = new Client(options);
  t.after(() => client.close());
  return client;
}

/** Reads `COUNT` numbers while another client publishes them at `elsewhere`; half-way, `happen` is called. */
async function carryOn(t, client, elsewhere, happen) {
  const writer = connect(t, { urls: elsewhere });
  const sub = client.subscribe('n');
  await sub.ready;
  const publishing = (async () => {
    for (const number of ALL) {
      if (number === COUNT / 2) await happen();
      await writer.publish('n', number);
    }
  })();
  const got = [];
  for await (const item of sub) if (got.push(item.data) === COUNT) break;
  await publishing;
  return got;
}

function keyIn(folder) {
  const key = join(folder, 'key');
  writeFileSync(key, `${'0123456789abcdef'.repeat(4)}\n`, { mode: 0o600 });
  return key;
}

const urlsOf = (all) => all.map(({ url }) => url);
const homeOf = (all, client) => all.find(({ port }) => client.gateway.includes(`:${port}/`));

test('what is published is read once and in order, again from any place', { timeout: PATIENCE_MS }, async (t) => {
  const all = await gateways(t, 1);
  const client = connect(t, { urls: urlsOf(all) });
  const sub = client.subscribe('news', { after: START });
  const first = await client.publish('news', { 'ü': [1, null] }, { id: 'one' });
  assert.deepEqual(await client.publish('news', 'again', { id: 'one' }), { ...first, repeat: true });
  await client.publish('news', new Uint8Array([0, 255]));
  assert.deepEqual((await sub.next()).value.data, { 'ü': [1, null] });
  assert.deepEqual((await sub.next()).value.data, new Uint8Array([0, 255]));
  const { epoch, seq } = first;
  const again = connect(t, { urls: urlsOf(all) }).subscribe('news', { after: { epoch, seq } });
  assert.deepEqual((await again.next()).value.data, new Uint8Array([0, 255]));
  const latest = connect(t, { urls: urlsOf(all) }).subscribe('news', { last: 1 });
  assert.deepEqual((await latest.next()).value.position, { epoch, seq: 2 });
});

test('a gateway that is killed loses and doubles nothing', { timeout: 2 * PATIENCE_MS }, async (t) => {
  const all = await gateways(t, 2);
  const client = connect(t, { urls: urlsOf(all) });
  await until(() => client.gateway);
  const home = homeOf(all, client);
  // The writer knows both, so it is cut as well or not, as chance has it.
  assert.deepEqual(await carryOn(t, client, urlsOf(all), () => home.kill()), ALL);
  assert.equal(client.metrics.gaps, 0);
});

test('a standby goes on where a frozen gateway stopped', { timeout: 2 * PATIENCE_MS }, async (t) => {
  const all = await gateways(t, 2);
  const client = connect(t, { urls: urlsOf(all), standby: true, policy: { standbySpreadS: 0 } });
  await until(() => client.health.hasStandby);
  const home = homeOf(all, client);
  const others = urlsOf(all.filter((each) => each !== home));
  assert.deepEqual(await carryOn(t, client, others, () => home.signal('SIGSTOP')), ALL);
  assert.equal(client.metrics.promotions, 1);
  assert.equal(client.metrics.gaps, 0);
});

for (const who of ['the home', 'the gateway of the standby']) {
  test(`a standby is promoted when ${who} is asked to`, { timeout: 2 * PATIENCE_MS }, async (t) => {
    let key;
    const all = await gateways(t, 3, (_, folder) => {
      key = keyIn(folder);
      return [...OPEN, '--token-key', key];
    });
    const authorization = `Bearer ${token(key, '--operate')}`;
    const control = (gateway, verb, said) =>
      fetch(`${gateway.url}/v1/control/${verb}`, { method: 'POST', body: JSON.stringify(said), headers: { authorization } });
    const client = connect(t, { urls: urlsOf(all), standby: true, policy: { standbySpreadS: 0 } });
    await until(() => client.health.hasStandby);
    const home = homeOf(all, client);
    const { session } = client;
    const rolesAt = async (gateway) => (await (await control(gateway, 'sessions', {})).json()).sessions
      .filter((each) => each.session === session).map(({ standby }) => (standby ? 'standby' : 'home'));
    const quiet = await (async () => {
      for (const each of all) if ((await rolesAt(each)).includes('standby')) return each;
    })();
    const third = all.find((each) => each !== home && each !== quiet);
    const got = await carryOn(t, client, [third.url], async () => {
      const answer = await control(who === 'the home' ? home : quiet, 'promote', { session });
      assert.deepEqual([answer.status, await answer.json()], [202, { session, told: 1 }]);
    });
    assert.deepEqual(got, ALL);
    await until(() => homeOf(all, client) === quiet && client.health.hasStandby);
    const { promotions, moves, gaps, failures, brokenPromises } = client.metrics;
    assert.deepEqual([promotions, moves, gaps, failures, brokenPromises], [1, 0, 0, 0, 0]);
    await until(async () => `${await Promise.all([home, quiet, third].map(rolesAt))}` === ',home,standby');
  });
}

test('a gateway that leaves is left without a gap', { timeout: 2 * PATIENCE_MS }, async (t) => {
  const all = await gateways(t, 2, (found) => (found.length ? [...OPEN, '--peer', found[0].url] : OPEN));
  const [other, home] = all;
  const client = connect(t, { urls: [home.url] });
  await until(() => client.gateway);
  assert.deepEqual(await carryOn(t, client, [other.url], () => home.signal('SIGTERM')), ALL);
  await until(() => client.gateway?.includes(`:${other.port}/`));
  assert.equal(client.metrics.gaps, 0);
  assert.equal(client.metrics.moves, 1);
  assert.equal(await home.ended, 0);
});

test('a token that is refused is asked for again, and forbids what it does not allow', { timeout: PATIENCE_MS }, async (t) => {
  let key;
  const all = await gateways(t, 1, (_, folder) => {
    key = keyIn(folder);
    return ['--token-key', key];
  });
  const good = token(key, '--subscribe', 'room:*', '--publish', 'room:*');
  const given = [];
  const client = connect(t, { urls: urlsOf(all), token: async () => given[given.push(given.length ? good : 'not.a.token') - 1] });
  const room = client.subscribe('room:1');
  await room.ready;
  assert.equal(given.length, 2);
  await client.publish('room:1', 'hi');
  assert.equal((await room.next()).value.data, 'hi');
  await assert.rejects(client.subscribe('secret').ready, { why: 'forbidden' });
  await assert.rejects(client.publish('secret', 1), { why: 'forbidden' });
  const stranger = connect(t, { urls: urlsOf(all), token: 'not.a.token' });
  await assert.rejects(stranger.subscribe('room:1').ready, { why: 'unauthorized' });
  assert.equal(stranger.state, 'given-up');
});

test('a slow iterator makes its channel rest at the gateway, and misses nothing', { timeout: PATIENCE_MS }, async (t) => {
  const all = await gateways(t, 1);
  const client = connect(t, { urls: urlsOf(all), policy: { bufferMax: 10 } });
  const sub = client.subscribe('n');
  await sub.ready;
  await Promise.all(ALL.map((number) => client.publish('n', number)));
  await until(() => client.metrics.rests);
  const got = [];
  for await (const { data } of sub) if (got.push(data) === COUNT) break;
  assert.deepEqual(got, ALL);
  assert.ok(client.metrics.rests >= 1);
});
