import assert from 'node:assert/strict';
import test from 'node:test';
import { Client, PushError, START } from '../src/index.js';
import { A, B, C, World } from './world.js';

const e1 = (seq) => ({ epoch: 'e1', seq });
const why = (wanted) => (error) => error instanceof PushError && error.why === wanted;

/** A client that reads `n`, which a gateway has placed at e1:4. */
async function reading(world, options = {}, subscribe = {}) {
  const [client, socket] = await world.online(options);
  const got = [];
  const sub = client.subscribe('n', { onMessage: ({ data }) => got.push(data), onGap: (gap) => got.push(gap.why), ...subscribe });
  socket.say({ type: 'ack', ref: socket.of('sub').at(-1).ref, position: e1(4) });
  return { client, socket, sub, got };
}

test('a hello in the URL names the channels and their places, and the subprotocol is ours', async () => {
  const world = new World();
  const client = world.client({ name: 'page 1', token: 'a.b.c' });
  client.subscribe('n', { after: e1(41) });
  client.subscribe('news');
  client.subscribe('latest', { last: 5 });
  client.subscribe('seen', { presence: true });
  await world.settle();
  const [socket] = world.sockets;
  assert.deepEqual(socket.hello, {
    type: 'hello', version: 1, channels: { n: e1(41), news: null }, beat_s: 2, client: 'page 1',
  });
  assert.deepEqual(socket.protocols, ['budao.v1.json']);
  assert.equal(socket.token, 'a.b.c');
  socket.welcome({ channels: { n: e1(41), news: e1(7) } });
  assert.deepEqual(socket.of('sub').map(({ channel, last, presence }) => [channel, last, presence]), [
    ['latest', 5, false], ['seen', 0, true],
  ]);
  client.close();
});

test('a long hello is said as the first frame', async () => {
  const world = new World();
  const client = world.client();
  for (let number = 0; number < 200; number++) client.subscribe(`channel:${number}`, { after: START });
  await world.settle();
  const [socket] = world.sockets;
  assert.equal(socket.hello, null);
  socket.open();
  assert.equal(Object.keys(socket.of('hello')[0].channels).length, 200);
  client.close();
});

test('messages come once and in order over a lost connection, and the place is kept', async () => {
  const world = new World();
  const { client, socket, sub, got } = await reading(world);
  assert.deepEqual(await sub.ready, e1(4));
  socket.msg('n', 5, 6);
  socket.cut();
  assert.equal(client.state, 'connecting');
  await world.pass(0.02);
  const next = world.sockets[1];
  assert.deepEqual(next.hello.channels, { n: e1(6) });
  assert.equal(next.hello.session, 's-1');
  next.welcome({ resumed: true, channels: { n: e1(6) } });
  next.msg('n', 6, 7);
  assert.deepEqual(got, [5, 6, 7]);
  assert.deepEqual(sub.position, e1(7));
  assert.equal(client.metrics.duplicates, 1);
  assert.equal(client.metrics.resumes, 1);
  socket.onmessage({ data: '{"type":"msg","channel":"n","epoch":"e1","seq":8,"data":8}' }); // it was let go
  assert.deepEqual(got, [5, 6, 7]);
  client.close();
});

test('a gap is told, counted, and an event', async () => {
  const world = new World();
  const { client, socket, got } = await reading(world);
  const gaps = [];
  client.on('gap', ({ upto }) => gaps.push(upto.seq));
  socket.say({ type: 'gap', channel: 'n', after: e1(4), upto: e1(9), why: 'trimmed' });
  socket.msg('n', 10);
  assert.deepEqual(got, ['trimmed', 10]);
  assert.deepEqual(gaps, [9]);
  assert.equal(client.metrics.missed, 5);
  client.close();
});

test('what a gateway leaves out is asked for again, and the third time the reader hears of it', async () => {
  const world = new World();
  const { client, socket, sub, got } = await reading(world);
  const errors = [];
  client.on('error', (error) => errors.push(error.why));
  for (let time = 0; time < 3; time++) {
    socket.msg('n', 9);
    const asked = socket.of('sub').at(-1);
    assert.equal(asked.channel, 'n');
    if (time < 2) {
      assert.deepEqual(asked.after, e1(4));
      socket.say({ type: 'ack', ref: asked.ref, position: e1(4) });
    }
  }
  assert.deepEqual(errors, ['broken-promise']);
  assert.deepEqual(got, []);
  assert.deepEqual(sub.position, e1(4));
  assert.equal(client.metrics.brokenPromises, 3);
  client.close();
});

test('an iterator that is slow makes its channel rest, and it goes on once half is read', async () => {
  const world = new World();
  const { client, socket, sub } = await reading(world, { policy: { bufferMax: 4 } }, { onMessage: undefined });
  socket.msg('n', 5, 6, 7, 8, 9, 10);
  assert.equal(client.metrics.rests, 1);
  assert.equal(socket.of('unsub').length, 1);
  for (const seq of [5, 6]) assert.equal((await sub.next()).value.data, seq);
  const asked = socket.of('sub').at(-1);
  assert.deepEqual(asked.after, e1(8));
  socket.say({ type: 'ack', ref: asked.ref, position: e1(8) });
  socket.msg('n', 9, 10);
  const rest = [];
  for await (const { data } of sub) {
    rest.push(data);
    if (data === 10) break;
  }
  assert.deepEqual(rest, [7, 8, 9, 10]);
  assert.deepEqual((await sub.next()), { done: true, value: undefined }); // leaving the loop has unsubscribed
  assert.equal(socket.of('unsub').length, 2);
  client.subscribe('n');
  client.close();
});

test('an iterator waits, for several readers, and ends with the client', async () => {
  const world = new World();
  const { client, socket, sub } = await reading(world, {}, { onMessage: undefined });
  const both = [sub.next(), sub.next()];
  socket.msg('n', 5, 6);
  assert.deepEqual((await Promise.all(both)).map(({ value }) => value.data).sort(), [5, 6]);
  const last = sub.next();
  client.close();
  assert.equal((await last).done, true);
  assert.throws(() => client.subscribe('m'), why('closed'));
});

test('a callback that throws disturbs nobody, and is heard of', async (t) => {
  const world = new World();
  const got = [];
  const { client, socket } = await reading(world, {}, {
    onMessage: ({ data }) => {
      got.push(data);
      if (data === 5) throw new Error('of the page');
    },
  });
  const later = t.mock.method(globalThis, 'queueMicrotask', () => {});
  socket.msg('n', 5, 6);
  assert.throws(later.mock.calls[0].arguments[0], /of the page/); // a microtask of its own throws it again
  assert.deepEqual(got, [5, 6]);
  client.close();
});

test('a channel that is forbidden ends its subscription, and one that is busy is asked for again', async () => {
  const world = new World();
  const [client, socket] = await world.online();
  const errors = [];
  client.on('error', (error) => errors.push(error.channel));
  const secret = client.subscribe('secret');
  socket.say({ type: 'ack', ref: socket.of('sub')[0].ref, problem: { why: 'forbidden', happened: 'no' } });
  await assert.rejects(secret.ready, why('forbidden'));
  await assert.rejects(secret.next(), /cannot read secret: no; nothing was done/);
  assert.deepEqual(errors, ['secret']);
  client.subscribe('later');
  socket.say({ type: 'ack', ref: socket.of('sub')[1].ref, problem: { why: 'log-away', happened: '', after_s: 3 } });
  await world.pass(2.9);
  assert.equal(socket.of('sub').length, 2);
  socket.say({ type: 'ping' });
  await world.pass(0.2);
  assert.equal(socket.of('sub').length, 3);
  assert.throws(() => client.subscribe('later'), why('subscribed'));
  client.close();
});

test('presence goes to its callback', async () => {
  const world = new World();
  const seen = [];
  const { client, socket } = await reading(world, {}, { presence: true, onPresence: ({ count }) => seen.push(count) });
  socket.say({ type: 'presence', channel: 'n', count: 2, joined: ['anna'], left: [] });
  assert.deepEqual(seen, [2]);
  client.close();
});

test('a publish resolves with its place, and is sent again with its id over another connection', async () => {
  const world = new World();
  const [client, socket] = await world.online();
  const first = client.publish('n', { a: 1 }, { id: 'one' });
  const second = client.publish('n', new Uint8Array([0, 255]));
  assert.deepEqual(socket.of('pub').map(({ id, data, data64 }) => [id === 'one', data, data64]), [
    [true, { a: 1 }, undefined], [false, undefined, 'AP8='],
  ]);
  assert.match(socket.of('pub')[1].id, /^[0-9a-f-]{36}$/);
  socket.cut();
  await world.pass(0.02);
  const next = world.sockets[1];
  next.welcome();
  assert.deepEqual(next.of('pub'), socket.of('pub'));
  const [one, two] = next.of('pub');
  next.say({ type: 'ack', ref: one.ref, position: e1(1), repeat: true }, { type: 'ack', ref: two.ref, position: e1(2) });
  assert.deepEqual(await first, { epoch: 'e1', seq: 1, repeat: true });
  assert.deepEqual(await second, { epoch: 'e1', seq: 2, repeat: false });
  assert.deepEqual([client.metrics.publishes, client.metrics.repeats, client.metrics.tries], [2, 1, 4]);
  client.close();
});

test('a publish that is not answered in time says whether it may have taken effect', async () => {
  const world = new World();
  const client = world.client();
  const unsent = client.publish('n', 1, { withinS: 1 });
  const refused = assert.rejects(unsent, (error) => why('timed-out')(error) && !error.mayHaveTakenEffect && /nothing was done/.test(error.message));
  await world.pass(1);
  await refused;
  world.sockets.at(-1).welcome();
  const sent = client.publish('n', 1, { id: 'i', withinS: 1 });
  const late = assert.rejects(sent, (error) => error.mayHaveTakenEffect && error.id === 'i' && /may have taken effect/.test(error.message));
  await world.pass(1);
  await late;
  client.close();
});

test('a publish refused for a while is sent again before those behind it, and one refused for good rejects', async () => {
  const world = new World();
  const [client, socket] = await world.online({ policy: { publishingMax: 1 } });
  const publishes = [client.publish('n', 1), client.publish('n', 2), client.publish('n', 3)];
  const refs = () => socket.of('pub').map(({ data }) => data);
  assert.deepEqual(refs(), [1]);
  socket.say({ type: 'ack', ref: socket.of('pub')[0].ref, problem: { why: 'rate', happened: '', after_s: 0.5 } });
  assert.deepEqual(refs(), [1]);
  await world.pass(0.5);
  assert.deepEqual(refs(), [1, 1]);
  socket.say({ type: 'ack', ref: socket.of('pub')[1].ref, position: e1(1) });
  socket.say({ type: 'ack', ref: socket.of('pub')[2].ref, problem: { why: 'forbidden', happened: 'no' } });
  assert.equal((await publishes[0]).seq, 1);
  await assert.rejects(publishes[1], why('forbidden'));
  const last = assert.rejects(publishes[2], (error) => why('closed')(error) && error.mayHaveTakenEffect);
  client.close();
  await last;
  await assert.rejects(client.publish('n', 1), why('closed'));
});

test('what cannot be published is refused at once', async () => {
  const world = new World();
  const [client] = await world.online({ policy: { waitingMax: 2, publishingMax: 0 } });
  await assert.rejects(client.publish('n', undefined), why('bad-data'));
  await assert.rejects(client.publish('n', 10n), why('bad-data'));
  const waiting = [client.publish('n', 1), client.publish('n', 2)].map((each) => assert.rejects(each, why('closed')));
  await assert.rejects(client.publish('n', 3), why('busy'));
  client.close();
  await Promise.all(waiting);
  const other = new World();
  const [small] = await other.online();
  await assert.rejects(small.publish('n', 'x'.repeat(1000)), why('too-large'));
  small.close();
});

test('a gateway that is full is left alone for as long as it says, and the other is tried', async () => {
  const world = new World();
  const [client, socket] = await world.online();
  socket.say({ type: 'bye', code: 4200, why: 'full', advice: 'later', after_s: 9, detail: 'no room' });
  assert.match(client.problem, /127\.0\.0\.1:1.* it said goodbye: full no room/);
  await world.pass(0.02);
  assert.ok(world.sockets[1].url.startsWith(B));
  world.sockets[1].cut();
  world.random = () => 0.999; // from now on the longest pauses
  await world.pass(8.9);
  assert.ok(world.sockets.slice(2).every(({ url }) => url.startsWith(B)));
  client.close();
});

test('a token is asked for again when it was refused, and is in no message', async () => {
  const world = new World();
  let number = 0;
  const client = world.client({ token: async () => `secret-${++number}` });
  const said = [];
  client.on('state', (each) => said.push(each));
  client.on('error', (each) => said.push(each.message));
  await world.settle();
  assert.equal(world.sockets[0].token, 'secret-1');
  world.sockets[0].open();
  world.sockets[0].say({ type: 'bye', code: 4300, why: 'unauthorized', advice: 'never' });
  await world.pass(0.02);
  assert.equal(world.sockets[1].token, 'secret-2');
  world.sockets[1].welcome();
  world.sockets[1].cut(4301);
  await world.pass(0.02);
  assert.equal(world.sockets[2].token, 'secret-3');
  for (const socket of world.sockets) if (socket.readyState === 0) socket.cut(4300);
  await world.pass(0.1);
  world.sockets.at(-1).cut(4300);
  await world.settle();
  assert.equal(client.state, 'given-up');
  assert.throws(() => client.subscribe('n'), why('unauthorized'));
  assert.doesNotMatch(JSON.stringify(said) + client.problem, /secret/);
  assert.equal(world.waiting, 0);
});

test('a source of tokens that fails is asked again after a while', async () => {
  const world = new World();
  let fails = 2;
  const client = world.client({
    token: () => {
      if (fails-- > 0) throw new Error('not now');
      return 't';
    },
  });
  const errors = [];
  client.on('error', ({ message }) => errors.push(message));
  await world.pass(5);
  assert.ok(errors.length >= 1);
  assert.equal(world.sockets[0].token, 't');
  client.close();
});

test('the standby is promoted with the places of now in one round trip', async () => {
  const world = new World();
  const { client, socket, got } = await reading(world, { standby: true });
  await world.pass(0);
  const standby = world.sockets[1];
  assert.equal(standby.hello.standby, true);
  assert.ok(standby.url.startsWith(B));
  standby.welcome();
  assert.equal(client.health.hasStandby, true);
  socket.msg('n', 5, 6);
  socket.cut();
  const [asked] = standby.of('standby');
  assert.deepEqual(asked.channels, { n: e1(6) });
  assert.equal(client.state, 'online');
  standby.say({ type: 'ack', ref: asked.ref, channels: { n: e1(6) } });
  standby.msg('n', 7);
  assert.deepEqual(got, [5, 6, 7]);
  assert.equal(client.metrics.promotions, 1);
  assert.equal(client.gateway, B);
  client.close();
});

for (const [who, ask] of [
  ['its gateway', (home, standby) => standby.say({ type: 'standby' })],
  ['the home', (home) => home.say({ type: 'move', url: '', why: 'promote', within_s: 5 })],
]) {
  test(`a standby that ${who} wants promoted takes over, and what both tell comes once`, async (t) => {
    t.after(() => delete globalThis.location);
    globalThis.location = { href: 'http://127.0.0.1:9/page' }; // in a page no URL is one as well
    const world = new World();
    const { client, socket, got } = await reading(world, { standby: true, urls: [A, B, C] });
    await world.pass(0);
    const [, standby] = world.sockets;
    standby.welcome();
    socket.msg('n', 5);
    const sent = client.publish('n', 'on its way');
    ask(socket, standby);
    const [asked] = standby.of('standby');
    assert.deepEqual(asked.channels, { n: e1(5) });
    assert.deepEqual([client.gateway, client.health.hasStandby], [A, false]);
    socket.msg('n', 6); // the home goes on meanwhile
    standby.say({ type: 'ack', ref: asked.ref, channels: { n: e1(5) } });
    standby.msg('n', 6, 7);
    assert.equal(socket.closedWith, 1000);
    assert.equal(client.gateway, B);
    assert.deepEqual(standby.of('pub'), socket.of('pub'));
    standby.say({ type: 'ack', ref: standby.of('pub')[0].ref, position: e1(8), repeat: true });
    assert.equal((await sent).seq, 8);
    assert.deepEqual(got, [5, 6, 7]);
    const { promotions, moves, gaps, failures, recoveryS, duplicates } = client.metrics;
    assert.deepEqual([promotions, moves, gaps, failures, recoveryS, duplicates], [1, 0, 0, 0, null, 1]);
    await world.pass(0.01);
    assert.equal(world.sockets.length, 3);
    assert.ok(world.sockets[2].url.startsWith(C));
    assert.equal(world.sockets[2].hello.standby, true);
    standby.say({ type: 'standby' }); // it was said before our own word came there
    assert.equal(client.metrics.promotions, 1);
    client.close();
  });
}

test('a promotion that a gateway refuses leaves the home where it was', async () => {
  const world = new World();
  const { client, socket, got } = await reading(world, { standby: true });
  await world.pass(0);
  const [, standby] = world.sockets;
  standby.welcome();
  standby.say({ type: 'standby' });
  standby.say({ type: 'ack', ref: standby.of('standby')[0].ref, problem: { why: 'log-away', happened: 'no log' } });
  assert.match(client.problem, /does not promote its standby: no log/);
  assert.equal(standby.closedWith, 1000);
  socket.msg('n', 5);
  assert.deepEqual([client.gateway, client.state, got], [A, 'online', [5]]);
  await world.pass(0.01);
  assert.equal(world.sockets.length, 3); // another standby
  client.close();
});

test('a move opens the new home beside the old one, and what both tell comes once', async () => {
  const world = new World();
  const { client, socket, got } = await reading(world);
  socket.say({ type: 'move', url: 'ws://127.0.0.1:3/v1/stream', ticket: 't-1', within_s: 5, why: 'drain' });
  await world.settle();
  const home = world.sockets[1];
  assert.equal(home.hello.ticket, 't-1');
  socket.msg('n', 5);
  assert.equal(socket.readyState, 1);
  home.open();
  home.welcome({ resumed: true, channels: { n: e1(4) } });
  home.msg('n', 5, 6);
  assert.equal(socket.closedWith, 1000);
  assert.deepEqual(got, [5, 6]);
  assert.equal(client.gateway, 'ws://127.0.0.1:3/v1/stream');
  client.close();
});

test('a gateway that names one less safe than itself is not followed', async () => {
  const world = new World();
  const client = world.client({ urls: ['https://a.example'], token: 't' });
  await world.settle();
  world.sockets[0].welcome({ peers: ['ws://evil.example', 'wss://b.example/v1/stream', 'no url'] });
  assert.deepEqual(client.urls, ['wss://a.example/v1/stream', 'wss://b.example/v1/stream']);
  client.close();
});

test('an active gateway that falls silent is left, and one that beats is not', async () => {
  const world = new World();
  const [client, socket] = await world.online();
  for (let beat = 0; beat < 10; beat++) {
    await world.pass(2);
    socket.say({ type: 'ping' });
  }
  assert.equal(world.sockets.length, 1);
  await world.pass(6.1);
  assert.equal(world.sockets.length, 2);
  assert.equal(client.metrics.failures, 1);
  client.close();
});

test('a page that slept reads what lies there before it takes its gateway for dead', async () => {
  const world = new World();
  const [client, socket] = await world.online();
  world.time += 3600; // nothing rings meanwhile
  await world.pass(0); // now it does, late
  assert.equal(world.sockets.length, 1);
  socket.say({ type: 'ping' });
  await world.pass(1.5);
  assert.equal(world.sockets.length, 1);
  client.close();
});

test('a ping with a number is answered, and health is measured while somebody listens', async () => {
  const world = new World();
  const [client, socket] = await world.online();
  socket.say({ type: 'ping', number: 7 }, { type: 'ping' });
  assert.deepEqual(socket.of('pong'), [{ type: 'pong', number: 7 }]);
  const seen = [];
  const off = client.on('health', ({ rttS, beatS }) => seen.push([rttS, beatS]));
  world.time += 0.25;
  socket.say({ type: 'pong', number: socket.of('ping')[0].number });
  assert.deepEqual(seen, [[0.25, 2]]);
  await world.pass(5);
  assert.equal(socket.of('ping').length, 2);
  off();
  socket.say({ type: 'ping' });
  await world.pass(5);
  socket.say({ type: 'ping' });
  await world.pass(5);
  assert.equal(socket.of('ping').length, 2);
  client.close();
});

for (const [name, happen] of [
  ['the network is back', ({ page }) => page.dispatchEvent(new Event('online'))],
  ['somebody looks at the page', ({ page }) => page.document.dispatchEvent(new Event('visibilitychange'))],
]) {
  test(`a pause ends at once when ${name}`, async () => {
    const world = new World();
    world.random = () => 0.99;
    const client = world.client({ urls: [A] });
    await world.settle();
    for (let time = 0; time < 6; time++) {
      world.sockets.at(-1).cut();
      await world.pass(20);
    }
    world.sockets.at(-1).cut();
    const count = world.sockets.length;
    await world.pass(1);
    assert.equal(world.sockets.length, count);
    happen(world);
    await world.settle();
    assert.equal(world.sockets.length, count + 1);
    client.close();
    happen(world);
    await world.settle();
    assert.equal(world.sockets.length, count + 1);
    assert.equal(world.waiting, 0);
  });
}

test('what a gateway says that is no frame ends the connection, not the client', async () => {
  for (const said of ['{', '7', 'null', '{"kind":1}']) {
    const world = new World();
    const [client, socket] = await world.online();
    socket.say(said);
    await world.pass(0.02);
    assert.equal(world.sockets.length, 2, said);
    client.close();
  }
});

test('a constructor that throws is a connection that failed', async () => {
  const world = new World();
  world.random = () => 0.5;
  const errors = [];
  const client = world.client({
    WebSocket: class {
      constructor() {
        throw new Error('mixed content');
      }
    },
  });
  client.on('error', ({ message }) => errors.push(message));
  await world.pass(2);
  assert.ok(errors.length >= 2 && errors.length < 12, `${errors.length} tries`);
  client.close();
});

test('settings that make no sense are refused, and repeat no secret', () => {
  const make = (options) => () => new Client({ WebSocket: class {}, ...options });
  assert.throws(make({ urls: [], WebSocket: null }), why('no-websocket'));
  assert.throws(make({ urls: [], WebSocket: null }), /--experimental-websocket/);
  assert.throws(make({ urls: [] }), /urls: a list/);
  assert.throws(make({ urls: 'https://a' }), /urls: a list/);
  assert.throws(make({ urls: ['http://a.example'], token: 't' }), /https or wss/);
  for (const url of ['ftp://a/x-secret', 'https://a/?token=x-secret', 'https://u:x-secret@a', 'x-secret']) {
    assert.throws(make({ urls: [url] }), (error) => error instanceof TypeError && !error.message.includes('x-secret'));
  }
});

test('gateways are named once, however they are written', async () => {
  const world = new World();
  const client = world.client({ urls: ['http://127.0.0.1:1', 'ws://127.0.0.1:1/', 'http://127.0.0.1:1/v1/stream/'] });
  assert.deepEqual(client.urls, [A]);
  await world.settle();
  client.close();
});

test('a closed client leaves nothing behind on its page', async (t) => {
  const world = new World();
  const calls = [world.page, world.page.document].map((each) => [
    t.mock.method(each, 'addEventListener'), t.mock.method(each, 'removeEventListener'),
  ]);
  const [client] = await world.online();
  client.close();
  for (const [added, removed] of calls) {
    assert.equal(added.mock.callCount(), 1);
    assert.deepEqual(removed.mock.calls[0].arguments, added.mock.calls[0].arguments);
  }
});
