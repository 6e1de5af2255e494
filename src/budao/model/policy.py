"""Settings of the guard, as frozen values that are checked when built.

They live here, not in `guard`, since `slo` derives them and `guard` obeys them, and neither may know the other.
None in a `GuardPolicy` switches a part off; every default is the written default of the design.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from math import inf, isnan

from budao.model.errors import BadSettings


class Mode(Enum):
    """How much say a breaker has."""

    ENFORCING = "enforcing"
    SHADOW = "shadow"
    """Decides and reports, and lets every call through."""
    FORCED_OPEN = "forced open"
    DISABLED = "disabled"


class Checks:
    """Collects what is wrong with a value, so that a person hears of every problem at once."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[tuple[str, str]] = []

    def need(self, claim: bool, name: str, problem: str) -> None:
        if not claim:
            self.problems.append((f"{self.where}.{name}" if self.where else name, problem))

    def number(self, name: str, value: object, low: float, high: float = inf, *, open_low: bool = False) -> None:
        """`value` must be a real number from `low` (or above it) to `high`."""
        if isinstance(value, bool) or not isinstance(value, int | float) or isnan(value):
            self.need(False, name, f"{value!r} is not a number")
            return
        fits = (value > low if open_low else value >= low) and value <= high
        bound = f"above {low:g}" if open_low else f"at least {low:g}"
        bound += f" and at most {high:g}" if high != inf else ""
        self.need(fits, name, f"{value!r} must be {bound}")

    def count(self, name: str, value: object, low: int, high: int = 10_000_000) -> None:
        """`value` must be a whole number from `low` to `high`."""
        if isinstance(value, bool) or not isinstance(value, int):
            self.need(False, name, f"{value!r} is not a whole number")
            return
        self.need(low <= value <= high, name, f"{value!r} must be from {low} to {high}")

    def done(self) -> None:
        if self.problems:
            raise BadSettings(self.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When to keep calls away from something that is ill, and how to come back.

    Units: spans in seconds, shares from 0 to 1.
    Raises: BadSettings with every problem, if the numbers cannot work together.
    """

    failed_share: float = 0.5
    """Opens when this share of the window's calls failed."""
    slow_share: float = 0.5
    """Opens when this share of the window's calls was slow. Failed and slow together open it at the larger share."""
    slow_s: float = inf
    """A call that takes longer is slow; inf for "nothing is slow"."""
    calls_min: int = 20
    """Fewer calls in the window say nothing."""
    window_s: float = 10.0
    """How far back it looks."""
    buckets: int = 10
    """The window forgets in whole buckets."""
    rest_s: float = 60.0
    """How long it stays open the first time."""
    rest_growth: float = 2.0
    """Each trip that follows a failed probe multiplies the rest by this."""
    rest_max_s: float = 600.0
    """No rest is longer, however often it trips."""
    probes_max: int = 3
    """Calls let through at once while probing."""
    probes_good: int = 3
    """Good probes that close it."""
    ramp_s: float = 5.0
    """After closing, the share of calls let through grows to all of them over this span; 0.0 for at once."""
    mode: Mode = Mode.ENFORCING
    """How much say it has."""

    def __post_init__(self) -> None:
        check = Checks("breaker")
        check.number("failed_share", self.failed_share, 0.0, 1.0, open_low=True)
        check.number("slow_share", self.slow_share, 0.0, 1.0, open_low=True)
        check.number("slow_s", self.slow_s, 0.0, open_low=True)
        check.count("calls_min", self.calls_min, 1)
        check.number("window_s", self.window_s, 0.0, 86_400.0, open_low=True)
        check.count("buckets", self.buckets, 1, 1000)
        check.number("rest_s", self.rest_s, 0.0, 86_400.0, open_low=True)
        check.number("rest_growth", self.rest_growth, 1.0, 100.0)
        check.number("rest_max_s", self.rest_max_s, 0.0, 86_400.0, open_low=True)
        check.count("probes_max", self.probes_max, 1, 10_000)
        check.count("probes_good", self.probes_good, 1, 10_000)
        check.number("ramp_s", self.ramp_s, 0.0, 86_400.0)
        check.need(isinstance(self.mode, Mode), "mode", f"{self.mode!r} is not one of {[m.value for m in Mode]}")
        if not check.problems:
            check.need(
                self.rest_max_s >= self.rest_s,
                "rest_max_s",
                f"{self.rest_max_s:g} s is shorter than rest_s, {self.rest_s:g} s",
            )
            check.need(
                self.window_s / self.buckets >= 0.001,
                "window_s",
                f"{self.window_s:g} s is smaller than {self.buckets} buckets of at least 1 ms",
            )
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutPolicy:
    """How long to wait for an answer.

    An async call is cancelled at the end of `call_s`. A sync call cannot be interrupted: it gets the deadline in its
    context, the client adapters turn it into socket timeouts, and an answer that comes later counts as slow.
    """

    call_s: float = 10.0
    """For each try, retries not included."""
    total_s: float = 30.0
    """For everything: tries, pauses, waiting for a place."""

    def __post_init__(self) -> None:
        check = Checks("timeout")
        check.number("call_s", self.call_s, 0.0, 86_400.0, open_low=True)
        check.number("total_s", self.total_s, 0.0, 86_400.0, open_low=True)
        if not check.problems:
            check.need(
                self.total_s >= self.call_s,
                "total_s",
                f"{self.total_s:g} s is shorter than one try, call_s {self.call_s:g} s",
            )
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try a failed call again. Applies only to calls marked safe to repeat."""

    attempts_max: int = 3
    """Tries in all, the first included."""
    pause_first_s: float = 0.05
    """Upper end of the first pause; full jitter draws from 0 up to it."""
    pause_max_s: float = 2.0
    """Upper end of any pause."""
    retry_after_max_s: float = 10.0
    """A server that asks for a longer pause than this gets no retry at all."""

    def __post_init__(self) -> None:
        check = Checks("retry")
        check.count("attempts_max", self.attempts_max, 1, 100)
        check.number("pause_first_s", self.pause_first_s, 0.0, 3_600.0)
        check.number("pause_max_s", self.pause_max_s, 0.0, 3_600.0)
        check.number("retry_after_max_s", self.retry_after_max_s, 0.0, 3_600.0)
        if not check.problems:
            check.need(
                self.pause_max_s >= self.pause_first_s,
                "pause_max_s",
                f"{self.pause_max_s:g} s is shorter than pause_first_s, {self.pause_first_s:g} s",
            )
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPolicy:
    """How many repeats, retries and hedges together, the calls of one guard may cause."""

    share: float = 0.1
    """Repeats per call over the window."""
    window_s: float = 10.0
    """How long a call pays for repeats."""
    floor_per_s: float = 1.0
    """Repeats allowed however few calls there are, so that a quiet client can still retry."""

    def __post_init__(self) -> None:
        check = Checks("budget")
        check.number("share", self.share, 0.0, 1.0)
        check.number("window_s", self.window_s, 0.1, 86_400.0)
        check.number("floor_per_s", self.floor_per_s, 0.0, 1e6)
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgePolicy:
    """When to send a second, identical call and take whichever answers first. Only for calls safe to repeat."""

    quantile: float = 0.95
    """The second call goes out once the first has taken longer than this share of recent calls did."""
    delay_min_s: float = 0.001
    """No second call goes out sooner, however quick most calls are."""
    samples_min: int = 50
    """With fewer measured calls there is no hedging."""

    def __post_init__(self) -> None:
        check = Checks("hedge")
        check.number("quantile", self.quantile, 0.5, 0.9999)
        check.number("delay_min_s", self.delay_min_s, 0.0, 3_600.0)
        check.count("samples_min", self.samples_min, 2, 300)
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadPolicy:
    """How many calls may be in flight at once, and how many may wait for a place."""

    calls_max: int = 100
    """Calls in flight at once."""
    waiting_max: int = 0
    """Calls that may wait for a place; 0 refuses at once."""
    wait_max_s: float = 1.0
    """How long a call waits for a place at most."""
    sojourn_target_s: float = 0.005
    """CoDel: waiting longer than this all through an interval means a standing queue."""
    sojourn_interval_s: float = 0.1
    """How long the wait must be above the target for the queue to count as standing."""

    def __post_init__(self) -> None:
        check = Checks("bulkhead")
        check.count("calls_max", self.calls_max, 1)
        check.count("waiting_max", self.waiting_max, 0)
        check.number("wait_max_s", self.wait_max_s, 0.0, 3_600.0)
        check.number("sojourn_target_s", self.sojourn_target_s, 0.0, 60.0, open_low=True)
        check.number("sojourn_interval_s", self.sojourn_interval_s, 0.0, 600.0, open_low=True)
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPolicy:
    """Adaptive concurrency: the bulkhead's size, found by watching the latency floor."""

    calls_min: int = 4
    """Never fewer calls in flight than this."""
    calls_first: int = 20
    """The limit before anything is measured."""
    calls_max: int = 1000
    """Never more calls in flight than this."""
    tolerance: float = 1.5
    """Latency up to this many times the floor is not yet queueing."""
    smoothing: float = 0.2
    """The share of the way to a wanted limit that is gone each time."""
    floor_window_s: float = 60.0
    """A floor that keeps the limit down for this long is looked at again with fewer calls, so that it can rise."""

    def __post_init__(self) -> None:
        check = Checks("limit")
        check.count("calls_min", self.calls_min, 1)
        check.count("calls_first", self.calls_first, 1)
        check.count("calls_max", self.calls_max, 1)
        check.number("tolerance", self.tolerance, 1.0, 100.0)
        check.number("smoothing", self.smoothing, 0.0, 1.0, open_low=True)
        check.number("floor_window_s", self.floor_window_s, 0.1, 86_400.0)
        if not check.problems:
            check.need(
                self.calls_min <= self.calls_first <= self.calls_max,
                "calls_first",
                f"{self.calls_first} is not between calls_min {self.calls_min} and calls_max {self.calls_max}",
            )
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePolicy:
    """How many calls a second may start."""

    calls_per_s: float
    """Calls that may start in a second, over time."""
    burst: int = 1
    """Calls that may start at once after a quiet spell."""

    def __post_init__(self) -> None:
        check = Checks("rate")
        check.number("calls_per_s", self.calls_per_s, 0.0, 1e9, open_low=True)
        check.count("burst", self.burst, 1)
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottlePolicy:
    """Client-side throttling: refuse here what the other side would refuse anyway.

    Source: Google's SRE book, chapter 21, "Handling Overload", client-side throttling.
    """

    multiplier: float = 2.0
    """Calls let through per accepted call. Lower is stricter."""
    window_s: float = 30.0
    """How far back asked and accepted calls are counted."""
    refused_share_max: float = 0.95
    """Never refuses more than this: what still goes out is how a recovery is noticed. 1.0 is the book's rule."""

    def __post_init__(self) -> None:
        check = Checks("throttle")
        check.number("multiplier", self.multiplier, 1.0, 100.0)
        check.number("window_s", self.window_s, 1.0, 3_600.0)
        check.number("refused_share_max", self.refused_share_max, 0.0, 1.0, open_low=True)
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShedPolicy:
    """Server side: which calls to turn away when this process itself is the bottleneck."""

    lag_target_s: float = 0.05
    """Event-loop lag above this is overload."""
    rise_per_s: float = 2.0
    """How fast shedding moves through the priorities while overloaded, in priorities per second."""
    fall_per_s: float = 0.5
    """How fast it goes back afterwards; slower than it came, or it swings."""

    def __post_init__(self) -> None:
        check = Checks("shed")
        check.number("lag_target_s", self.lag_target_s, 0.0, 60.0, open_low=True)
        check.number("rise_per_s", self.rise_per_s, 0.0, 1000.0, open_low=True)
        check.number("fall_per_s", self.fall_per_s, 0.0, 1000.0, open_low=True)
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdPolicy:
    """How the line between fast and slow follows what is measured. See `budao.slo.Threshold`."""

    quantile: float = 0.99
    """The quantile that is learned."""
    samples: int = 300
    """Calls the quantile is taken from, the latest ones."""
    samples_min: int = 30
    """With fewer calls nothing is learned."""
    alpha: float = 0.2
    """The share of the way to the newest value that is gone each time."""
    hardened: bool = True
    """False is the bare rule, which follows a slow degradation upward; it is kept for comparison."""
    margin: float = 1.25
    """Hardened: the threshold is this many times the learned quantile."""
    cap: float = 1.5
    """Never above this many times the anchor (hardened) or the largest sample of the window (bare)."""

    def __post_init__(self) -> None:
        check = Checks("threshold")
        check.number("quantile", self.quantile, 0.5, 0.9999)
        check.count("samples", self.samples, 10, 100_000)
        check.count("samples_min", self.samples_min, 2, 100_000)
        check.number("alpha", self.alpha, 0.0, 1.0, open_low=True)
        check.need(isinstance(self.hardened, bool), "hardened", f"{self.hardened!r} is neither true nor false")
        check.number("margin", self.margin, 1.0, 10.0)
        check.number("cap", self.cap, 1.0, 100.0)
        if not check.problems:
            check.need(
                self.samples_min <= self.samples,
                "samples_min",
                f"{self.samples_min} samples never fit in a window of {self.samples}",
            )
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardPolicy:
    """Everything one guard obeys. None switches a part off."""

    breaker: BreakerPolicy | None = field(default_factory=BreakerPolicy)
    timeout: TimeoutPolicy | None = None
    retry: RetryPolicy | None = field(default_factory=RetryPolicy)
    budget: BudgetPolicy = field(default_factory=BudgetPolicy)
    hedge: HedgePolicy | None = None
    bulkhead: BulkheadPolicy | None = None
    limit: LimitPolicy | None = None
    rate: RatePolicy | None = None
    throttle: ThrottlePolicy | None = None
    shed: ShedPolicy | None = None
    threshold: ThresholdPolicy | None = None
    keys_max: int = 1024
    """Resources told apart by key. The one unused for longest makes room for a new one."""

    def __post_init__(self) -> None:
        check = Checks("")
        check.count("keys_max", self.keys_max, 1, 1_000_000)
        for name, (kind, optional) in PARTS.items():
            value = getattr(self, name)
            fits = isinstance(value, kind) or (optional and value is None)
            check.need(fits, name, f"{value!r} is not a {kind.__name__}" + (" or None" if optional else ""))
        check.done()


PARTS: Mapping[str, tuple[type, bool]] = {
    "breaker": (BreakerPolicy, True),
    "timeout": (TimeoutPolicy, True),
    "retry": (RetryPolicy, True),
    "budget": (BudgetPolicy, False),
    "hedge": (HedgePolicy, True),
    "bulkhead": (BulkheadPolicy, True),
    "limit": (LimitPolicy, True),
    "rate": (RatePolicy, True),
    "throttle": (ThrottlePolicy, True),
    "shed": (ShedPolicy, True),
    "threshold": (ThresholdPolicy, True),
}
"""The parts of a `GuardPolicy`: the name, its type, and whether None switches it off."""


def numbers_in(policy: GuardPolicy) -> dict[str, object]:
    """Every number in force, by its path, such as "breaker.rest_s"; parts that are off have no numbers."""
    found: dict[str, object] = {}
    for name in PARTS:
        part = getattr(policy, name)
        if part is not None:
            for each in fields(part):
                found[f"{name}.{each.name}"] = getattr(part, each.name)
    found["keys_max"] = policy.keys_max
    return found
