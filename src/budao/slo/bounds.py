"""How sure a count makes us: exact binomial tails, and the lower confidence bound built on them.

Both assume calls that fail independently of each other. Real failures come in bursts, which makes every bound here
a little too sure; the minimum counts beside them are the answer to that.
"""

from __future__ import annotations

from math import ceil, exp, inf, lgamma, log, log1p, sqrt
from statistics import NormalDist

EXACT_MAX = 1000
"""From this many bad and as many good calls on, Wilson's bound replaces the exact one: they agree to 0.2 %."""


def tail(bad: int, total: int, share: float) -> float:
    """The probability of at least `bad` bad calls among `total`, if each is bad with probability `share`.

    Cost: the terms fall off geometrically on the far side of the mean, so a few times sqrt(total) steps at worst.
    """
    if bad <= 0:
        return 1.0
    if bad > total or share <= 0.0:
        return 0.0
    if share >= 1.0:
        return 1.0
    if bad <= total * share:  # on the near side of the mean the other tail is the short one
        return 1.0 - tail(total - bad + 1, total, 1.0 - share)
    first = lgamma(total + 1) - lgamma(bad + 1) - lgamma(total - bad + 1)
    term = exp(first + bad * log(share) + (total - bad) * log1p(-share))
    odds = share / (1.0 - share)
    found = 0.0
    for count in range(bad, total + 1):
        found += term
        term *= (total - count) / (count + 1) * odds
        if term < found * 1e-16:
            break
    return min(1.0, found)


def lower_bound(bad: int, total: int, confidence: float) -> float:
    """The share of bad calls that is exceeded with this confidence, given what was counted; one-sided.

    Clopper and Pearson's exact bound while either count is small, where Wilson's claims too much (one bad call of
    seven "proves" 1.8 % at 99 %, which chance alone yields one time in nine); Wilson's score bound from
    `EXACT_MAX` of each on.
    Source: Clopper and Pearson 1934; Wilson 1927; compared in Brown, Cai and DasGupta 2001.
    """
    if bad <= 0:
        return 0.0
    chance = 1.0 - confidence
    if bad >= total:
        return float(chance ** (1.0 / total))
    if min(bad, total - bad) >= EXACT_MAX:
        return _wilson(bad, total, confidence)
    low, high = 0.0, bad / total
    while high - low > high * 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if tail(bad, total, middle) < chance else (low, middle)
    return low


def calls_for(line_share: float, normal_share: float, chance: float) -> float:
    """How many calls it takes until a normal bad share reaches the line by chance this seldom; inf if never.

    Chernoff's bound: with n calls the chance is at most exp(-n * divergence), which holds for every larger n too.
    The exact tail is smaller, but it saws up and down with n, and a rule must hold for all of them.
    """
    if normal_share <= 0.0:
        return 1.0
    if normal_share >= line_share:
        return inf
    divergence = line_share * log(line_share / normal_share)
    if line_share < 1.0:
        divergence += (1.0 - line_share) * log((1.0 - line_share) / (1.0 - normal_share))
    return ceil(-log(chance) / divergence) if divergence > 1e-300 else inf


def _wilson(bad: int, total: int, confidence: float) -> float:
    z = NormalDist().inv_cdf(confidence)
    share = bad / total
    middle = share + z * z / (2 * total)
    reach = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (middle - reach) / (1 + z * z / total)
