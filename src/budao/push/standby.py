"""Second, quiet connections: which sessions have one here, and what happens when one is promoted.

A client may keep a quiet connection to another gateway, and go on there within one round trip when its home falls silent. A
gateway knows both kinds: homes, which are served, and standbys, which only wait. Nothing is told between gateways: the client
holds both ends and its places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from budao.model import Checks
from budao.push.leaving import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class StandbyPolicy:
    """How many quiet connections a gateway keeps.

    Raises:  BadSettings with every problem.
    """

    standbys_max: int = 20_000
    """Quiet connections kept here; further ones are refused (4200). All may be promoted at once, when a gateway dies."""
    per_session_max: int = 2
    """Of one session."""

    def __post_init__(self) -> None:
        check = Checks("standby")
        check.count("standbys_max", self.standbys_max, 0, 1_000_000)
        check.count("per_session_max", self.per_session_max, 1, 16)
        check.done()


class Kept(Enum):
    """What a connection of a session is here."""

    HOME = "home"
    STANDBY = "standby"


@dataclass(frozen=True, slots=True)
class Replace:
    """Effect: another connection of the same session is its home now. Say `Bye` 4104, and end this one."""

    key: int


@dataclass(frozen=True, slots=True)
class AskToPromote:
    """Effect: tell the client to promote its standby.

    On the quiet connection: a `Standby` frame without a URL. On the home: a `Move` with the reason `promote` and the URL "",
    which means the standby it has.
    """

    key: int
    on: Kept


@dataclass(frozen=True, slots=True)
class Advise:
    """Effect: tell the client with a `Standby` frame where to keep a quiet connection, with a ticket for it."""

    key: int
    target: Target


@dataclass(frozen=True, slots=True)
class NotKept:
    """A connection is not kept, or a request comes to nothing: a word for programs, a sentence for people."""

    why: str
    happened: str


Effect = Replace | AskToPromote | Advise


@dataclass(frozen=True, slots=True)
class StandbyCounts:
    """How things stand, and what happened since the gateway began."""

    homes: int
    standbys: int
    promoted: int
    replaced: int
    refused: int
    advised: int


Owned = tuple[str, str]
"""A session and its subject."""


class Standbys:
    """The sessions of one gateway, with their connections by a number of ours.

    A session belongs to the subject of its grant: who knows the name of another's session cannot take its place.

    Cost:    two entries of a dict for each connection; every step is a look-up, but for `promote`.
    """

    def __init__(self, policy: StandbyPolicy | None = None) -> None:
        self.policy = StandbyPolicy() if policy is None else policy
        self._homes: dict[Owned, int] = {}
        self._quiet: dict[Owned, tuple[int, ...]] = {}
        self._of: dict[int, tuple[Owned, Kept]] = {}
        self._quiet_count = 0
        self._promoted = self._replaced = self._refused = self._advised = 0
        self._given: dict[str, int] = {}
        """Advice given, by the name of the target."""

    def counts(self) -> StandbyCounts:
        """How things stand."""
        return StandbyCounts(
            len(self._homes), self._quiet_count, self._promoted, self._replaced, self._refused, self._advised
        )

    def home(self, session: str, subject: str = "") -> int | None:
        """The connection that serves a session here."""
        return self._homes.get((session, subject))

    def standbys(self, session: str, subject: str = "") -> tuple[int, ...]:
        """The quiet connections of a session here, the oldest first."""
        return self._quiet.get((session, subject), ())

    def opened(
        self, key: int, session: str, subject: str = "", *, is_standby: bool = False
    ) -> tuple[Effect, ...] | NotKept:
        """A connection said hello. A home takes the place of an older one here; a standby may find no room."""
        assert key not in self._of, "a connection says hello once"
        owned = (session, subject)
        if not is_standby:
            return self._settle(key, owned)
        mine = self._quiet.get(owned, ())
        if len(mine) >= self.policy.per_session_max:
            # The oldest one gives way: whoever opens a new one has surely lost it.
            replaced = mine[0]
            self.gone(replaced)
            self._keep(key, owned)
            self._replaced += 1
            return (Replace(replaced),)
        if self._quiet_count >= self.policy.standbys_max:
            self._refused += 1
            return NotKept("full", f"{self._quiet_count} quiet connections are kept here, and that is the bound")
        self._keep(key, owned)
        return ()

    def promoted(self, key: int) -> tuple[Effect, ...]:
        """The client promoted a quiet connection: it is its home from now on. Said again, it changes nothing."""
        owned, kept = self._of[key]
        if kept is Kept.HOME:
            return ()
        self.gone(key)
        self._promoted += 1
        return self._settle(key, owned)

    def gone(self, key: int) -> None:
        """A connection ended. One that was never kept is none of ours."""
        found = self._of.pop(key, None)
        if found is None:
            return
        owned, kept = found
        if kept is Kept.HOME:
            del self._homes[owned]
            return
        self._quiet_count -= 1
        rest = tuple(each for each in self._quiet[owned] if each != key)
        if rest:
            self._quiet[owned] = rest
        else:
            del self._quiet[owned]

    def promote(self, session: str) -> tuple[Effect, ...] | NotKept:
        """An operator wants a session to go on where its standby is. The quiet connection is the surer way to tell it."""
        quiet = [AskToPromote(keys[-1], Kept.STANDBY) for (each, _), keys in self._quiet.items() if each == session]
        homes = [AskToPromote(key, Kept.HOME) for (each, _), key in self._homes.items() if each == session]
        if quiet or homes:
            return tuple(quiet or homes)
        return NotKept("unknown-session", "no connection of this session is here; ask the gateway of its standby")

    def advise(self, key: int, targets: Sequence[Target]) -> tuple[Effect, ...] | NotKept:
        """A client wants to know where to keep its standby: the gateway that has the most room beside what it was given."""
        found = self._of.get(key)
        if found is None or found[1] is not Kept.HOME:
            return NotKept("no-home", "only the home of a session says where to keep a standby")
        if not targets:
            return NotKept("no-peers", "there is no other gateway")
        given = self._given
        target = min(targets, key=lambda each: (given.get(each.name, 0) + 1) / max(each.weight, 1e-9))
        if len(given) > 2 * len(targets) + 16:
            self._given = given = {each.name: given.get(each.name, 0) for each in targets}
        given[target.name] = given.get(target.name, 0) + 1
        self._advised += 1
        return (Advise(key, target),)

    def _settle(self, key: int, owned: Owned) -> tuple[Effect, ...]:
        before = self._homes.get(owned)
        self._homes[owned] = key
        self._of[key] = (owned, Kept.HOME)
        if before is None:
            return ()
        del self._of[before]
        self._replaced += 1
        return (Replace(before),)

    def _keep(self, key: int, owned: Owned) -> None:
        self._of[key] = (owned, Kept.STANDBY)
        self._quiet[owned] = (*self._quiet.get(owned, ()), key)
        self._quiet_count += 1
