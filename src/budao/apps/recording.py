"""What happened to the customers of one shop, second by second, and what the whole demo showed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from budao.apps.script import Phase
from budao.measure import nearest_rank

RUNGS = ("direct", "cache", "template", "empty")
LATELY_S = 3.0
"""How far back the live table looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """The requests that arrived within one second. Units: counts are requests, spans seconds."""

    requests: int = 0
    succeeded: int = 0
    in_time: int = 0
    """Succeeded, and within the objective."""
    p50_s: float | None = None
    p99_s: float | None = None
    """Time until any answer, errors included; None if nobody came."""
    rungs: Mapping[str, int] = field(default_factory=dict)
    """Good answers by where they came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpan:
    """The breaker was in this state from `start_s` to `end_s`."""

    state: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something happened, in a plain sentence."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """All that the page shows, and `--json` prints. Both shops had the same customers at the same instants."""

    seconds_planned: int
    calls_per_s: float
    seed: int
    under_s: float
    share: float
    phases: tuple[Phase, ...]
    bare: tuple[Second, ...]
    guarded: tuple[Second, ...]
    states: tuple[StateSpan, ...]
    remarks: tuple[Remark, ...]
    settings: tuple[str, ...]
    """What the demo set by hand, one sentence each."""
    explain: str
    interrupted: bool = False

    @property
    def seconds(self) -> int:
        """How many seconds were recorded; fewer than planned if somebody interrupted."""
        return max(len(self.bare), len(self.guarded))

    def as_plain(self) -> dict[str, Any]:
        """Everything as dicts, lists, texts and numbers, the result first."""
        plain = asdict(self)
        for phase in plain["phases"]:
            phase["manner"] = phase["manner"].value
        return {"result": result(self), "shares": shares(self), **plain}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lately:
    """The last seconds of one shop, as the live table shows them. None where nobody came."""

    requests_per_s: float
    good_share: float | None
    in_time_share: float | None
    p50_s: float | None
    p99_s: float | None
    unanswered: int
    """Customers who are waiting now."""


@dataclass(slots=True)
class _Visit:
    at_s: float
    took_s: float | None = None
    is_good: bool = False
    source: str = ""


class Visits:
    """Collects one shop's requests as they come and go; told the time."""

    def __init__(self, under_s: float) -> None:
        self.under_s = under_s
        self._visits: list[_Visit] = []
        self._rungs: Counter[str] = Counter()

    def arrived(self, at_s: float) -> int:
        """A customer asks; the number is for `answered`."""
        self._visits.append(_Visit(at_s))
        return len(self._visits) - 1

    def answered(self, number: int, took_s: float, *, is_good: bool, source: str = "") -> None:
        """The customer has an answer, an error, or has walked away."""
        visit = self._visits[number]
        assert visit.took_s is None, "a visit ends once"
        visit.took_s, visit.is_good, visit.source = took_s, is_good, source
        self._rungs[source] += is_good

    def by_second(self, seconds: int, now_s: float) -> tuple[Second, ...]:
        """One `Second` for each of the first `seconds`, as known at `now_s`.

        Whoever still waits and could yet be answered in time is left out; whoever is too late for that counts as not
        answered, with the wait so far.
        """
        held: list[list[_Visit]] = [[] for _ in range(seconds)]
        for visit in self._visits:
            if visit.at_s < seconds and (visit.took_s is not None or now_s - visit.at_s > self.under_s):
                held[int(visit.at_s)].append(visit)
        return tuple(self._second(each, now_s) for each in held)

    def _second(self, visits: Sequence[_Visit], now_s: float) -> Second:
        took = sorted(_took_s(visit, now_s) for visit in visits)
        good = [visit for visit in visits if visit.is_good]
        return Second(
            requests=len(visits),
            succeeded=len(good),
            in_time=sum(_took_s(visit, now_s) <= self.under_s for visit in good),
            p50_s=_quantile(took, 0.5),
            p99_s=_quantile(took, 0.99),
            rungs={rung: count for rung in RUNGS if (count := sum(visit.source == rung for visit in good))},
        )

    def lately(self, now_s: float) -> Lately:
        """What is known of the requests that are old enough to have been answered in time.

        Somebody who came longer ago than the objective allows and still waits is late already, so nothing has to be
        guessed; their wait so far stands for their latency.
        """
        until, since = now_s - self.under_s, max(0.0, now_s - self.under_s - LATELY_S)
        recent: list[_Visit] = []
        for visit in reversed(self._visits):
            if visit.at_s < since:
                break
            if visit.at_s <= until:
                recent.append(visit)
        took = sorted(_took_s(visit, now_s) for visit in recent)
        ended = [visit for visit in recent if visit.took_s is not None]
        in_time = sum(visit.is_good and _took_s(visit, now_s) <= self.under_s for visit in recent)
        return Lately(
            requests_per_s=len(recent) / (until - since) if until > since else 0.0,
            good_share=sum(visit.is_good for visit in ended) / len(ended) if ended else None,
            in_time_share=in_time / len(recent) if recent else None,
            p50_s=_quantile(took, 0.5),
            p99_s=_quantile(took, 0.99),
            unanswered=sum(visit.took_s is None for visit in self._visits[-5000:]),
        )

    def rungs(self) -> dict[str, int]:
        """Good answers so far, by where they came from."""
        return {rung: self._rungs[rung] for rung in RUNGS}


def _took_s(visit: _Visit, now_s: float) -> float:
    return now_s - visit.at_s if visit.took_s is None else visit.took_s


def _quantile(rising: Sequence[float], share: float) -> float | None:
    return rising[nearest_rank(share, len(rising)) - 1] if rising else None


def state_spans(moves: Iterable[tuple[float, str]], first: str, end_s: float) -> tuple[StateSpan, ...]:
    """Instants of change, in any order, as spans that lie end to end from 0 to `end_s`."""
    spans: list[StateSpan] = []
    since, state = 0.0, first
    for moved_s, entered in sorted(moves, key=lambda move: move[0]):
        at_s = min(max(0.0, moved_s), end_s)
        if at_s > since:
            spans.append(StateSpan(state=state, start_s=since, end_s=at_s))
        since, state = at_s, entered
    if end_s > since:
        spans.append(StateSpan(state=state, start_s=since, end_s=end_s))
    return tuple(spans)


def in_time_share(seconds: Sequence[Second], phases: Iterable[Phase]) -> float | None:
    """The share of the requests of these phases that was answered well and within the objective; None if none came."""
    held = [second for phase in phases for second in seconds[phase.start_s : phase.end_s]]
    requests = sum(second.requests for second in held)
    return sum(second.in_time for second in held) / requests if requests else None


def shares(recording: Recording) -> dict[str, dict[str, float | None]]:
    """Of each phase, of all ill phases and of everything: the share answered within the objective, for both shops."""
    ill = [phase for phase in recording.phases if phase.is_ill]
    spans = {phase.name: [phase] for phase in recording.phases} | {"ill": ill, "all": list(recording.phases)}
    return {
        name: {
            "bare": in_time_share(recording.bare, held),
            "guarded": in_time_share(recording.guarded, held),
        }
        for name, held in spans.items()
    }


def result(recording: Recording) -> str:
    """The demo in one sentence."""
    ill = shares(recording)["ill"]
    bare, guarded = ill["bare"], ill["guarded"]
    if bare is None or guarded is None:
        return "The demo ended before the inventory service fell ill, so there is nothing to compare."
    seen = [phase.name for phase in recording.phases if phase.is_ill and phase.start_s < recording.seconds]
    ill_ways = " or ".join(filter(None, (", ".join(seen[:-1]), seen[-1])))
    return (
        f"With the guard {percent(guarded)} of requests were answered within {recording.under_s * 1000:.0f} ms "
        f"while inventory was {ill_ways}; without it {percent(bare)}."
    )


def answered_by(recording: Recording) -> str:
    """Who answered the customers of the guarded shop while inventory was ill, in one sentence; "" if nobody came."""
    held = [
        second
        for phase in recording.phases
        if phase.is_ill
        for second in recording.guarded[phase.start_s : phase.end_s]
    ]
    requests = sum(second.requests for second in held)
    if not requests:
        return ""
    counts = {rung: sum(second.rungs.get(rung, 0) for second in held) for rung in RUNGS}
    parts = [f"{percent(count / requests)} by {_BY[rung]}" for rung, count in counts.items() if count]
    lost = requests - sum(counts.values())
    parts += [f"{percent(lost / requests)} by an error"] if lost else []
    return f"While inventory was ill, the guarded shop's customers were answered {', '.join(parts)}."


_BY = {
    "direct": "inventory itself",
    "cache": "the last known stock (cache)",
    "template": "a best guess (template)",
    "empty": "nothing (empty)",
}


def percent(share: float) -> str:
    """A share for people: never rounded up to a whole 100 %, nor down to 0 %."""
    if 0.9995 <= share < 1.0:
        return f"{int(share * 10_000) / 100:.2f} %"
    if 0.0 < share < 0.0005:
        return "< 0.1 %"
    return f"{share * 100:.1f} %".replace(".0 %", " %")
