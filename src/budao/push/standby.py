"""Second, quiet connections: which sessions have one here, and what happens when one is promoted.

A client may keep a quiet connection to another gateway, and go on there within one round trip when its home falls silent. A
gateway knows both kinds: homes, which are served, and standbys, which only wait. Nothing is told between gateways: the client
holds both ends and its places.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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

    key: Hashable


@dataclass(frozen=True, slots=True)
class AskToPromote:
    """Effect: tell the client to promote its standby.

    On the quiet connection: a `Standby` frame without a URL. On the home: a `Move` with the reason `promote` and the URL "",
    which means the standby it has.
    """

    key: Hashable
    on: Kept


@dataclass(frozen=True, slots=True)
class Advise:
    """Effect: tell the client with a `Standby` frame where to keep a quiet connection, with a ticket for it."""

    key: Hashable
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
    """The sessions of one gateway, with their connections, which are whatever names them to the shell.

    A session belongs to the subject of its grant: who knows the name of another's session cannot take its place.

    Cost:    an entry of a dict for each connection; every step is a look-up, but for `promote` and `advise`.
    """

    def __init__(self, policy: StandbyPolicy | None = None) -> None:
        self.policy = StandbyPolicy() if policy is None else policy
        self._homes: dict[Owned, Hashable] = {}
        self._quiet: dict[Owned, tuple[Hashable, ...]] = {}
        self._quiet_count = 0
        self._promoted = self._replaced = self._refused = self._advised = 0
        self._given: dict[str, int] = {}
        """Advice given, by the name of the target."""

    def counts(self) -> StandbyCounts:
        """How things stand."""
        return StandbyCounts(
            len(self._homes), self._quiet_count, self._promoted, self._replaced, self._refused, self._advised
        )

    def home(self, session: str, subject: str = "") -> Hashable | None:
        """The connection that serves a session here."""
        return self._homes.get((session, subject))

    def standbys(self, session: str, subject: str = "") -> tuple[Hashable, ...]:
        """The quiet connections of a session here, the oldest first."""
        return self._quiet.get((session, subject), ())

    def opened(
        self, key: Hashable, session: str, subject: str = "", *, is_standby: bool = False
    ) -> tuple[Effect, ...] | NotKept:
        """A connection said hello. A home takes the place of an older one here; a standby may find no room."""
        owned = (session, subject)
        if not is_standby:
            return self._settle(key, owned)
        mine = self._quiet.get(owned, ())
        if len(mine) >= self.policy.per_session_max:
            # The oldest one gives way: whoever opens a new one has surely lost it.
            replaced = mine[0]
            self.gone(replaced, session, subject)
            self._keep(key, owned)
            self._replaced += 1
            return (Replace(replaced),)
        if self._quiet_count >= self.policy.standbys_max:
            self._refused += 1
            return NotKept("full", f"{self._quiet_count} quiet connections are kept here, and that is the bound")
        self._keep(key, owned)
        return ()

    def promoted(self, key: Hashable, session: str, subject: str = "") -> tuple[Effect, ...]:
        """The client promoted a quiet connection: it is its home from now on. Said again, it changes nothing."""
        owned = (session, subject)
        if key not in self._quiet.get(owned, ()):
            return ()
        self.gone(key, session, subject)
        self._promoted += 1
        return self._settle(key, owned)

    def gone(self, key: Hashable, session: str, subject: str = "") -> None:
        """A connection ended. One that was replaced, or never kept, is none of ours."""
        owned = (session, subject)
        if self._homes.get(owned) == key:
            del self._homes[owned]
            return
        mine = self._quiet.get(owned, ())
        rest = tuple(each for each in mine if each != key)
        self._quiet_count -= len(mine) - len(rest)
        if rest:
            self._quiet[owned] = rest
        else:
            self._quiet.pop(owned, None)

    def promote(self, session: str) -> tuple[Effect, ...] | NotKept:
        """An operator wants a session to go on where its standby is. The quiet connection is the surer way to tell it."""
        quiet = [AskToPromote(keys[-1], Kept.STANDBY) for (each, _), keys in self._quiet.items() if each == session]
        homes = [AskToPromote(key, Kept.HOME) for (each, _), key in self._homes.items() if each == session]
        if quiet or homes:
            return tuple(quiet or homes)
        return NotKept("unknown-session", "no connection of this session is here; ask the gateway of its standby")

    def advise(self, session: str, targets: Sequence[Target]) -> tuple[Effect, ...] | NotKept:
        """An operator wants a session to keep its standby elsewhere: where there is the most room beside what was given so far.

        Unasked, a client chooses for itself among the peers that its welcome named.
        """
        homes = [key for (each, _), key in self._homes.items() if each == session]
        if not homes:
            return NotKept("no-home", "this session has no home here, and only its home says where to keep a standby")
        if not targets:
            return NotKept("no-peers", "there is no such gateway among the targets of this one")
        given = self._given
        target = min(targets, key=lambda each: (given.get(each.name, 0) + 1) / max(each.weight, 1e-9))
        if len(given) > 2 * len(targets) + 16:
            self._given = given = {each.name: given.get(each.name, 0) for each in targets}
        given[target.name] = given.get(target.name, 0) + len(homes)
        self._advised += len(homes)
        return tuple(Advise(key, target) for key in homes)

    def _settle(self, key: Hashable, owned: Owned) -> tuple[Effect, ...]:
        before = self._homes.get(owned)
        self._homes[owned] = key
        if before is None or before == key:
            return ()
        self._replaced += 1
        return (Replace(before),)

    def _keep(self, key: Hashable, owned: Owned) -> None:
        self._quiet[owned] = (*self._quiet.get(owned, ()), key)
        self._quiet_count += 1
