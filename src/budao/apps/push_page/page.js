/** The page of the push demo: one session, watched. Everything it says is read off the client, or asked of the gateways. */
import { Client } from './client/index.js';
import { Checker } from './check.js';
import { Strip } from './strip.js';
import * as view from './view.js';

const LAST = 150;
const LATENCIES_MAX = 300;
const LOOK_MS = 1000;
const ASK_MS = 900;
const SWITCH_MS = 400;

const wantsStandby = new URLSearchParams(location.search).get('standby') !== 'no';
const demo = await (await fetch('demo.json')).json();
const lanes = new Map(demo.gateways.map((each, index) => [new URL(each.url).host, { ...each, index }]));
const strip = new Strip(document.getElementById('strip'));
const checker = new Checker();
const seen = { replayed: 0, switches: 0, latencies: [], onlineAt: 0, firstAt: 0, from: null, tickedAt: 0, recoveryS: null };

const client = new Client({
  urls: demo.gateways.map((each) => each.url), token: demo.token, standby: wantsStandby, name: 'budao demo page',
  policy: { healthS: 1, maxS: 2 }, // a gateway that was killed is back soon, and nobody else asks for it
});
globalThis.client = client; // for whoever opens the console
const home = () => (client.gateway ? lanes.get(new URL(client.gateway).host) : undefined);

// ---------------------------------------------------------------------------------------------------- messages

function received(message) {
  const now = Date.now();
  const at = message.at ?? now / 1000;
  const ms = Math.max(0, now - at * 1000);
  const kind = now - ms >= seen.onlineAt ? 'live' : seen.onlineAt === seen.firstAt ? 'before' : 'replayed';
  checker.message(message);
  if (kind === 'replayed') seen.replayed++;
  if (kind !== 'before') seen.latencies = [...seen.latencies.slice(-LATENCIES_MAX), ms];
  if (message.channel === demo.ticker.channel) {
    strip.message({ at, ms, kind, lane: home()?.index ?? 0 });
    seen.tickedAt = at;
  }
  view.message(message, ms, kind, demo.ticker.channel);
}

function missed(gap) {
  checker.gap(gap);
  if (gap.channel === demo.ticker.channel) strip.gap(seen.tickedAt || Date.now() / 1000 - 1, Date.now() / 1000);
  view.happened(`this tab: a gap in ${gap.channel}, ${gap.why}`);
}

for (const [channel, last] of [[demo.ticker.channel, LAST], ['room', 8]]) {
  client.subscribe(channel, { last, onMessage: received, onGap: missed });
}

// -------------------------------------------------------------------------------------------------- connections

client.on('state', ({ state, gateway, problem }) => {
  const now = home();
  if (gateway) {
    seen.onlineAt = Date.now();
    seen.firstAt ||= seen.onlineAt;
    if (seen.from && now) switched(seen.from, now);
    seen.from = now;
  } else if (seen.from && state !== 'closed') {
    view.happened(`this tab: ${seen.from.name} is lost, ${problem.replace(/^\S+: /, '') || 'nobody knows why'}`);
  }
  view.connection(state, now);
});

function switched(from, to) {
  seen.switches++;
  const what = from.name === to.name ? `back at ${to.name}` : `${from.name} → ${to.name}`;
  strip.mark(what);
  setTimeout(() => { // it delivers by then
    const { recoveryS } = client.metrics;
    const took = recoveryS === seen.recoveryS ? 'without a pause' : `silent for ${view.ms(recoveryS * 1000)}`;
    seen.recoveryS = recoveryS;
    view.switched(`${what}, ${took}`);
    view.happened(`this tab: ${what}, ${took}`);
  }, SWITCH_MS);
}

client.on('health', ({ rttS }) => view.rtt(rttS));
client.on('error', (error) => view.over(`${error.message}.`));

// ------------------------------------------------------------------------------------------------------ asking

async function control(gateway, verb, said = {}) {
  const answer = await fetch(`${gateway.url}/v1/control/${verb}`, {
    method: 'POST', body: JSON.stringify(said), headers: { authorization: `Bearer ${demo.token}` },
    signal: AbortSignal.timeout(ASK_MS),
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error?.happened ?? `it answered ${answer.status}`);
  return told;
}

async function look() {
  let now;
  try {
    now = await (await fetch('demo.json', { signal: AbortSignal.timeout(ASK_MS) })).json();
  } catch {
    view.over('The demo has ended. Start it again, and this page goes on by itself.');
    view.gateways(demo.gateways.map((each) => ({ ...each, state: 'gone', pid: 0, sessions: [] })), client.session, null);
    view.health(undefined);
    return;
  }
  if (now.run !== demo.run) location.reload();
  view.over('');
  const found = await Promise.all(now.gateways.map(async (each) => {
    if (each.state !== 'up') return { ...each, sessions: [] };
    try {
      return { ...each, ...(await control(each, 'sessions')) };
    } catch {
      return { ...each, state: 'silent', sessions: [] };
    }
  }));
  view.gateways(found, client.session, now.ticker.session);
  view.health(found.find((each) => each.name === home()?.name)?.sessions
    .find((each) => each.session === client.session && !each.standby));
  const standby = found.find((each) => each.sessions.some((one) => one.session === client.session && one.standby));
  view.standby(client.health.hasStandby, standby?.name, wantsStandby);
  view.events(now.events);
}

async function press(gateway, verb, said, done) {
  try {
    await control(gateway, verb, said);
    view.answered(done);
  } catch (problem) {
    view.answered(`${gateway.name}: ${problem.message}`);
  }
}

document.getElementById('drain').addEventListener('click', () => {
  const gateway = home();
  if (gateway) press(gateway, 'drain', {}, `${gateway.name} moves its clients, leaves, and is started again`);
});
document.getElementById('promote').addEventListener('click', () => {
  const gateway = home();
  if (gateway) press(gateway, 'promote', { session: client.session }, `${gateway.name} told this session to go on at its standby`);
});
document.getElementById('publish').addEventListener('submit', async (event) => {
  event.preventDefault();
  const field = event.target.elements.text;
  const text = field.value.trim();
  if (!text) return;
  field.value = '';
  const began = performance.now();
  try {
    const { seq } = await client.publish('room', { text, by: client.session?.slice(0, 4) });
    view.published(`durable as number ${seq} after ${Math.round(performance.now() - began)} ms`);
  } catch (problem) {
    view.published(problem.message);
  }
});

setInterval(() => {
  view.counts(checker, client.metrics, seen);
  view.heard(client.health.silentS);
}, 200);
setInterval(() => {
  strip.canvas.setAttribute('aria-label', strip.summary);
}, 5000);
setInterval(look, LOOK_MS);
view.begin(wantsStandby);
look();
