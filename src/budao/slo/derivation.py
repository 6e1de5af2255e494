"""From an objective, and what has been measured, to every setting of a guard, each with its reason.

The rule above the rules: a guard nobody tuned must never make things worse. A part that could refuse or cut off calls
that would have succeeded is generous, or off until measurements support it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil
from types import MappingProxyType

from budao.model import (
    BreakerPolicy,
    BudgetPolicy,
    BulkheadPolicy,
    Checks,
    GuardPolicy,
    HedgePolicy,
    RetryPolicy,
    ThresholdPolicy,
    TimeoutPolicy,
    numbers_in,
)
from budao.slo.bounds import calls_for
from budao.slo.objective import Latency, Objective

CALLS_MIN = 300
"""With fewer observed calls, the objective alone decides: 300 are three beyond the P99."""
CALLS_MIN_P999 = 3000
"""And as many are needed for three beyond the P999."""
FALSE_TRIP = 1e-6
"""How seldom a breaker may open by chance, in a full window, while the objective is just met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What has been measured of a target, while it was well.

    Units:  spans in seconds, shares 0 to 1. `in_flight_max` is the most calls seen at once.
    Raises: BadSettings with every problem, such as quantiles that fall.
    """

    calls: int
    calls_per_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    p999_s: float
    failed_share: float = 0.0
    in_flight_max: int = 0

    def __post_init__(self) -> None:
        check = Checks("observed")
        check.count("calls", self.calls, 0, 10**15)
        check.number("calls_per_s", self.calls_per_s, 0.0, 1e9)
        for name in ("p50_s", "p95_s", "p99_s", "p999_s"):
            check.number(name, getattr(self, name), 0.0, 86_400.0)
        check.number("failed_share", self.failed_share, 0.0, 1.0)
        check.count("in_flight_max", self.in_flight_max, 0)
        if not check.problems:
            rising = self.p50_s <= self.p95_s <= self.p99_s <= self.p999_s
            check.need(rising, "p99_s", "p50_s, p95_s, p99_s and p999_s must not fall in this order")
        check.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A guard's settings, and why.

    `reasons` has a sentence for every number in force, under its path as in `numbers_in` ("breaker.rest_s"), and one
    for every part that is off, under the part's name ("rate").
    """

    policy: GuardPolicy
    reasons: Mapping[str, str]
    summary: str
    """What it was derived from, in one sentence."""


def derive(objective: Objective, observed: Observed | None = None) -> Derived:
    """Every setting of a guard, from what good looks like and from what has been measured.

    A stricter objective (a larger share, or a shorter `under_s`) never gives a longer timeout, pause or slow line, with
    the same observation. Below `CALLS_MIN` observed calls the observation is not used, and the summary says so.
    """
    enough = observed is not None and observed.calls >= CALLS_MIN
    facts = _Facts(objective, observed if enough else None)
    parts = {
        "breaker": _breaker(facts),
        "timeout": _timeout(facts),
        "retry": _retry(facts),
        "budget": _budget(facts),
        "hedge": _hedge(facts),
        "bulkhead": _bulkhead(facts),
        "limit": _off(
            "it refuses calls when latency rises, which pays where many clients share one server; here it could "
            "refuse calls that would have succeeded"
        ),
        "rate": _off("an objective says nothing about how many calls the other side allows"),
        "throttle": _off(
            "it pays when the other side refuses calls for being overloaded, which nobody has said it does"
        ),
        "shed": _off("it belongs in front of a server's own work, not before a call to something else"),
        "threshold": _threshold(facts),
    }
    values = {name: part.policy() for name, part in parts.items()}
    policy = GuardPolicy(**values)  # type: ignore[arg-type]
    reasons = {path: reason for name, part in parts.items() for path, reason in part.reasons(name).items()}
    reasons["keys_max"] = _written(policy.keys_max, "resources told apart before the one unused for longest makes room")
    in_order = {path: reasons.pop(path) for path in numbers_in(policy)}
    return Derived(policy=policy, reasons=MappingProxyType(in_order | reasons), summary=_summary(objective, observed))


class _Facts:
    """The numbers every derivation starts from."""

    def __init__(self, objective: Objective, observed: Observed | None) -> None:
        self.objective = objective
        self.observed = observed
        self.under_s = objective.under_s if isinstance(objective, Latency) else None
        self.allowed = float(objective.allowed)
        failed = 0.0 if observed is None else observed.failed_share
        # Half of all calls failing is an illness, not this target's nature, and must not be taken for normal.
        self.failed = failed if failed < 0.5 else 0.0
        self.bad = max(self.allowed, self.failed)
        self.call_s, self.call_why = self._call()
        self.pause_max_s = readable(min(RetryPolicy().pause_max_s, self.call_s / 2))
        self.total_s = float(f"{3 * self.call_s + 2 * self.pause_max_s:.6g}")  # exact: the parts have three digits

    def _call(self) -> tuple[float, str]:
        observed, written = self.observed, TimeoutPolicy().call_s
        slowest_s, name = 0.0, ""
        if observed is not None:
            known = observed.calls >= CALLS_MIN_P999
            slowest_s, name = (2 * observed.p999_s, "P999") if known else (3 * observed.p99_s, "P99")
        if self.under_s is None:
            if observed is None:
                return written, _written(written, "each try, in seconds; the objective names no latency")
            call_s = readable(min(3 * written, max(1.0, 5 * slowest_s)))
            return (
                call_s,
                f"{call_s:g} s is from 1 to 30 s, about ten times the observed {name}: longer than that is hanging",
            )
        base_s = max(0.1, 5 * self.under_s)
        highest_s = max(4 * base_s, written)
        call_s = readable(min(28_000.0, max(base_s, min(slowest_s, highest_s))))
        if slowest_s > base_s:
            seen = f"{2 if name == 'P999' else 3} times the observed {name}"
            return (
                call_s,
                f"{call_s:g} s is {seen}, at most {highest_s:g} s: slower calls than the objective still succeed",
            )
        return (
            call_s,
            f"{call_s:g} s is five times the objective, at least 0.1 s: a call that is merely slow still succeeds",
        )


class _Part:
    """One policy being put together: values that differ from the written defaults, and a sentence for each number."""

    def __init__(self, kind: type, why_off: str | None = None) -> None:
        self._kind = kind
        self._values: dict[str, object] = {}
        self._reasons: dict[str, str] = {}
        self._why_off = why_off

    def derived(self, name: str, value: object, reason: str) -> None:
        self._values[name] = value
        self._reasons[name] = reason

    def written(self, name: str, reason: str) -> None:
        self._reasons[name] = _written(getattr(self._kind(), name), reason)

    def policy(self) -> object:
        return None if self._why_off else self._kind(**self._values)

    def reasons(self, part: str) -> dict[str, str]:
        if self._why_off:
            return {part: f"off: {self._why_off}"}
        missing = {each.name for each in fields(self._kind)} ^ self._reasons.keys()
        assert not missing, f"every number has a reason, and every reason a number: {missing}"
        return {f"{part}.{name}": reason for name, reason in self._reasons.items()}


def _breaker(facts: _Facts) -> _Part:
    part = _Part(BreakerPolicy)
    line = readable(min(1.0, max(0.5, 2 * facts.bad)))
    times = line / facts.allowed
    share_why = (
        f"{line:g} of the calls, {times:.3g} times what the objective allows: opening refuses every call, which pays "
        f"only when most would be bad anyway"
    )
    part.derived("failed_share", line, share_why)
    if facts.under_s is None:
        part.written("slow_share", "without effect, since no call counts as slow")
        part.written("slow_s", "an availability objective does not say what is slow")
    else:
        part.derived("slow_share", line, share_why)
        part.derived("slow_s", facts.under_s, f"{facts.under_s:g} s is the objective: a call that takes longer is bad")
    needed = calls_for(line, facts.bad, FALSE_TRIP)
    calls_min = int(min(10_000, max(BreakerPolicy().calls_min, needed)))
    part.derived(
        "calls_min",
        calls_min,
        f"{calls_min} calls, at least 20: when {facts.bad:.4g} are bad by nature, so many reach {line:g} by chance "
        + (f"less than once in {1 / FALSE_TRIP:,.0f} windows" if needed <= 10_000 else "now and then all the same"),
    )
    window_s, window_why = _breaker_window(facts, calls_min)
    part.derived("window_s", window_s, window_why)
    part.written("buckets", "the window forgets a tenth at a time")
    # What a needless rest costs is all the calls of that time. One hundredth of the budget may go that way.
    affordable_s = 0.01 * facts.allowed * facts.objective.window_s
    rest_s = readable(min(BreakerPolicy().rest_s, window_s, max(1.0, affordable_s)))
    part.derived(
        "rest_s",
        rest_s,
        f"{rest_s:g} s is the window, or what costs 1 % of the error budget if that is shorter, at least 1 s: what is "
        "learned next owes nothing to what opened it, and few probes cost little",
    )
    part.written("rest_growth", "a failed probe doubles the rest")
    rest_max_s = readable(max(rest_s, min(BreakerPolicy().rest_max_s, affordable_s)))
    part.derived(
        "rest_max_s",
        rest_max_s,
        f"{rest_max_s:g} s: a rest that outlasts the illness costs at most 1 % of the error budget, never above 600 s",
    )
    part.written("probes_max", "enough to judge by, too few to harm what is just getting up")
    part.written("probes_good", "one good answer may be luck")
    part.written("ramp_s", "traffic comes back over these seconds, not at once")
    part.written("mode", "it acts on what it finds")
    return part


def _breaker_window(facts: _Facts, calls_min: int) -> tuple[float, str]:
    written = BreakerPolicy().window_s
    if facts.observed is None:
        return written, _written(written, "seconds; how often calls come is not known yet")
    rate = facts.observed.calls_per_s
    wanted_s = 2 * calls_min / rate if rate > 0 else 120.0
    window_s = readable(min(120.0, max(written, wanted_s)))
    why = (
        f"{window_s:g} s, from 10 to 120, holds twice the {calls_min} calls needed at the observed {rate:.3g} a second"
    )
    if wanted_s > 240.0:
        why = (
            f"{window_s:g} s is the longest, and at the observed {rate:.3g} calls a second it seldom holds the {calls_min} "
            "needed: this breaker will hardly ever open"
        )
    return window_s, why


def _timeout(facts: _Facts) -> _Part:
    part = _Part(TimeoutPolicy)
    part.derived("call_s", facts.call_s, facts.call_why)
    part.derived(
        "total_s",
        facts.total_s,
        f"{facts.total_s:g} s has room for three tries of {facts.call_s:g} s and two pauses of {facts.pause_max_s:g} s",
    )
    return part


def _retry(facts: _Facts) -> _Part:
    part = _Part(RetryPolicy)
    if facts.observed is not None and facts.failed**2 <= facts.allowed / 10:
        part.derived(
            "attempts_max",
            2,
            f"2 tries in all: {facts.failed:.3g} of the calls fail, so two independent failures in a row are at most a "
            "tenth of what the objective allows",
        )
    else:
        part.written("attempts_max", "tries in all, for calls marked safe to repeat; they fit into the total timeout")
    if facts.under_s is None:
        part.written("pause_first_s", "seconds, the upper end of the first pause")
    else:
        first_s = readable(min(RetryPolicy().pause_first_s, max(0.001, facts.under_s / 4)))
        part.derived(
            "pause_first_s",
            first_s,
            f"{first_s:g} s is a quarter of the objective, from 0.001 to 0.05 s: the second try can still be in time",
        )
    part.derived(
        "pause_max_s",
        facts.pause_max_s,
        f"{facts.pause_max_s:g} s is half of one try, at most 2 s: waiting longer than working helps nobody who waits",
    )
    after_s = readable(min(RetryPolicy().retry_after_max_s, facts.total_s))
    part.derived(
        "retry_after_max_s",
        after_s,
        f"{after_s:g} s is the total timeout, at most 10 s: a longer pause leaves no time for the try after it",
    )
    return part


def _budget(facts: _Facts) -> _Part:
    part = _Part(BudgetPolicy)
    hedged = 0.0 if facts.under_s is None else 1.0 - _hedge_quantile(facts)
    share = readable(min(0.2, max(BudgetPolicy().share, hedged + 2 * facts.bad)))
    part.derived(
        "share",
        share,
        f"{share:g} of the calls, from 0.1 to 0.2: hedges need {hedged:.2g}, and retries twice the {facts.bad:.3g} that "
        "are bad while the objective is met; more would be load on something ill",
    )
    part.written("window_s", "seconds over which repeats are counted")
    if facts.observed is None:
        part.written("floor_per_s", "repeats a second for a quiet client")
    else:
        floor_per_s = readable(min(1.0, max(0.1, facts.observed.calls_per_s / 10)))
        part.derived(
            "floor_per_s",
            floor_per_s,
            f"{floor_per_s:g} a second, a tenth of the observed {facts.observed.calls_per_s:.3g} calls, from 0.1 to 1: a "
            "quiet client can retry, and not every call twice",
        )
    return part


def _hedge_quantile(facts: _Facts) -> float:
    return readable(min(0.99, max(0.9, 1.0 - 5 * facts.allowed)))


def _hedge(facts: _Facts) -> _Part:
    if facts.under_s is None:
        return _off("a second call buys latency with load, and the objective asks for no latency")
    observed = facts.observed
    if observed is not None and observed.p99_s < 2 * observed.p50_s:
        return _off(
            f"the observed P99, {observed.p99_s:.3g} s, is less than twice the median, {observed.p50_s:.3g} s: a second "
            "call would seldom be back sooner"
        )
    part = _Part(HedgePolicy)
    quantile = _hedge_quantile(facts)
    part.derived(
        "quantile",
        quantile,
        f"{quantile:g}: a second call after as long as this share of calls take, five times as many as the objective "
        "allows to be slow, from 0.9 to 0.99; for calls marked safe to repeat",
    )
    delay_s = readable(max(HedgePolicy().delay_min_s, facts.under_s / 20))
    part.derived(
        "delay_min_s",
        delay_s,
        f"{delay_s:g} s is a twentieth of the objective, at least 0.001 s: sooner, a second call saves nothing",
    )
    samples_min = min(300, max(HedgePolicy().samples_min, ceil(round(5 / (1.0 - quantile), 6))))
    part.derived(
        "samples_min", samples_min, f"{samples_min} calls, from 50 to 300: about five of them beyond the quantile"
    )
    return part


def _bulkhead(facts: _Facts) -> _Part:
    observed = facts.observed
    if observed is None:
        return _off(f"how many calls are in flight when all is well is not known before {CALLS_MIN} calls")
    busy = max(float(observed.in_flight_max), observed.calls_per_s * observed.p99_s)
    if busy < 1.0 or 4 * busy > 1_000_000:
        return _off("the observed calls in flight are too few, or too many, to say what is normal")
    part = _Part(BulkheadPolicy)
    calls_max = max(20, ceil(4 * busy))
    part.derived(
        "calls_max",
        calls_max,
        f"{calls_max} calls in flight, at least 20: four times the {busy:.4g} of a busy moment, the most seen or the "
        "observed rate times the P99 (Little's law)",
    )
    part.written("waiting_max", "a call that finds no room is refused at once, not queued behind what is stuck")
    part.written("wait_max_s", "seconds; without effect while nothing may wait")
    part.written("sojourn_target_s", "seconds; without effect while nothing may wait")
    part.written("sojourn_interval_s", "seconds; without effect while nothing may wait")
    return part


def _threshold(facts: _Facts) -> _Part:
    if facts.under_s is None:
        return _off("the objective asks for no latency, so no line between fast and slow is needed")
    part = _Part(ThresholdPolicy)
    quantile = readable(min(0.999, max(0.5, 1.0 - facts.allowed)))
    part.derived("quantile", quantile, f"{quantile:g} is the objective's share, from 0.5 to 0.999")
    beyond = 1.0 - quantile
    samples = max(ThresholdPolicy().samples, ceil(round(3 / beyond, 6)))
    part.derived("samples", samples, f"{samples} samples, at least 300, so that three are beyond the quantile")
    samples_min = samples // 10
    part.derived(
        "samples_min", samples_min, f"{samples_min} samples, a tenth of the window, before anything is learned"
    )
    part.written("alpha", "the line goes a fifth of the way to what it learns, each quarter of an hour")
    part.written("hardened", "the line cannot follow a slow degradation upward")
    part.written("margin", "times the learned quantile, so that an ordinary day stays below the line")
    part.written("cap", "times the objective, and no further")
    return part


def _off(why: str) -> _Part:
    return _Part(object, why)


def _written(value: object, reason: str) -> str:
    shown = f"{value:g}" if isinstance(value, float) else getattr(value, "value", value)
    return f"written default {shown}: {reason}"


def _summary(objective: Objective, observed: Observed | None) -> str:
    if observed is None:
        return f"{objective}: from the objective alone, nothing has been observed yet"
    if observed.calls < CALLS_MIN:
        return (
            f"{objective}: from the objective alone, {observed.calls} observed calls are fewer than the {CALLS_MIN} "
            "that would say something"
        )
    return f"{objective}: from the objective and {observed.calls} observed calls"


def readable(value: float) -> float:
    """Three significant digits: a number a person can say aloud. Never changes the order of two numbers."""
    return float(f"{value:.3g}")
