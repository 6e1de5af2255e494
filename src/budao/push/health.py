"""How well a connection is, from 0 to 100, from what the kernel knows of it.

    score = 100 * (0.40 * steadiness + 0.35 * calm + 0.25 * cleanness)

**steadiness**: how far the round trip strays from what is usual for this connection. `strays = max(rttvar, |rtt - usual|) /
max(usual, 100 ms)`, where `usual` is the EWMA of the round trip. What it may stray is the EWMA of `strays`, from 0.25 to 0.5, so a
path that always jitters is judged by its own measure, and one that slowly falls ill cannot move its own threshold far:
`steadiness = 1 - min(1, max(0, strays - may) / may)`.

**calm**: `1 - min(1, f / 5)`, with `f` the abnormal ends per minute among the connections of the same peer prefix.

**cleanness**: `e ** (-10 * share)`, with `share` the bytes that were sent again among those sent, both fading with each look.

Units:   the kernel's microseconds and bytes in, a float from 0 to 100 out. EWMAs weigh a new look with 0.1; a look is one that
         saw new traffic, each 500 ms at most.
Source:  the design's push section; rtt and rttvar as in RFC 6298 section 2, except that Linux tells the mean deviation itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Final

from budao.model import Checks

STEADY_WEIGHT: Final = 0.40
CALM_WEIGHT: Final = 0.35
CLEAN_WEIGHT: Final = 0.25
PERFECT: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """How a connection's health is judged.

    Raises:  BadSettings with every problem.
    """

    alpha: float = 0.1
    """What a new look weighs in the EWMAs."""
    rtt_floor_s: float = 0.1
    """Shorter round trips are taken as so long: a delayed acknowledgement alone moves them by 40 ms, and that is not ill."""
    strays_min: float = 0.25
    """It may always stray by this share of its usual round trip."""
    strays_max: float = 0.5
    """And never by more than this without a loss of points, however usual that is for it."""
    ends_max: float = 5.0
    """So many abnormal ends per minute and peer prefix leave nothing of that part."""
    retrans_weight: float = 10.0
    """How steeply bytes that are sent again cost points: 7 % of them leave half of that part."""

    def __post_init__(self) -> None:
        check = Checks("health")
        check.number("alpha", self.alpha, 0.0, 1.0, open_low=True)
        check.number("rtt_floor_s", self.rtt_floor_s, 1e-6, 10.0)
        check.number("strays_min", self.strays_min, 0.001, 100.0)
        check.number("strays_max", self.strays_max, 0.001, 100.0)
        check.number("ends_max", self.ends_max, 0.0, 1e6, open_low=True)
        check.number("retrans_weight", self.retrans_weight, 0.0, 1e6)
        if not check.problems:
            check.need(
                self.strays_max >= self.strays_min,
                "strays_max",
                f"{self.strays_max:g} is below strays_min, {self.strays_min:g}",
            )
        check.done()


class Health:
    """The health of one connection.

    Cost: about 250 bytes, and about 1 us a look.
    """

    __slots__ = ("_again", "_may", "_own", "_resent_bytes", "_sent", "_sent_bytes", "_usual_us", "score")

    def __init__(self) -> None:
        self.score = PERFECT
        self._usual_us = 0.0
        self._may = 0.0
        self._sent_bytes = 0
        self._resent_bytes = 0
        self._sent = 0.0  # both fade with each look
        self._again = 0.0
        self._own = STEADY_WEIGHT + CLEAN_WEIGHT

    def look(
        self, rtt_us: int, rttvar_us: int, sent_bytes: int, resent_bytes: int, calm: float, policy: HealthPolicy
    ) -> float:
        """The score after another look at the kernel's numbers. A look that saw nothing sent since the last one teaches nothing.

        Units:  `sent_bytes` and `resent_bytes` count from the beginning of the connection; `calm` is what `calm_share` says.
        """
        alpha = policy.alpha
        keep = 1.0 - alpha
        newly = sent_bytes - self._sent_bytes
        if newly > 0 or not self._usual_us:
            usual = self._usual_us or float(rtt_us)
            floor_us = policy.rtt_floor_s * 1e6
            strays = abs(rtt_us - usual)
            strays = max(strays, rttvar_us)
            strays /= max(floor_us, usual)
            may = self._may
            if may < policy.strays_min:
                may = policy.strays_min
            elif may > policy.strays_max:
                may = policy.strays_max
            over = (strays - may) / may
            steadiness = 1.0 if over <= 0.0 else 1.0 - over if over < 1.0 else 0.0
            self._usual_us = keep * usual + alpha * rtt_us
            self._may = keep * self._may + alpha * strays
            self._sent = sent = keep * self._sent + newly
            self._again = again = keep * self._again + (resent_bytes - self._resent_bytes)
            self._sent_bytes = sent_bytes
            self._resent_bytes = resent_bytes
            share = again / sent if sent > 0.0 else 0.0
            clean = exp(-policy.retrans_weight * share) if share > 0.0 else 1.0
            self._own = STEADY_WEIGHT * steadiness + CLEAN_WEIGHT * clean
        self.score = score = 100.0 * (self._own + CALM_WEIGHT * calm)
        return score


def calm_share(ends_per_min: float, policy: HealthPolicy) -> float:
    """The part that abnormal ends of the same peer prefix leave, from 0 to 1."""
    return 1.0 - min(1.0, max(0.0, ends_per_min) / policy.ends_max)
