"""What good looks like: a share of calls that must be good, over a window."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from fractions import Fraction

from budao.model import Checks, Outcome

WINDOW_S = 30 * 86_400.0
"""Thirty days, the window the burn limits of the SRE workbook were chosen for."""

SHARE_MIN = 1e-9
"""No share may be nearer to 0 or 1 than this."""


@dataclass(frozen=True, slots=True)
class Availability:
    """This share of the calls must not fail, as in `Availability(0.999)`.

    Units: `share` is strictly between 0 and 1; `window_s` is in seconds.
    Raises: BadSettings with every problem, each with its path.
    """

    share: float
    _: KW_ONLY
    window_s: float = WINDOW_S

    def __post_init__(self) -> None:
        check = Checks("objective")
        _check_common(check, self.share, self.window_s)
        check.done()

    @property
    def target(self) -> Fraction:
        """The share as the decimal text says it: 0.999 is 999/1000, not the nearest binary number."""
        return Fraction(repr(self.share))

    @property
    def allowed(self) -> Fraction:
        """The share of calls that may be bad."""
        return 1 - self.target

    def is_good(self, outcome: Outcome) -> bool:
        """Whether this ending counts as good."""
        return not outcome.failed

    def __str__(self) -> str:
        return f"{_percent(self.target)} of calls succeed, over {_span(self.window_s)}"


@dataclass(frozen=True, slots=True)
class Latency:
    """This share of the calls must succeed within `under_s`, as in `Latency(0.99, under_s=0.200)`.

    A call that fails is bad however fast it fails: a quick error is not a quick answer.

    Units: `share` is strictly between 0 and 1; `under_s` and `window_s` are in seconds. A call that takes exactly
    `under_s` is good.
    Raises: BadSettings with every problem, each with its path.
    """

    share: float
    _: KW_ONLY
    under_s: float
    window_s: float = WINDOW_S

    def __post_init__(self) -> None:
        check = Checks("objective")
        _check_common(check, self.share, self.window_s)
        check.number("under_s", self.under_s, 0.0, 3_600.0, open_low=True)
        check.done()

    @property
    def target(self) -> Fraction:
        """The share as the decimal text says it: 0.999 is 999/1000, not the nearest binary number."""
        return Fraction(repr(self.share))

    @property
    def allowed(self) -> Fraction:
        """The share of calls that may be bad."""
        return 1 - self.target

    def is_good(self, outcome: Outcome) -> bool:
        """Whether this ending counts as good."""
        return not outcome.failed and outcome.took_s <= self.under_s

    def __str__(self) -> str:
        return (
            f"{_percent(self.target)} of calls succeed within {self.under_s * 1000:.6g} ms, over {_span(self.window_s)}"
        )


Objective = Availability | Latency


def _check_common(check: Checks, share: object, window_s: object) -> None:
    check.number("window_s", window_s, 60.0, 366 * 86_400.0)
    if isinstance(share, bool) or not isinstance(share, float | int):
        check.need(False, "share", f"{share!r} is not a number")
    elif share == 1:
        check.need(
            False,
            "share",
            f"{share!r} leaves no error budget: one bad call in the whole window would break it, every alert would "
            "stand for ever after, and nothing could be derived from it; ask for 0.999, or more nines",
        )
    elif 1 < share < 100:
        check.need(False, "share", f"{share!r} is not a share from 0 to 1; for {share!r} % write {share / 100:.12g}")
    else:
        # Beyond nine nines, either way, a budget is smaller than what a float can tell from none.
        fits = SHARE_MIN <= share <= 1 - SHARE_MIN
        check.need(fits, "share", f"{share!r} must be above 0 and below 1, by at least {SHARE_MIN:g}")


def _percent(share: Fraction) -> str:
    return f"{float(100 * share):.12g} %"


def _span(span_s: float) -> str:
    for unit_s, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if span_s >= 2 * unit_s or span_s == unit_s:
            return f"{span_s / unit_s:.4g} {unit}"
    return f"{span_s:.4g} seconds"
