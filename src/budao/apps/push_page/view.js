/** Puts what the page knows into its elements. Text only: nothing that was published becomes markup. */

const ROWS_MAX = 12;
const EVENTS_MAX = 14;
const STATES = { up: 'online', down: 'down', gone: 'down', starting: '', silent: 'down' };

const by = (id) => document.getElementById(id);
const say = (id, text) => {
  const element = by(id);
  if (element.textContent !== text) element.textContent = text;
};
const made = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};
export const ms = (value) => (value < 9.95 ? `${value.toFixed(1)} ms` : value < 9_950 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);
const bytes = (value) => (value < 1024 ? `${value} B` : `${(value / 1024).toFixed(1)} KiB`);
const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 8);

let gatewayNow = null;
let standbyNow = false;
const happenings = [];
let told = [];

export function begin(wantsStandby) {
  if (wantsStandby) return;
  say('keeps', '');
  const other = by('other-kind');
  other.textContent = 'One with a standby';
  other.href = '/';
}

export function connection(state, gateway) {
  gatewayNow = gateway ?? null;
  say('gateway', gateway?.name ?? '–');
  const words = { online: 'online', connecting: 'looking for a gateway', 'given-up': 'given up', closed: 'closed' };
  say('state', words[state] ?? state);
  by('state').className = `pill ${state === 'online' ? 'online' : state === 'connecting' ? '' : 'down'}`;
  document.title = gateway ? `${gateway.name} · Budao push demo` : 'Budao push demo';
  by('drain').disabled = !gateway;
  if (gateway) say('drain', `Drain ${gateway.name}`);
  else rtt(null);
  by('promote').disabled = !gateway || !standbyNow;
}

export function standby(has, at, wanted) {
  standbyNow = has;
  say('standby', has ? `warm at ${at ?? '…'}` : wanted ? 'looking for one' : 'none wanted');
  by('promote').disabled = !gatewayNow || !has;
}

export function switched(text) {
  say('switch', text);
}

export function answered(text) {
  say('answer', text);
}

export function published(text) {
  say('published', text);
}

export function over(text) {
  say('over', text);
  by('over').hidden = !text;
}

export function rtt(rttS) {
  say('rtt', rttS === null ? '–' : ms(rttS * 1000));
}

export function heard(silentS) {
  say('heard', silentS === null ? '–' : silentS < 1 ? 'just now' : `${silentS.toFixed(0)} s ago`);
}

export function health(entry) {
  const isKnown = entry !== undefined && entry.rtt_s !== null; // before the first look every connection counts as perfect
  const score = isKnown ? Math.round(entry.score) : 0;
  say('score', isKnown ? `${score}` : '–');
  say('of', isKnown ? 'of 100, says the gateway' : gatewayNow ? 'not looked at yet' : 'no connection');
  const meter = by('meter');
  meter.className = `meter ${score >= 80 ? '' : score >= 50 ? 'fair' : 'poor'}`;
  meter.firstElementChild.style.width = `${score}%`;
  meter.setAttribute('aria-valuenow', score);
  say('outbox', entry ? bytes(entry.outbox_bytes) : '–');
}

export function counts(checker, metrics, seen) {
  say('checked', checker.checked.toLocaleString('en'));
  say('holes', `${checker.holes}`);
  by('holes').className = checker.holes ? 'bad' : 'good';
  say('gaps', `${checker.gaps}`);
  say('doubled', `${checker.doubled}`);
  say('dropped', `${metrics.duplicates}`);
  say('replayed', `${seen.replayed}`);
  say('resumes', `${seen.switches}`);
  say('promotions', `${metrics.promotions}`);
  const sorted = [...seen.latencies].sort((a, b) => a - b);
  const at = (share) => ms(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]);
  say('latency', sorted.length ? `${at(0.5)}, ${at(0.99)}` : '–');
}

export function message({ channel, position, data }, tookMs, kind, ticker) {
  if (channel === ticker && !by('with-ticker').checked) return;
  const row = made('tr');
  const text = typeof data === 'string' ? data : data?.text !== undefined ? `${data.text}` : JSON.stringify(data);
  const from = data?.by ? ` (tab ${data.by})` : '';
  const latency = kind === 'before' ? 'before' : ms(tookMs);
  row.append(made('td', channel), made('td', `${position.epoch}:${position.seq}`, 'mono'), made('td', text + from), made('td', latency, 'n'));
  row.children[2].title = text;
  const body = by('messages');
  body.prepend(row);
  while (body.children.length > ROWS_MAX) body.lastChild.remove();
}

// ---------------------------------------------------------------------------------------------------- gateways

export function gateways(found, session, ticker) {
  say('session', session ?? '–');
  const body = by('gateways');
  found.forEach((gateway, index) => {
    body.children[index] ?? body.append(row(index));
    fill(body.children[index], gateway);
  });
  const rows = found.flatMap((gateway) => gateway.sessions.map((each) => ({ ...each, at: gateway.name })));
  rows.sort((a, b) => (b.session === session) - (a.session === session) || a.session.localeCompare(b.session) || a.standby - b.standby);
  by('roll').replaceChildren(...rows.slice(0, ROWS_MAX).map((each) => member(each, session, ticker)));
}

function row(index) {
  const element = made('div', undefined, 'gateway');
  const swatch = made('span', undefined, 'swatch');
  swatch.style.background = `var(--lane-${index % 2})`;
  const copy = made('button', 'Copy');
  copy.type = 'button';
  copy.addEventListener('click', async () => {
    await navigator.clipboard.writeText(element.querySelector('code').textContent);
    copy.textContent = 'Copied';
    setTimeout(() => (copy.textContent = 'Copy'), 1500);
  });
  element.append(swatch, made('b'), made('span', '', 'pill'), made('span', '', 'soft small'), made('code'), copy);
  return element;
}

function fill(element, { name, state, url, pid, back_in_s: backS, connections }) {
  const [, title, pill, about, code, copy] = element.children;
  const set = (part, text) => part.textContent !== text && (part.textContent = text);
  set(title, name);
  set(pill, state);
  pill.className = `pill ${STATES[state] ?? ''}`;
  set(about, state === 'down' ? `back in ${Math.ceil(backS)} s` : state === 'up' ? `${new URL(url).host}, ${connections} connected` : '');
  set(code, pid ? `kill -9 ${pid}` : '');
  code.hidden = copy.hidden = !pid;
  copy.setAttribute('aria-label', `Copy the command that kills ${name}`);
}

function member(each, session, ticker) {
  const element = made('tr', undefined, each.session === session ? 'me' : '');
  const whose = each.session === session ? 'this tab' : each.session === ticker ? 'the ticker' : each.session.slice(0, 8) || '–';
  const at = each.standby ? `${each.at}, standby` : each.at;
  const rttText = each.rtt_s === null ? '–' : ms(each.rtt_s * 1000);
  element.append(made('td', whose), made('td', at), made('td', each.transport), made('td', each.score.toFixed(0), 'n'),
    made('td', rttText, 'n'), made('td', bytes(each.outbox_bytes), 'n'));
  return element;
}

// ------------------------------------------------------------------------------------------------------- events

export function happened(text) {
  happenings.push({ at: Date.now() / 1000, text });
  if (happenings.length > EVENTS_MAX) happenings.shift();
  events(told);
}

export function events(list) {
  told = list;
  const all = [...list, ...happenings].sort((a, b) => b.at - a.at).slice(0, EVENTS_MAX);
  const body = by('events');
  const said = all.map(({ at, text }) => `${at} ${text}`).join('\n');
  if (body.dataset.said === said) return;
  body.dataset.said = said;
  body.replaceChildren(...all.map(({ at, text }) => {
    const item = made('li');
    item.append(made('time', clock(at)), made('span', text));
    return item;
  }));
  if (!all.length) body.append(made('li', 'Nothing yet: kill a gateway.', 'soft'));
}
