"""How fast the error budget is being spent, and whether that is fast enough, and sure enough, to wake somebody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from budao.model import Checks, Wall
from budao.slo.bounds import lower_bound
from budao.slo.objective import Objective
from budao.slo.tally import Counts, Tally

SLICES = 60
"""Each window of a rule is right to 1/60 of its length: one minute of an hour."""


class Standing(Enum):
    """What a rule says. Three values, since not knowing is neither of the other two."""

    OK = "ok"
    FIRING = "firing"
    UNKNOWN = "unknown"


class Urgency(Enum):
    """Who should hear of it."""

    PAGE = "page"
    TICKET = "ticket"


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnRule:
    """One pair of windows: fires while the budget burns faster than `burn_limit` in both.

    The long window says that it matters, the short one that it is still going on.

    Units: spans in seconds; burn has no unit, and 1.0 spends the budget exactly on time.
    Raises: BadSettings with every problem. Whether it can ever fire depends on the objective: see `BurnRates`.
    """

    burn_limit: float
    long_s: float
    short_s: float
    urgency: Urgency = Urgency.PAGE
    calls_min: int = 50
    """Fewer calls in the long window say nothing."""
    bad_min: int = 5
    """Fewer bad calls in the long window never fire, however few the calls: bad calls come in company."""
    confidence: float = 0.99
    """The lower confidence bound of the long window's burn must be above the limit too; see `lower_bound`."""

    def __post_init__(self) -> None:
        check = Checks("rule")
        check.number("burn_limit", self.burn_limit, 0.0, open_low=True)
        check.number("long_s", self.long_s, 60.0, 366 * 86_400.0)
        check.number("short_s", self.short_s, 1.0, 366 * 86_400.0)
        check.count("calls_min", self.calls_min, 1)
        check.count("bad_min", self.bad_min, 1)
        check.number("confidence", self.confidence, 0.5, 0.999999)
        check.need(isinstance(self.urgency, Urgency), "urgency", f"{self.urgency!r} is neither page nor ticket")
        if not check.problems:
            check.need(
                self.short_s < self.long_s,
                "short_s",
                f"{self.short_s:g} s is not shorter than long_s, {self.long_s:g} s",
            )
        check.done()


WORKBOOK: tuple[BurnRule, ...] = (
    BurnRule(burn_limit=14.4, long_s=3_600.0, short_s=300.0),
    BurnRule(burn_limit=6.0, long_s=6 * 3_600.0, short_s=1_800.0),
    BurnRule(burn_limit=3.0, long_s=86_400.0, short_s=2 * 3_600.0, urgency=Urgency.TICKET),
    BurnRule(burn_limit=1.0, long_s=3 * 86_400.0, short_s=6 * 3_600.0, urgency=Urgency.TICKET),
)
"""2 % of a month's budget in an hour, 5 % in six, 10 % in a day, 10 % in three. The SRE workbook, table 5-8, has the first
two and the last; the day is what generators of alerts commonly add, since between six hours and three days is a gap."""


def rules_for(objective: Objective) -> tuple[BurnRule, ...]:
    """The workbook's rules, fitted to an objective so that each of them can fire.

    A lenient objective cannot burn fast (90 % burns at 10 when every call is bad), so a limit never exceeds half of
    what is possible, nor falls below 1. Rules that look back further than the objective's window are left out; if none
    remains, one looks at the whole window and its last twelfth.
    """
    possible = float(1 / objective.allowed)
    rules = [rule for rule in WORKBOOK if rule.long_s <= objective.window_s]
    if not rules:
        first = WORKBOOK[0]
        share_s = objective.window_s / first.long_s
        rules = [replace(first, long_s=objective.window_s, short_s=first.short_s * share_s)]
    return tuple(replace(rule, burn_limit=max(1.0, min(rule.burn_limit, possible / 2))) for rule in rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleVerdict:
    """What one rule says, with the numbers it says it from. A burn is None for a window without calls."""

    rule: BurnRule
    standing: Standing
    long: Counts
    short: Counts
    burn_long: float | None
    burn_short: float | None
    burn_sure: float | None
    """The lower confidence bound of `burn_long`."""
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What all the rules say together: firing if one fires, ok only if every one is ok, else unknown."""

    standing: Standing
    urgency: Urgency | None
    """The most urgent of the rules that fire; None if none does."""
    rules: tuple[RuleVerdict, ...]
    sentence: str


class BurnRates:
    """Judges an objective by several pairs of windows.

    Raises: BadSettings for rules that could never fire under this objective, or for no rules.
    Cost:   a batch of events is constant work per window; a verdict adds up 61 slices per window.
    """

    __slots__ = ("_tallies", "objective", "rules")

    def __init__(self, objective: Objective, rules: Sequence[BurnRule] | None = None) -> None:
        self.objective = objective
        self.rules = rules_for(objective) if rules is None else tuple(rules)
        _check_can_fire(objective, self.rules)
        spans = {span for rule in self.rules for span in (rule.long_s, rule.short_s)}
        self._tallies = {span: Tally(span, SLICES) for span in sorted(spans)}

    def add(self, good: int, bad: int, now: Wall) -> None:
        """Count calls that ended at `now`."""
        for tally in self._tallies.values():
            tally.add(good, bad, now)

    def judge(self, now: Wall) -> Verdict:
        """What the rules say at `now`. Judging changes nothing."""
        found = tuple(self._judge(rule, now) for rule in self.rules)
        firing = [each for each in found if each.standing is Standing.FIRING]
        unknown = [each for each in found if each.standing is Standing.UNKNOWN]
        told = firing or unknown or list(found[:1])
        urgencies = {each.rule.urgency for each in firing}
        return Verdict(
            standing=Standing.FIRING if firing else Standing.UNKNOWN if unknown else Standing.OK,
            urgency=Urgency.PAGE if Urgency.PAGE in urgencies else Urgency.TICKET if urgencies else None,
            rules=found,
            sentence=f"{self.objective}: {told[0].sentence}",
        )

    def _judge(self, rule: BurnRule, now: Wall) -> RuleVerdict:
        long, short = self._tallies[rule.long_s].at(now), self._tallies[rule.short_s].at(now)
        allowed = float(self.objective.allowed)
        sure = lower_bound(long.bad, long.total, rule.confidence) / allowed if long.total else None
        burn_long = burn_rate(long, self.objective)
        burn_short = burn_rate(short, self.objective)
        standing, sentence = _settle(rule, long, burn_long, burn_short, sure)
        return RuleVerdict(
            rule=rule,
            standing=standing,
            long=long,
            short=short,
            burn_long=burn_long,
            burn_short=burn_short,
            burn_sure=sure,
            sentence=sentence,
        )


def burn_rate(counts: Counts, objective: Objective) -> float | None:
    """How many times faster than allowed these calls spent the error budget; None for no calls.

    Units:  no unit; 1.0 spends the budget exactly on time.
    Source: the SRE workbook, chapter 5.
    """
    return float(counts.bad / (counts.total * objective.allowed)) if counts.total else None


def _settle(
    rule: BurnRule, long: Counts, burn_long: float | None, burn_short: float | None, sure: float | None
) -> tuple[Standing, str]:
    pair = f"{_span(rule.long_s)} and {_span(rule.short_s)}"
    if burn_long is None or sure is None or long.total < rule.calls_min:
        seen = f"{long.total} calls in {_span(rule.long_s)}, fewer than {rule.calls_min}"
        return Standing.UNKNOWN, f"{seen}: too few to judge"
    if burn_long <= rule.burn_limit:
        return Standing.OK, f"burning at {burn_long:.3g} over {_span(rule.long_s)}, limit {rule.burn_limit:g}"
    if sure <= rule.burn_limit or long.bad < rule.bad_min:
        return Standing.UNKNOWN, (
            f"burning at {burn_long:.3g} over {_span(rule.long_s)}, limit {rule.burn_limit:g}, but {long.bad} bad of "
            f"{long.total} calls are surely only {sure:.3g}: it may be chance"
        )
    if burn_short is None:
        return Standing.UNKNOWN, (
            f"burned at {burn_long:.3g} over {_span(rule.long_s)}, and no call came in the last {_span(rule.short_s)}: "
            "nobody knows whether it goes on"
        )
    if burn_short <= rule.burn_limit:
        return Standing.OK, (
            f"burned at {burn_long:.3g} over {_span(rule.long_s)}, and is over: {burn_short:.3g} in the last "
            f"{_span(rule.short_s)}"
        )
    return Standing.FIRING, (
        f"burning at {burn_long:.3g} and {burn_short:.3g} over {pair}, limit {rule.burn_limit:g}, surely above "
        f"{sure:.3g}: {long.bad} bad of {long.total} calls"
    )


def _check_can_fire(objective: Objective, rules: tuple[BurnRule, ...]) -> None:
    check = Checks("")
    check.need(bool(rules), "rules", "no rule at all: nothing could ever fire")
    allowed = float(objective.allowed)
    for index, rule in enumerate(rules):
        check.need(
            rule.burn_limit * allowed < 1.0,
            f"rules[{index}].burn_limit",
            f"{rule.burn_limit:g} can never be exceeded: {allowed:.6g} of the calls may be bad, so all calls bad burn at "
            f"{1 / allowed:.6g}",
        )
        check.need(
            rule.long_s <= objective.window_s,
            f"rules[{index}].long_s",
            f"{rule.long_s:g} s looks back further than the objective's window of {objective.window_s:g} s",
        )
    check.done()


def _span(span_s: float) -> str:
    for unit_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if span_s >= unit_s and span_s % unit_s == 0:
            return f"{span_s / unit_s:g} {unit}"
    return f"{span_s:.4g} s"
