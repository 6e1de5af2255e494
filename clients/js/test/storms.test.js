/** Gateways are harmed again and again: whatever happened, two that work are soon a home and a standby. */
import assert from 'node:assert/strict';
import test from 'node:test';
import * as dist from '../dist/budao.js';
import * as src from '../src/index.js';
import { seeded } from './random.js';
import { HARMS, Net } from './storm.js';

const ROUNDS = 60;

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
  const [whose, { Client }] = seed > 5 ? ['the file for pages', dist] : ['src', src];
  test(`through ${ROUNDS} rounds of harm two gateways that work become a home and a standby, ${whose}, seed ${seed}`, async () => {
    const random = seeded(seed);
    const net = new Net(Client, random, 2 + (seed % 2), seed % 4 < 2 ? {} : { maxS: 2 });
    let calm = 0;
    const check = () => {
      assert.notEqual(net.client.state, 'given-up', net.client.problem);
      if (net.time < net.calmSince + net.calmS) return;
      calm++;
      assert.ok(net.isWhole, `at ${net.time}, calm since ${net.calmSince}: ${net}`);
    };
    for (let round = 0; round < ROUNDS; round++) {
      for (let harms = random.upTo(4); harms >= 0; harms--) {
        net.harm(random.of(HARMS), random.of(net.gateways));
        await net.pass(random() * random.of([0.03, 0.03, 1, 10, 100]), check);
        if (random() < 0.5) random.of(net.gateways).back();
      }
      for (const each of net.gateways) if (random() < 0.8) each.back();
      await net.pass(random() * 2 * net.calmS, check);
    }
    for (const each of net.gateways) each.back();
    await net.pass(net.calmS + 1, check);
    assert.ok(calm > 1000, `${calm} looks`);
    net.client.close();
  });
}
