/**
 * How long to wait before connecting again: evenly drawn from 0 to a ceiling that doubles with each failure. What a
 * gateway advises goes before.
 */

const NEVER = [1000, 1002, 1003, 1007, 1008, 1009, 4104];

/** What a client does about a close code: come back `now`, `later`, or `never`. One not known is taken by its hundred. */
export function adviceFor(code) {
  if (NEVER.includes(code)) return 'never';
  if (code === 4304) return 'now'; // the ticket was not good; the token may be
  if (code === 1011) return 'later';
  return { 42: 'later', 43: 'never' }[Math.trunc(code / 100)] ?? 'now';
}

/** The pause before the next try, after so many failures in a row. `afterS` is what a gateway asked for, or 0. */
export function pauseS(policy, failed, random, advice, afterS) {
  const { firstS, maxS, nowS, askedMaxS, spreadShare } = policy;
  if (afterS > 0 && afterS < Infinity) return Math.min(afterS, askedMaxS) * (1 + random() * spreadShare);
  return random() * (advice === 'now' && !failed ? Math.min(nowS, firstS, maxS) : Math.min(maxS, firstS * 2 ** failed));
}
