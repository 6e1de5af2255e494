"""What is stated about guards into settings: every problem at once, each with its path and its place, or a whole value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isnan
from types import MappingProxyType
from typing import Any

from budao.model import PARTS, BadSettings, GuardPolicy, Mode
from budao.settings.conflicts import conflicts
from budao.settings.layers import SOURCE, GuardSettings, Settings, below, did_you_mean
from budao.settings.lines import Path
from budao.settings.reading import Stated, kind_of, read_text
from budao.settings.schema import KINDS, MODES, kindest
from budao.settings.writing import written
from budao.slo import Availability, Latency, Objective

GUARDS_MAX = 1_000
PROBLEMS_MAX = 100
"""More are counted and not listed."""
NAME_LENGTH_MAX = 200
NUMBER_MAX = 2**63
"""A larger whole number is a mistake, and would cost time to print."""

_GUARD_KNOWS = (*PARTS, "objective", "keys_max")
_OBJECTIVE_KNOWS = ("availability", "latency", "under_s", "window_s")


def parse(text: str | bytes, *, source: str = SOURCE) -> Settings:
    """Read a settings file.

    What depends on the policy under the file, such as a `rest_s` above a `rest_max_s` that only the code states, is
    given the benefit of the doubt here and judged by `Settings.policy_for`.

    Units:   durations are numbers of seconds, shares from 0 to 1, as in the policies' fields.
    Raises:  BadSettings with every problem. No text of the file is repeated but key names and numbers, so that a
             password pasted into the wrong file does not travel into a log.
    Cost:    bounded: a text of at most BYTES_MAX bytes, DEPTH_MAX levels, GUARDS_MAX guards.
    """
    return guard_settings(read_text(text, source=source))


def guard_settings(stated: Stated) -> Settings:
    """What texts, variables and stores, laid over one another, say about guards.

    Raises:  BadSettings with every problem, each with the place that states it.
    """
    reading = _Reading(source=stated.source, places=stated.places)
    settings = reading.settings(stated.tables)
    if reading.problems:
        raise BadSettings(reading.problems)
    return settings


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One pass over the tables. Problems pile up; what is of the wrong kind is left out."""

    source: str
    places: Mapping[Path, str]
    problems: list[tuple[str, str]] = field(default_factory=list)

    def settings(self, tree: Mapping[str, Any]) -> Settings:
        """The whole file."""
        for name in tree:
            if name != "guard":
                self.unknown((name,), ("guard",))
        tables = self.table(("guard",), tree.get("guard", {}))
        if len(tables) > GUARDS_MAX:
            self.wrong(("guard",), f"{len(tables)} guards are more than {GUARDS_MAX}")
            return Settings(source=self.source)
        guards = {name: self.guard(name, table) for name, table in tables.items()}
        settings = Settings(guards=MappingProxyType(guards), source=self.source)
        for name in guards:
            self.judge(name, settings)
        return settings

    def guard(self, name: str, table: object) -> GuardSettings:
        """One table `[guard.NAME]`; ranges and combinations are judged later, with what `defaults` adds."""
        where = ("guard", name)
        if not name or len(name) > NAME_LENGTH_MAX or not name.isprintable():
            self.wrong(where, f"the name of a guard has 1 to {NAME_LENGTH_MAX} printable characters")
        objective: Objective | None = None
        numbers: dict[str, Any] = {}
        parts: dict[str, bool] = {}
        for each, value in self.table(where, table).items():
            path = (*where, each)
            if each == "objective":
                objective = self.objective(path, value)
            elif each == "keys_max":
                numbers |= self.value(path, value, int, as_path=each)
            elif each in PARTS:
                parts[each] = value is not False
                numbers |= self.part(path, value)
            else:
                self.unknown(path, _GUARD_KNOWS)
        found = self.places
        stated = {path: (*where, *path.split(".")) for path in (*numbers, *parts, "objective")} | {"": where}
        return GuardSettings(
            objective=objective,
            numbers=MappingProxyType(numbers),
            parts=MappingProxyType(parts),
            places=MappingProxyType({path: found[full] for path, full in stated.items() if full in found}),
        )

    def part(self, path: Path, value: object) -> dict[str, Any]:
        """The numbers of one part, by their path within the guard."""
        part = path[-1]
        _, optional = PARTS[part]
        numbers: dict[str, Any] = {}
        if isinstance(value, dict):
            for name, number in value.items():
                if name in KINDS[part]:
                    numbers |= self.value((*path, name), number, KINDS[part][name], as_path=f"{part}.{name}")
                else:
                    self.unknown((*path, name), KINDS[part])
        elif value is False and not optional:
            self.wrong(path, "cannot be switched off")
        elif not isinstance(value, bool):
            self.wrong(path, f"must be a table, true{' or false' if optional else ''}, not {kind_of(value)}")
        return numbers

    def value(self, path: Path, value: object, kind: type, *, as_path: str) -> dict[str, Any]:
        """One value under its path, if it is of the right kind; whether it is in range is for the policy to say."""
        if isinstance(value, int) and not -NUMBER_MAX < value < NUMBER_MAX:
            self.wrong(path, "is too large a number")
        elif kind is Mode:
            if isinstance(value, str) and value in MODES:
                return {as_path: MODES[value]}
            near = did_you_mean(value, MODES) if isinstance(value, str) else ""
            self.wrong(path, f"must be one of {', '.join(map(repr, MODES))}{near}")
        elif isinstance(value, _TAKES[kind]) and (kind is bool) == isinstance(value, bool) and not _is_nan(value):
            return {as_path: kind(value)}
        else:
            self.wrong(path, f"must be {_WANTED[kind]}, not {kind_of(value)}")
        return {}

    def objective(self, path: Path, value: object) -> Objective | None:
        """The objective a table states."""
        before = len(self.problems)
        numbers: dict[str, Any] = {}
        table = self.table(path, value)
        for name, number in table.items():
            if name in _OBJECTIVE_KNOWS:
                numbers |= self.value((*path, name), number, float, as_path=name)
            else:
                self.unknown((*path, name), _OBJECTIVE_KNOWS)
        if isinstance(value, dict):
            for problem in _mixed(table):
                self.wrong(path, problem)
        if len(self.problems) > before or self.is_full:
            return None
        named = "latency" if "latency" in numbers else "availability"
        share = numbers.pop(named)
        try:
            return Latency(share, **numbers) if named == "latency" else Availability(share, **numbers)
        except BadSettings as bad:
            for wrong, problem in bad.problems:
                name = wrong.rpartition(".")[2]
                self.wrong((*path, named if name == "share" else name), problem)
            return None

    def judge(self, name: str, settings: Settings) -> None:
        """Ranges and combinations, over all the tables that speak for one guard."""
        numbers, parts = settings.stated_for(name)
        whole: dict[str, Any] = {part: None for part, is_on in parts.items() if not is_on and PARTS[part][1]}
        problems: list[tuple[str, str]] = []
        for part in (part for part, is_on in parts.items() if is_on):
            stated = below(part, numbers)
            try:
                whole[part] = PARTS[part][0](**kindest(part, stated))
            except BadSettings as bad:
                # What is not stated was guessed, and is mentioned only where nothing stated is wrong by itself.
                own = [each for each in bad.problems if each[0].partition(".")[2] in stated]
                problems += own or bad.problems
        try:
            # Where the file is silent the written defaults stand in, also for a burst or for tries that the code may raise.
            policy = GuardPolicy(keys_max=numbers.get("keys_max", 1), **whole)
        except BadSettings as bad:
            problems += bad.problems
        else:
            found = conflicts(policy)
            problems += [(each.path, each.problem) for each in found if numbers.keys() >= {*each.between, *each.given}]
        for path, problem in problems:
            self.add(*settings.located(name, path, problem))

    def table(self, path: Path, value: object) -> dict[str, Any]:
        """A table; an empty one if something else stands there."""
        if isinstance(value, dict):
            return value
        self.wrong(path, f"must be a table, not {kind_of(value)}")
        return {}

    def unknown(self, path: Path, known: Iterable[str]) -> None:
        # Looking for the nearest name is slow, and nobody reads the hundred-and-first.
        near = "" if self.is_full else did_you_mean(path[-1], known)
        self.wrong(path, f"is not a setting{near}")

    def wrong(self, path: Path, problem: str) -> None:
        above = (path[:end] for end in range(len(path), 0, -1))
        place = next((self.places[each] for each in above if each in self.places), self.source)
        self.add(written(path), f"{problem} ({place})")

    def add(self, path: str, problem: str) -> None:
        # What is wrong in `defaults` is wrong for every guard, and said once.
        if not self.is_full and (path, problem) not in self.problems:
            self.problems.append((path, problem))
            if len(self.problems) == PROBLEMS_MAX:
                self.problems.append((self.source, f"and perhaps more; the first {PROBLEMS_MAX} are listed"))

    @property
    def is_full(self) -> bool:
        """Whether no further problem is listed."""
        return len(self.problems) >= PROBLEMS_MAX


_WANTED: Mapping[type, str] = {float: "a number", int: "a whole number", bool: "true or false"}
_TAKES: Mapping[type, tuple[type, ...]] = {float: (int, float), int: (int,), bool: (bool,)}


def _mixed(objective: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the choice of keys in an objective."""
    if ("availability" in objective) == ("latency" in objective):
        yield "states one of availability and latency"
    elif "latency" in objective and "under_s" not in objective:
        yield "latency needs under_s, in seconds"
    elif "availability" in objective and "under_s" in objective:
        yield "under_s belongs to latency, not to availability"


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and isnan(value)
