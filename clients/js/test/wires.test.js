/** The frames that the Python side has captured are what this client writes and reads. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { JSON_CODEC, dataOf, helloQuery, itemOf } from '../src/codec.js';
import { World } from './world.js';

const captured = JSON.parse(readFileSync(new URL('../../../tests/wires/push_frames_v1.json', import.meta.url), 'utf8'));
const client = (name) => JSON.parse(captured.client[name].json);
const gateway = (name) => captured.gateway[name].json;
const e1 = (seq) => ({ epoch: 'e1', seq });
/** What is meant: keys that are null, false or 0 are as good as missing. */
const meant = (frame) => Object.fromEntries(Object.entries(frame).filter(([, value]) => value));

test('every captured frame of a gateway is taken without a mistake', async () => {
  for (const name of Object.keys(captured.gateway)) {
    const world = new World();
    const [one, socket] = await world.online();
    one.subscribe('room:42', { after: e1(41) });
    socket.say(gateway(name));
    await world.settle();
    one.close();
  }
});

test('a captured message, gap and bytes are what a reader gets', () => {
  const text = itemOf(JSON_CODEC.decode(gateway('msg')));
  assert.deepEqual(text.position, e1(42));
  assert.deepEqual(text.data, { text: 'hi', size: 1.5 });
  assert.deepEqual([text.id, text.at], ['m-1', 1700000000.25]);
  assert.equal(itemOf(JSON_CODEC.decode(gateway('msg with a trace'))).data, null);
  assert.deepEqual(itemOf(JSON_CODEC.decode(gateway('msg of bytes'))).data, new Uint8Array([0, 255]));
  const gap = itemOf(JSON_CODEC.decode(gateway('gap')));
  assert.deepEqual([gap.after, gap.upto, gap.why], [e1(41), e1(90), 'trimmed']);
});

test('a captured refusal, welcome, bye and move do what they say', async () => {
  const world = new World();
  const [one, socket] = await world.online({ urls: ['wss://a.example'] });
  socket.welcome();
  socket.say(gateway('move'));
  await world.settle();
  assert.equal(world.sockets[1].hello.ticket, 't-1');
  assert.ok(world.sockets[1].url.startsWith('wss://g-2.example/v1/stream?'));
  world.sockets[1].open();
  world.sockets[1].say(gateway('welcome'));
  assert.equal(one.gateway, 'wss://g-2.example/v1/stream');
  world.sockets[1].say(gateway('bye'));
  assert.match(one.problem, /full no room for more connections/);
  one.close();
});

test('what the client writes is what was captured', async () => {
  const world = new World();
  const one = world.client({ name: 'example 1.0' });
  await world.settle();
  const [socket] = world.sockets;
  const { beat_s: beat, channels, ...hello } = socket.hello;
  assert.deepEqual([hello, channels, beat], [client('hello'), {}, 2]);
  socket.welcome();
  one.subscribe('room:42', { after: e1(41) });
  one.subscribe('room:42b', { last: 10, presence: true });
  const [goesOn, latest] = socket.of('sub');
  assert.deepEqual(meant({ ...goesOn, ref: 2 }), client('sub that goes on'));
  assert.deepEqual(meant({ ...latest, ref: 3, channel: 'room:42' }), client('sub with the latest'));
  const publishes = [
    one.publish('room:42', { text: 'hi', size: 1.5 }, { id: 'm-1' }),
    one.publish('room:42', 'é', { trace: client('pub with a trace').trace }),
    one.publish('room:42', new Uint8Array([0, 255])),
  ].map((each) => each.catch(() => {}));
  const [json, traced, bytes] = socket.of('pub');
  assert.deepEqual({ ...json, ref: 5 }, client('pub'));
  assert.deepEqual({ ...traced, ref: 6, id: undefined }, { ...client('pub with a trace'), id: undefined });
  assert.deepEqual({ ...bytes, ref: 7, id: undefined }, { ...client('pub of bytes'), id: undefined });
  socket.say({ type: 'ping', number: 9 });
  assert.deepEqual(socket.of('pong')[0], client('pong'));
  one.close();
  await Promise.all(publishes);
});

test('bytes of every kind travel as base64, and a hello as base64url', () => {
  const whole = new Uint8Array([9, 0, 255, 9]);
  for (const data of [whole.subarray(1, 3), whole.buffer.slice(1, 3), new DataView(whole.buffer, 1, 2)]) {
    assert.deepEqual(dataOf(data), { data64: 'AP8=' });
  }
  const hello = { type: 'hello', channels: { 'räume:☃?>': null } };
  assert.doesNotMatch(helloQuery(hello), /[^\w-]/);
  assert.deepEqual(JSON.parse(Buffer.from(helloQuery(hello), 'base64url')), hello);
});
