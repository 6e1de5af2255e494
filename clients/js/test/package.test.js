import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';
import { gzipSync } from 'node:zlib';
import { fingerprint } from '../build.js';
import * as dist from '../dist/budao.js';
import * as src from '../src/index.js';
import { World } from './world.js';

const read = (name) => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8');
const about = JSON.parse(read('package.json'));
const BYTES_MAX = 8 * 1024;

test('the file for pages, which is the whole client, is at most 8 KiB by gzip -9', () => {
  const bytes = gzipSync(read('dist/budao.js'), { level: 9 }).length;
  assert.ok(bytes <= BYTES_MAX, `${bytes} bytes`);
});

test('the file for pages was built from src', () => {
  assert.ok(read('dist/budao.js').includes(`built from src ${fingerprint()}.`), 'npm install && npm run build');
  assert.deepEqual(Object.keys(dist).sort(), Object.keys(src).sort());
});

test('what package.json names exists, and nothing is needed at run time', () => {
  const named = [about.main, about.types, ...about.files.map((each) => `./${each}`), ...Object.values(about.exports['.'])];
  for (const each of named) assert.ok(existsSync(new URL(`../${each}`, import.meta.url)), each);
  assert.equal(about.dependencies, undefined);
  for (const name of readdirSync(new URL('../src/', import.meta.url))) {
    for (const [, from] of read(`src/${name}`).matchAll(/from '([^']+)'/g)) assert.match(from, /^\.\/[a-z]+\.js$/);
  }
});

test('the types name what there is', async () => {
  const types = read('index.d.ts');
  const named = [...types.matchAll(/^export (?:class|const|function) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(named.sort(), Object.keys(src).sort());
  const membersOf = (kind) => {
    const [, body] = types.match(new RegExp(`^export (?:class|interface) ${kind}\\b[^{]*\\{\\n(.*?)\\n\\}`, 'ms'));
    return [...body.matchAll(/^ {2}(?:readonly )?(\w+)\??[<(:]/gm)].map(([, name]) => name).filter((name) => name !== 'constructor').sort();
  };
  const [client] = await new World().online();
  const sub = client.subscribe('n');
  assert.deepEqual(membersOf('Client'), Object.keys(client).sort());
  assert.deepEqual(membersOf('Metrics'), Object.keys(client.metrics).sort());
  assert.deepEqual(membersOf('Health'), Object.keys(client.health).sort());
  const { POLICY } = await import('../src/policy.js');
  assert.deepEqual(membersOf('Policy'), Object.keys(POLICY).sort());
  for (const name of membersOf('Subscription')) assert.ok(name in sub, name);
  client.close();
});
