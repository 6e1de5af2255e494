"""The line between fast and slow, following what is measured without following it everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from statistics import median

from budao.measure import Samples, nearest_rank
from budao.model import Checks, Mono, ThresholdPolicy

STEP_S = 60.0
"""A step: the hardened rule weighs evidence, and the bare one looks for drift, at most this often."""
EVALUATE_S = 10.0
"""The bare rule moves its line at most this often, so that many small feeds cost no more than one large."""
DRIFT_SHARE = 0.15
"""Bare: the quantile moved more than this within a minute."""
DRIFT_RISES = 3
"""Bare: minutes in a row the quantile rose."""
ODDS = 2.0
"""Hardened: the evidence weighs "slow at the allowed odds" against "slow at this many times those odds"."""
EVIDENCE = 4.0
"""Hardened: this much, in nats, is an alarm: what was seen is 55 times likelier at the raised odds."""
WEIGHT_MAX = 0.9
"""Hardened: no minute weighs more, for or against. So an alarm takes five minutes, and a deploy is over sooner."""
LEARN_STEPS = 15
"""Hardened: the line learns from the median of this many steps; the disturbed ones among them count for nothing."""
DAY_S = 86_400.0
CREEP_SHARE = 1.2
"""Hardened: the line's mean over a day may be this many times its reference before the line itself is the news."""
REFERENCE_DAYS = 7
"""Hardened, without an anchor: the baseline is the highest level of the first this many days, then frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdView:
    """A threshold at one instant.

    Units: spans in seconds, None where nothing is known yet; `evidence_share` is 0 to 1, and 1 is an alarm.
    """

    slow_s: float
    """A call that takes longer is slow."""
    quantile_s: float | None
    """The learned quantile the line is drawn from."""
    anchor_s: float | None
    """What the cap is tied to: the objective, or a baseline measured in the first days."""
    samples: int
    is_drifting: bool
    """An alarm: bare, by its rule for a moving quantile; hardened, once enough minutes had too many slow calls."""
    is_creeping: bool
    """An alarm about the line itself: it has drifted from its reference. Never set by the bare rule."""
    is_learning: bool
    """False while an alarm stands, here or at the caller: what happens during an incident is not normal."""
    evidence_share: float
    reason: str


class Threshold:
    """Learns where slow begins for one indicator, from the samples it is fed.

    `Threshold(policy, anchor_s)` with the objective's `under_s` as anchor, or None for an indicator without one.

    The bare rule (`policy.hardened` False): an EWMA of the window's quantile, never below the anchor, never above
    `cap` times the largest sample of the window. The hardened rule, the default, differs in five ways: the cap is tied
    to the anchor, or to a baseline that freezes; the line keeps a margin above the learned quantile; it learns slowly,
    from medians; it stops learning while an alarm stands; and a day's mean of the line is held against a frozen
    reference. See `docs/explanation/thresholds.md`.

    Units:  seconds. Instants that go back count as the latest one seen; samples that are negative or no number are left
            out.
    Cost:   linear in the samples fed, and one sort of the window at most every minute (bare: every 10 s). Idle, it holds
            a few numbers; the window takes 8 bytes for each sample it has.
    """

    __slots__ = ("_rule", "anchor_s", "policy", "slow_s")

    def __init__(self, policy: ThresholdPolicy, anchor_s: float | None) -> None:
        if anchor_s is not None:
            check = Checks("threshold")
            check.number("anchor_s", anchor_s, 0.0, 86_400.0, open_low=True)
            check.done()
        self.policy = policy
        self.anchor_s = anchor_s
        self.slow_s = inf if anchor_s is None else anchor_s
        """A call that takes longer is slow, in seconds. The anchor, or inf, until there are `samples_min` samples."""
        self._rule: _Bare | _Hard | None = None

    def feed(self, samples: Sequence[float], now: Mono, *, alert_stands: bool = False) -> None:
        """Take note of how long calls took, in seconds, oldest first.

        `alert_stands` says that an alert from elsewhere, such as a burn rate, stands: nothing is learned meanwhile. The
        bare rule ignores it, as it ignores everything.
        """
        kept = [took_s for took_s in samples if 0.0 <= took_s < inf]
        if not kept:
            return
        rule = self._rule
        if rule is None:
            rule = self._rule = (_Hard if self.policy.hardened else _Bare)(self.policy, self.anchor_s, now)
        if isinstance(rule, _Hard):
            rule.alert_stands = alert_stands
        self.slow_s = rule.feed(kept, now, self.slow_s)

    def accept(self) -> None:
        """A person says that the way it is now is normal: everything learned is dropped, and learned again.

        The anchor stays. A service that has become slower than its objective needs another objective instead.
        """
        self._rule = None
        self.slow_s = inf if self.anchor_s is None else self.anchor_s

    def view(self) -> ThresholdView:
        """The threshold now, as a value. Reading changes nothing."""
        if self._rule is None:
            return _unlearned(self.policy, self.anchor_s, self.slow_s, 0)
        return self._rule.view(self.slow_s)


class _Bare:
    """The rule as first written. It follows a slow degradation upward, and is kept to be compared with."""

    __slots__ = (
        "anchor_s",
        "due",
        "is_drifting",
        "largest_s",
        "level_s",
        "mark",
        "marked_s",
        "policy",
        "rises",
        "window",
    )

    def __init__(self, policy: ThresholdPolicy, anchor_s: float | None, now: Mono) -> None:
        self.policy = policy
        self.anchor_s = anchor_s
        self.window = Samples(policy.samples)
        self.level_s: float | None = None
        self.largest_s = 0.0
        self.due = now
        self.mark = now
        self.marked_s: float | None = None
        self.rises = 0
        self.is_drifting = False

    def feed(self, samples: list[float], now: Mono, slow_s: float) -> float:
        self.window.extend(samples)
        if now < self.due or len(self.window) < self.policy.samples_min:
            return slow_s
        self.due = Mono(now + EVALUATE_S)
        ordered = self.window.ordered()
        found_s = ordered[nearest_rank(self.policy.quantile, len(ordered)) - 1]
        self.level_s = found_s if self.level_s is None else self.level_s + self.policy.alpha * (found_s - self.level_s)
        self.largest_s = ordered[-1]
        self._look_for_drift(found_s, now)
        return max(self.anchor_s or 0.0, min(self.level_s, self.policy.cap * self.largest_s))

    def _look_for_drift(self, found_s: float, now: Mono) -> None:
        if self.marked_s is not None and now < self.mark + STEP_S:
            return
        if self.marked_s is not None:
            moved = abs(found_s - self.marked_s) > DRIFT_SHARE * self.marked_s
            self.rises = self.rises + 1 if found_s > self.marked_s else 0
            short = self.anchor_s is not None and found_s > self.anchor_s  # fewer than the quantile comply
            self.is_drifting = moved or (self.rises >= DRIFT_RISES and short)
        self.mark, self.marked_s = now, found_s

    def view(self, slow_s: float) -> ThresholdView:
        if self.level_s is None:
            return _unlearned(self.policy, self.anchor_s, slow_s, len(self.window))
        reason = (
            f"bare: the smoothed {_name(self.policy.quantile)} of {len(self.window)} samples is {_ms(self.level_s)}"
        )
        if slow_s == self.anchor_s:
            reason += f", and the line is never below the objective, {_ms(slow_s)}"
        elif slow_s < self.level_s:
            reason += f", and the line never above {self.policy.cap:g} times the largest sample, {_ms(self.largest_s)}"
        if self.is_drifting:
            reason += "; the quantile is moving"
        return ThresholdView(
            slow_s=slow_s,
            quantile_s=self.level_s,
            anchor_s=self.anchor_s,
            samples=len(self.window),
            is_drifting=self.is_drifting,
            is_creeping=False,
            is_learning=True,
            evidence_share=float(self.is_drifting),
            reason=reason,
        )


class _Hard:
    """The hardened rule."""

    __slots__ = (
        "alert_stands",
        "anchor_s",
        "baseline_s",
        "day_line_s",
        "day_steps",
        "day_until",
        "days",
        "evidence",
        "has_begun",
        "is_creeping",
        "is_drifting",
        "learned",
        "level_s",
        "line_reference_s",
        "over",
        "policy",
        "seen",
        "step_until",
        "window",
    )

    def __init__(self, policy: ThresholdPolicy, anchor_s: float | None, now: Mono) -> None:
        self.policy = policy
        self.anchor_s = anchor_s
        self.window = Samples(policy.samples)
        self.has_begun = False
        self.level_s = 0.0
        self.baseline_s = anchor_s or 0.0
        self.learned: list[float] = []
        self.evidence = 0.0
        self.is_drifting = False
        self.alert_stands = False
        self.seen = 0
        self.over = 0
        self.step_until = Mono(now + STEP_S)
        self.is_creeping = False
        self.line_reference_s = 0.0
        self.day_until = Mono(now + DAY_S)
        self.day_line_s = 0.0
        self.day_steps = 0
        self.days = 0

    def feed(self, samples: list[float], now: Mono, slow_s: float) -> float:
        self.window.extend(samples)
        self.seen += len(samples)
        self.over += sum(1 for took_s in samples if took_s > slow_s)
        if not self.has_begun:
            self.has_begun = len(self.window) >= self.policy.samples_min
            if not self.has_begun:
                return slow_s
            self.level_s = self._found_s()
            self.baseline_s = self.anchor_s or self.level_s
            return self._line()
        if now < self.step_until or self.seen < self.policy.samples_min:
            return slow_s
        self._weigh()
        self._learn()
        self._watch_the_line(slow_s, now)
        self.seen = self.over = 0
        self.step_until = Mono(now + STEP_S)
        return self._line()

    def view(self, slow_s: float) -> ThresholdView:
        if not self.has_begun:
            return _unlearned(self.policy, self.anchor_s, slow_s, len(self.window))
        return ThresholdView(
            slow_s=slow_s,
            quantile_s=self.level_s,
            anchor_s=self.baseline_s,
            samples=len(self.window),
            is_drifting=self.is_drifting,
            is_creeping=self.is_creeping,
            is_learning=self._is_learning,
            evidence_share=self.evidence / EVIDENCE,
            reason=self._reason(slow_s),
        )

    @property
    def _is_learning(self) -> bool:
        return self._is_quiet and not self.is_creeping

    @property
    def _may_fall(self) -> bool:
        """While only the line itself is the alarm, it may learn to be lower, or it could never come back."""
        return self._is_quiet and self.is_creeping

    @property
    def _is_quiet(self) -> bool:
        # Half an alarm is enough: what is coming may be a whole one, and should not have been learned by then.
        return self.evidence < EVIDENCE / 2 and not (self.is_drifting or self.alert_stands)

    def _found_s(self) -> float:
        return self.window.quantile(self.policy.quantile) or 0.0

    def _line(self) -> float:
        highest_s = self.policy.cap * self.baseline_s
        return max(self.anchor_s or 0.0, min(self.policy.margin * self.level_s, highest_s))

    def _weigh(self) -> None:
        """One step of a likelihood-ratio test that starts over at zero (CUSUM), each step's say bounded.

        Source: Page 1954, "Continuous inspection schemes". The bound on each step is ours: without it one dreadful
        minute would be an alarm, and a deploy has those.
        """
        allowed = 1.0 - self.policy.quantile
        raised = ODDS * allowed / (1.0 - allowed + ODDS * allowed)
        weight = self.over * log(raised / allowed) + (self.seen - self.over) * log((1 - raised) / (1 - allowed))
        self.evidence = min(EVIDENCE, max(0.0, self.evidence + max(-WEIGHT_MAX, min(WEIGHT_MAX, weight))))
        # It takes as many good minutes to end an alarm as bad ones to begin it.
        self.is_drifting = self.evidence > 0.0 if self.is_drifting else self.evidence >= EVIDENCE

    def _learn(self) -> None:
        if not (self._is_learning or self._may_fall):
            self.learned.clear()
            return
        self.learned.append(self._found_s())
        if self.days == 0 and self.day_steps < LEARN_STEPS:
            self.level_s = median(self.learned)  # the very first quarter of an hour: better early than smooth
        elif len(self.learned) >= LEARN_STEPS:
            step_s = self.policy.alpha * (median(self.learned) - self.level_s)
            self.level_s += min(0.0, step_s) if self._may_fall else step_s
            self.learned.clear()
        if self.anchor_s is None and self.days < REFERENCE_DAYS:
            self.baseline_s = max(self.baseline_s, self.level_s)

    def _watch_the_line(self, slow_s: float, now: Mono) -> None:
        """Hold a day's mean of the line against a frozen reference: the slow detector that watches the fast one."""
        self.day_line_s += slow_s
        self.day_steps += 1
        if now < self.day_until:
            return
        mean_s = self.day_line_s / self.day_steps
        if self.days == 0:
            self.line_reference_s = mean_s
        elif self.anchor_s is None and self.days < REFERENCE_DAYS:
            self.line_reference_s = max(self.line_reference_s, mean_s)
        else:
            self.is_creeping = mean_s > CREEP_SHARE * self.line_reference_s
        self.day_until = Mono(now + DAY_S)
        self.day_line_s, self.day_steps = 0.0, 0
        self.days += 1

    def _reason(self, slow_s: float) -> str:
        learned = f"{self.policy.margin:g} times the learned {_name(self.policy.quantile)}, {_ms(self.level_s)}"
        tied_to = "objective" if self.anchor_s is not None else "baseline"
        if slow_s == self.anchor_s:
            reason = f"the objective, {_ms(slow_s)}: {learned}, is not above it"
        elif slow_s >= self.policy.cap * self.baseline_s:
            reason = f"held at {self.policy.cap:g} times the {tied_to}, {_ms(self.baseline_s)}, below {learned}"
        else:
            reason = learned
        if self.is_drifting:
            reason += "; too many calls have been slow for minutes"
        if self.is_creeping:
            reason += f"; the line itself has crept up from a daily mean of {_ms(self.line_reference_s)}"
        if not self._is_learning:
            reason += "; not learning meanwhile"
        return reason


def _unlearned(policy: ThresholdPolicy, anchor_s: float | None, slow_s: float, samples: int) -> ThresholdView:
    rest = "nothing is slow" if anchor_s is None else f"the line is the objective, {_ms(anchor_s)}"
    return ThresholdView(
        slow_s=slow_s,
        quantile_s=None,
        anchor_s=anchor_s,
        samples=samples,
        is_drifting=False,
        is_creeping=False,
        is_learning=True,
        evidence_share=0.0,
        reason=f"{samples} of the {policy.samples_min} samples needed to begin, so {rest}",
    )


def _name(quantile: float) -> str:
    """P99 for 0.99, P999 for 0.999."""
    return "P" + f"{quantile:.10f}".rstrip("0")[2:].ljust(2, "0")


def _ms(span_s: float) -> str:
    return f"{span_s * 1000:.4g} ms"
