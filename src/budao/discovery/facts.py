"""What a source says about a service: the facts a directory lives on.

A source hides how it resumes, lists again and compares: it says the whole truth once (`Listed`), then what changed, and
when it can no longer say (`WentAway`). One that has several to ask says in its lists which part is old. After it went away
it says the whole truth again, or goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from budao.discovery.instance import Instance


@dataclass(frozen=True, slots=True)
class StalePart:
    """Of what is listed, the part that nobody can be asked about at present, and why."""

    problem: str
    ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Listed:
    """Fact: these are all instances of the service at this revision, as far as the source can say."""

    revision: int
    instances: tuple[Instance, ...]
    stale: StalePart | None = None
    """What of it is only as it was, for a source that has several to ask; None if nothing is."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Fact: at this revision some instances were put, and some ids are gone."""

    revision: int
    put: tuple[Instance, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WentAway:
    """Fact: the source cannot be asked at present, and why. Said again whenever the reason changes."""

    problem: str


@dataclass(frozen=True, slots=True)
class CameBack:
    """Fact: the source can be asked again, and nothing was missed."""


Sighting = Listed | Changed | WentAway | CameBack
