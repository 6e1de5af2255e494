/**
 * How a client keeps its session while connections and gateways come and go: facts and the time in, effects out.
 *
 * One connection is active. A second, quiet one may stand by at another gateway, and a third is opened beside the active
 * one when a gateway asks to move; a standby that a gateway asks to promote is that third one until it delivers. Facts are
 * `{is, link, …}`: welcomed, ended, delivers, move, standby, asked. Effects are `{do, link, …}`: dial, promote, adopt,
 * hangUp, giveUp.
 */
import { pauseS } from './backoff.js';
import { liveness } from './liveness.js';

/** No ticket is good for longer. */
const TICKET_S = 15;
/** A gateway that sent us away is not tried for so long after its bound, but where we have no home and no other is free. */
const LEFT_S = 10;
/** New tokens in a row that a gateway may refuse. */
const REFRESHED_MAX = 2;
export const TOKEN_CODES = [4300, 4301];
const TICKET_CODE = 4304;
/** Only we have our session, so it was a connection of ours: a promoted one, or one given up that a frozen gateway read late. */
const REPLACED_CODE = 4104;

const isUp = (link) => link !== null && link.since < Infinity;

/** The machine of one client's connections, for `urls` in their one spelling. */
export function reunion(urls, policy, random, { standby: hasStandby = false, canRefresh = false } = {}) {
  const gateways = new Map();
  const gatewaysMax = urls.length + policy.peersMax;
  const beatS = policy.beatS ?? (hasStandby ? 0.05 : 2);
  let state = 'connecting';
  let problem = '';
  let number = 0;
  let activeLink = null;
  let standbyLink = null;
  let nextLink = null;
  let activeAt = Infinity;
  let standbyAt = Infinity;
  let nextAt = Infinity;
  let moveUntil = -Infinity;
  let offer = null;
  let refreshed = 0;
  /** The one that was lost, or could not be reached, last is chosen last: it may be gone. */
  let lostGateway = null;

  /** What is to be done, in order; each call from outside takes it along. */
  let effects = [];

  for (const url of urls) named(url);

  function taken() {
    const found = effects;
    effects = [];
    return found;
  }

  /** Opens the first connection. */
  function start(now) {
    dialActive(now);
    return taken();
  }

  /** Ends everything. */
  function close() {
    state = 'closed';
    hangUpAll();
    return taken();
  }

  /** The network is back, or somebody looks: waits no longer, but where a gateway asked for it. */
  function hurry(now) {
    for (const each of gateways.values()) each.freeAt = Math.min(each.freeAt, Math.max(now, each.askedAt));
    if (activeAt < Infinity) activeAt = now;
    if (nextAt < Infinity) nextAt = now;
    if (standbyAt < Infinity) standbyAt = now;
    return wake(now);
  }

  /** What follows from a fact. One about a connection that is gone changes nothing. */
  function handle(fact, now) {
    const link = links().find((each) => each.number === fact.link);
    if (link) ({ welcomed, ended, delivers, move, standby, asked })[fact.is](link, fact, now);
    return taken();
  }

  /** When to wake it. Earlier does no harm. */
  function wakeAt() {
    const dues = links().flatMap((link) => [link.due, link.liveness?.wakeAt() ?? Infinity]);
    return Math.min(activeAt, standbyAt, nextAt, ...dues);
  }

  /** What follows from the time. */
  function wake(now) {
    for (const link of links()) {
      const isOverdue = link.due <= now;
      if (!isOverdue && !link.liveness?.wake(now)) continue;
      effects.push({ do: 'hangUp', link: link.number, isDead: true });
      const what = isUp(link) ? 'it does not deliver' : 'it does not welcome us';
      ended(link, { problem: isOverdue ? what : 'it fell silent' }, now);
    }
    if (activeAt <= now) dialActive(now);
    if (nextAt <= now) dialNext(now);
    if (standbyAt <= now) dialStandby(now);
    return taken();
  }

  function welcomed(link, { beatS = 0, peers = [] }, now) {
    for (const url of peers) named(url);
    const isQuiet = link === standbyLink;
    link.since = now;
    link.due = Infinity;
    link.liveness = liveness(policy, beatS, now, isQuiet ? policy.standbySilentS : 0);
    if (isQuiet) {
      if (!isUp(activeLink)) promote(now);
    } else {
      refreshed = 0;
      adopt(link, now);
    }
  }

  /** The standby takes the place of the active connection, which is gone or not there yet. */
  function promote(now) {
    adopt(roused(now), now);
  }

  /** The standby, which is quiet no longer: it has to deliver soon, and is heard as often as any. */
  function roused(now) {
    const link = standbyLink;
    link.liveness = liveness(policy, link.liveness.beatS, now);
    link.due = now + policy.promoteS;
    standbyLink = null;
    effects.push({ do: 'promote', link: link.number });
    return link;
  }

  /** A gateway wants us at our standby: its own, or the home, which is let go once the standby delivers. */
  function asked(link, { withinS }, now) {
    if (nextLink) return; // it goes elsewhere already
    if (!isUp(standbyLink)) {
      move(link, { withinS }, now);
      return;
    }
    if (withinS) moveUntil = now + withinS;
    nextLink = roused(now);
  }

  function delivers(link, _, now) {
    link.due = Infinity;
    if (link === nextLink) adopt(link, now);
  }

  function adopt(link, now) {
    const before = activeLink;
    activeLink = link;
    effects.push({ do: 'adopt', link: link.number });
    if (before && before !== link) {
      if (isUp(before)) leave(before.gateway, Math.max(now, moveUntil)); // it asked us to
      hangUp(before);
    }
    if (link === nextLink) nextLink = null;
    state = 'online';
    activeAt = nextAt = Infinity;
    moveUntil = -Infinity;
    if (standbyLink?.gateway === link.gateway) dropStandby();
    standbySoon(now);
  }

  function ended(link, { code = 1006, advice = null, afterS = 0, problem: happened }, now) {
    const { gateway } = link;
    const isActive = link === activeLink;
    const isStandby = link === standbyLink;
    problem = `${gateway.url}: ${happened}`;
    forget(link);
    if (code === TICKET_CODE && link.ticket) { // the token opens what the ticket did not
      dial(gateway, isActive ? 'active' : isStandby ? 'standby' : 'next', now);
      return;
    }
    if (advice === 'never' && isActive && code !== REPLACED_CODE) {
      if (!TOKEN_CODES.includes(code) || !canRefresh || refreshed >= REFRESHED_MAX) {
        state = 'given-up';
        hangUpAll();
        effects.push({ do: 'giveUp', code, problem });
        return;
      }
      refreshed++;
    }
    if (now - link.since >= policy.lastedS) gateway.failed = 0;
    // With a new token, never means now; to a quiet connection it means not for now.
    const meant = advice === 'never' && isActive ? 'now' : advice;
    gateway.freeAt = Math.max(gateway.freeAt, now + pauseS(policy, gateway.failed++, random, meant, afterS));
    if (afterS > 0) gateway.askedAt = gateway.freeAt;
    lostGateway = gateway;
    if (isActive) lost(now, isUp(link));
    else {
      standbySoon(now); // the next one may have been the standby, or have made it give way
      dialNext(now);
    }
  }

  /** Nothing is active any more. */
  function lost(now, wasUp) {
    if (isUp(standbyLink)) {
      promote(now);
      return;
    }
    if (isUp(nextLink)) {
      adopt(nextLink, now);
      return;
    }
    state = 'connecting';
    if (nextLink) { // on its way already
      activeLink = nextLink;
      nextLink = null;
    } else if (wasUp) activeAt = now + random() * policy.againSpreadS;
    else dialActive(now);
  }

  /** Where to keep the standby. One that is elsewhere goes there, but not while it is needed. */
  function standby(link, { url, ticket }, now) {
    if (nextLink || standbyLink?.gateway.url === url) return;
    offer = url && { url, ticket, until: now + TICKET_S };
    if (standbyLink) dropStandby();
    dialStandby(now);
  }

  function move(link, { url, ticket, withinS = 0 }, now) {
    if (link === standbyLink) {
      leave(link.gateway, now + withinS);
      standby(link, { url, ticket }, now);
    } else if (link === activeLink && !nextLink) {
      moveUntil = now + withinS;
      if (!url || url === link.gateway.url) {
        dialNext(now);
        return;
      }
      if (standbyLink?.gateway.url === url) dropStandby();
      dial(named(url), 'next', now, ticket);
    }
  }

  function dialActive(now) {
    activeAt = activeLink ? Infinity : dialAny('active', now);
  }

  function dialNext(now) {
    // Beyond its time it stays where it is until it is sent away.
    nextAt = !activeLink || nextLink || now > moveUntil ? Infinity : dialAny('next', now);
  }

  function dialStandby(now) {
    standbyAt = Infinity;
    if (!activeLink || !hasStandby || standbyLink) return;
    const told = offer;
    offer = null;
    if (told && now < told.until && told.url !== activeLink.gateway.url) {
      dial(named(told.url), 'standby', now, told.ticket);
    } else {
      standbyAt = dialAny('standby', now);
      // With one gateway there is nowhere to stand by, until another one is named.
      if (!standbyLink && standbyAt === Infinity) standbyAt = now + TICKET_S;
    }
  }

  /** Dials any gateway that is free but the active one's, or says when one will be. */
  function dialAny(role, now) {
    const found = [...gateways.values()].filter((each) => each !== activeLink?.gateway);
    const freeAt = (each) => (role === 'active' ? each.freeAt : Math.max(each.freeAt, each.leftUntil));
    const free = found.filter((each) => freeAt(each) <= now);
    if (!free.length) return Math.min(...found.map(freeAt));
    const others = free.filter((each) => each !== lostGateway && each.leftUntil <= now);
    const among = others.length ? others : free;
    dial(among[Math.floor(random() * among.length)], role, now);
    return Infinity;
  }

  function dial(gateway, role, now, ticket = null) {
    const due = now + policy.welcomeS * 2 ** Math.min(gateway.failed, 2);
    const link = { number: ++number, gateway, ticket, liveness: null, since: Infinity, due };
    if (role === 'active') activeLink = link;
    else if (role === 'standby') standbyLink = link;
    else nextLink = link;
    effects.push({ do: 'dial', link: number, url: gateway.url, role, beatS, ticket });
  }

  /** The gateway of a URL. Beyond the bound it is not kept. */
  function named(url) {
    let found = gateways.get(url);
    if (!found) {
      found = { url, failed: 0, freeAt: -Infinity, askedAt: -Infinity, leftUntil: -Infinity };
      if (gateways.size < gatewaysMax) gateways.set(url, found);
    }
    return found;
  }

  /** A gateway sends us away, at that time at the latest. */
  function leave(gateway, at) {
    gateway.leftUntil = Math.max(gateway.leftUntil, at + LEFT_S);
  }

  function standbySoon(now) {
    if (hasStandby && !standbyLink) standbyAt = now + random() * policy.standbySpreadS;
  }

  function dropStandby() {
    hangUp(standbyLink);
    standbyLink = null;
  }

  function hangUp(link) {
    effects.push({ do: 'hangUp', link: link.number });
  }

  function links() {
    return [activeLink, standbyLink, nextLink].filter(Boolean);
  }

  function forget(link) {
    if (link === activeLink) activeLink = null;
    else if (link === standbyLink) standbyLink = null;
    else nextLink = null;
  }

  function hangUpAll() {
    links().forEach(hangUp);
    activeLink = standbyLink = nextLink = null;
    activeAt = standbyAt = nextAt = Infinity;
  }

  return {
    /** `connecting`, `online`, `given-up` or `closed`. */
    get state() {
      return state;
    },
    /** The latest thing that went wrong, for people. */
    get problem() {
      return problem;
    },
    /** The number of the connection in use. */
    get active() {
      return isUp(activeLink) ? activeLink.number : null;
    },
    /** The number of the connection that stands by, ready. */
    get standby() {
      return isUp(standbyLink) ? standbyLink.number : null;
    },
    /** The gateways that are known. */
    get urls() {
      return [...gateways.keys()];
    },
    /** What is to be told whenever anything is heard on a connection that was welcomed. */
    livenessOf: (link) => links().find((each) => each.number === link)?.liveness ?? null,
    start, close, hurry, handle, wakeAt, wake,
  };
}
