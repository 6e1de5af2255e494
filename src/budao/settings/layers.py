"""Settings as a value: what a file says about each guard, laid over the policy a guard would have without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from budao.model import PARTS, BadSettings, GuardPolicy
from budao.settings.conflicts import conflicts
from budao.settings.schema import NEEDED
from budao.settings.writing import written
from budao.slo import Objective

EVERY = "defaults"
"""The table that speaks for every guard; no guard can have its own table under this name."""

SOURCE = "budao.toml"
"""What a settings text is called where nobody says otherwise."""


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """What one table of the file states. Nothing is filled in here."""

    objective: Objective | None = None
    numbers: Mapping[str, Any] = field(default_factory=_nothing)
    """By path, such as "breaker.rest_s" or "keys_max"."""
    parts: Mapping[str, bool] = field(default_factory=_nothing)
    """Parts the table switches on or off. A part with a table of its own is on."""
    places: Mapping[str, str] = field(default_factory=_nothing)
    """Where each of these is stated, such as "budao.toml, line 3"; "" is the table itself."""

    def place_of(self, path: str) -> str | None:
        """Where `path` is stated, or the nearest one above it."""
        part = path.partition(".")[0]
        return next((self.places[each] for each in (path, part, "") if each in self.places), None)


NOTHING_SAID = GuardSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A whole settings file, or several laid over one another, checked. `Settings()` is the empty file, which changes nothing."""

    guards: Mapping[str, GuardSettings] = field(default_factory=_nothing)
    """By name; "defaults" speaks for every guard that does not say otherwise."""
    source: str = SOURCE

    def objective_for(self, name: str) -> Objective | None:
        """The objective the file states for this guard; None leaves the one in the code."""
        stated = [layer.objective for layer in self._layers(name) if layer.objective is not None]
        return stated[-1] if stated else None

    def policy_for(self, name: str, base: GuardPolicy) -> GuardPolicy:
        """What the file makes of `base`, the policy that the objective or the code gives.

        Raises: BadSettings with every problem, if the two cannot be in force together.
        """
        numbers, parts = self.stated_for(name)
        built: dict[str, Any] = {"keys_max": numbers.get("keys_max", base.keys_max)}
        problems: list[tuple[str, str]] = []
        for part in PARTS:
            try:
                built[part] = _part(part, getattr(base, part), parts.get(part), below(part, numbers))
            except BadSettings as bad:
                problems += bad.problems
        if not problems:
            policy = GuardPolicy(**built)
            problems += [
                (conflict.path, conflict.problem)
                for conflict in conflicts(policy)
                if any(path in numbers for path in conflict.between)
            ]
            if not problems:
                return policy
        raise BadSettings([self.located(name, path, problem) for path, problem in problems])

    def reasons_for(self, name: str) -> Mapping[str, str]:
        """For every number, part and objective the file decides: the sentence that says where."""
        reasons: dict[str, str] = {}
        for layer in self._layers(name):
            reasons |= {
                part: f"switched {'on' if is_on else 'off'} in {self._place(layer, part)}"
                for part, is_on in layer.parts.items()
            }
            reasons |= {path: f"set in {self._place(layer, path)}" for path in layer.numbers}
            if layer.objective is not None:
                reasons["objective"] = f"set in {self._place(layer, 'objective')}"
        _, parts = self.stated_for(name)
        off = {part for part, is_on in parts.items() if not is_on}
        return {path: reason for path, reason in reasons.items() if path in off or path.partition(".")[0] not in off}

    def unclaimed(self, names: Iterable[str]) -> tuple[str, ...]:
        """A sentence for each guard in the file that is none of `names`: most often a name with a slip in it."""
        known = sorted(set(names))
        strangers = [each for each in self.guards if each != EVERY and each not in set(known)]
        return tuple(
            f"{self._place(self.guards[each], '')}: no guard is named {each!r}{did_you_mean(each, known)}"
            for each in strangers
        )

    def stated_for(self, name: str) -> tuple[dict[str, Any], dict[str, bool]]:
        """The numbers and the switched parts of all tables that speak for this guard, the more special one last."""
        numbers: dict[str, Any] = {}
        parts: dict[str, bool] = {}
        for layer in self._layers(name):
            numbers |= layer.numbers
            parts |= layer.parts
        return numbers, parts

    def located(self, name: str, path: str, problem: str) -> tuple[str, str]:
        """A problem with its full path and its line: of the number, or else of its part, or else of the guard."""
        titled = self._titled(name)
        part = path.partition(".")[0]
        nearest = [each for wanted in ("", part, path) for each in titled if wanted in each[1].places]
        title, layer = nearest[-1] if nearest else (name, NOTHING_SAID)
        return written(("guard", title, *path.split("."))), f"{problem} ({self._place(layer, path)})"

    def _titled(self, name: str) -> list[tuple[str, GuardSettings]]:
        titles = (EVERY,) if name == EVERY else (EVERY, name)
        return [(title, self.guards[title]) for title in titles if title in self.guards]

    def _layers(self, name: str) -> list[GuardSettings]:
        return [layer for _, layer in self._titled(name)]

    def _place(self, layer: GuardSettings, path: str) -> str:
        return layer.place_of(path) or self.source


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name nobody knows: the nearest one that somebody does."""
    near = get_close_matches(name[:64], list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def below(part: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one part, by their names in its policy."""
    prefix = f"{part}."
    return {path.removeprefix(prefix): value for path, value in numbers.items() if path.startswith(prefix)}


def _part(part: str, base: Any, is_on: bool | None, numbers: dict[str, Any]) -> object:
    """One part of the policy; None if it is off."""
    if is_on is False or (base is None and not is_on):
        return None
    if base is not None:
        return replace(base, **numbers) if numbers else base
    missing = [name for name in NEEDED[part] if name not in numbers]
    if missing:
        raise BadSettings([(f"{part}.{name}", "is needed to switch this part on") for name in missing])
    return PARTS[part][0](**numbers)
