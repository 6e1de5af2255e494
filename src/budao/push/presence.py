"""Who reads a channel, here and at other gateways: what is shared with them, and what readers are told of it.

Each gateway has a *part*: the names of its own readers. A channel's members are all parts together; a name counts once, however
many connections have it. Changes are gathered for a moment, and who leaves is told only once it has stayed away for another:
coming back from a broken connection is no news. Beyond a bound there are no more names, only a count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from budao.model import Checks, Mono


@dataclass(frozen=True, slots=True, kw_only=True)
class PresencePolicy:
    """How presence is kept and told.

    Raises:  BadSettings with every problem.
    """

    members_max: int = 1_000
    """Names kept of each channel; beyond it, members are only counted."""
    tell_s: float = 0.1
    """Changes of a channel are gathered for so long before its readers are told."""
    away_s: float = 0.5
    """Who is away for less has not left."""
    share_s: float = 0.2
    """A channel's part is shared with other gateways at most this often."""
    lease_s: float = 10.0
    """The members of a gateway that is gone have left after this."""
    linger_s: float = 5.0
    """A channel that nobody asks for any more is watched for so long."""

    def __post_init__(self) -> None:
        check = Checks("presence")
        check.count("members_max", self.members_max, 0, 10_000)
        check.number("tell_s", self.tell_s, 0.0, 60.0)
        check.number("away_s", self.away_s, 0.0, 600.0)
        check.number("share_s", self.share_s, 0.0, 60.0)
        check.number("lease_s", self.lease_s, 1.0, 3_600.0)
        check.number("linger_s", self.linger_s, 0.0, 3_600.0)
        check.done()


@dataclass(frozen=True, slots=True)
class PresencePart:
    """The readers that one gateway has."""

    names: tuple[str, ...] = ()
    """In order of their coming."""
    others: int = 0
    """Without a name, or beyond the bound."""


@dataclass(frozen=True, slots=True)
class Members:
    """Everybody who is known to read a channel."""

    names: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class ShareMembers:
    """Effect: let other gateways know our part; None if nobody is here any more."""

    channel: str
    part: PresencePart | None


@dataclass(frozen=True, slots=True)
class TellMembers:
    """Effect: tell the readers of a channel who came and who left since they were told last."""

    channel: str
    joined: tuple[str, ...]
    left: tuple[str, ...]
    count: int


PresenceEffect = ShareMembers | TellMembers


@dataclass(slots=True)
class _Roll:
    """One channel."""

    own: dict[str, int] = field(default_factory=dict)
    """Connections by name; those without one are under the empty name."""
    parts: dict[str, PresencePart] = field(default_factory=dict)
    """Of other gateways."""
    told: dict[str, Mono | None] = field(default_factory=dict)
    """Names that were told, and since when they are away; None for those who are there."""
    count: int = 0
    tell_at: Mono | None = None
    share_at: Mono | None = None
    shared_at: Mono | None = None
    shared: PresencePart | None = None


class Attendance:
    """The channels of one gateway. Reading never changes it; `wake_at` says when there is something to do.

    Cost:    a coming or going costs two dictionary lookups; telling costs as much as the channel has names.
    """

    def __init__(self, policy: PresencePolicy | None = None) -> None:
        self.policy = PresencePolicy() if policy is None else policy
        self._rolls: dict[str, _Roll] = {}
        self._due: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._rolls)

    # ----------------------------------------------------------------------------------------------- what happens

    def enter(self, channel: str, name: str, now: Mono) -> None:
        """A connection reads a channel here. An empty name is only counted."""
        roll = self._rolls.setdefault(channel, _Roll())
        roll.own[name] = roll.own.get(name, 0) + 1
        if not name or roll.own[name] == 1:
            self._own_changed(channel, roll, now)

    def depart(self, channel: str, name: str, now: Mono) -> None:
        """It reads it no longer."""
        roll = self._rolls.get(channel)
        if roll is None or name not in roll.own:
            return
        roll.own[name] -= 1
        if not roll.own[name]:
            del roll.own[name]
        if not name or name not in roll.own:
            self._own_changed(channel, roll, now)

    def heard(self, channel: str, gateway: str, part: PresencePart | None, now: Mono) -> None:
        """Another gateway's part has changed, or is gone."""
        roll = self._rolls.get(channel)
        if roll is None:
            if part is None:
                return
            roll = self._rolls[channel] = _Roll()
        if part is None:
            roll.parts.pop(gateway, None)
        else:
            roll.parts[gateway] = part
        self._changed(channel, roll, now)

    def forget_others(self, channel: str, now: Mono, keep: Iterable[str] = ()) -> None:
        """What other gateways say of a channel is not known any more, except of these."""
        kept = set(keep)
        roll = self._rolls.get(channel)
        if roll is not None and not roll.parts.keys() <= kept:
            roll.parts = {gateway: part for gateway, part in roll.parts.items() if gateway in kept}
            self._changed(channel, roll, now)

    def share_again(self, now: Mono) -> None:
        """What was shared is lost."""
        for channel, roll in self._rolls.items():
            roll.shared = None
            if roll.own:
                roll.share_at = now
                self._due[channel] = None

    # ------------------------------------------------------------------------------------------------ what is

    def members(self, channel: str) -> Members:
        """Who is there now."""
        roll = self._rolls.get(channel)
        if roll is None:
            return Members()
        names, count = self._union(roll)
        return Members(tuple(names), count)

    def told(self, channel: str) -> Members:
        """What readers were told so far: where somebody begins who reads from now on."""
        roll = self._rolls.get(channel)
        return Members() if roll is None else Members(tuple(roll.told), roll.count)

    # ---------------------------------------------------------------------------------------------------- time

    def wake_at(self) -> Mono | None:
        """When `wake` has something to do."""
        instants = [
            at
            for channel in self._due
            for at in (self._rolls[channel].tell_at, self._rolls[channel].share_at)
            if at is not None
        ]
        return min(instants, default=None)

    def wake(self, now: Mono) -> tuple[PresenceEffect, ...]:
        """What is due."""
        effects: list[PresenceEffect] = []
        for channel in tuple(self._due):
            roll = self._rolls[channel]
            if roll.share_at is not None and roll.share_at <= now:
                roll.share_at, roll.shared_at = None, now
                part = self.part(channel)
                if part != roll.shared:
                    roll.shared = part
                    effects.append(ShareMembers(channel, part))
            if roll.tell_at is not None and roll.tell_at <= now:
                effects += self._tell(channel, roll, now)
            if roll.tell_at is None and roll.share_at is None:
                del self._due[channel]
                if not (roll.own or roll.parts or roll.told):
                    del self._rolls[channel]
        return tuple(effects)

    # ------------------------------------------------------------------------------------------------- helpers

    def part(self, channel: str) -> PresencePart | None:
        """Our own part; None if nobody is here."""
        roll = self._rolls.get(channel)
        if roll is None or not roll.own:
            return None
        bound = self.policy.members_max
        names = [name for name in roll.own if name]
        return PresencePart(tuple(names[:bound]), roll.own.get("", 0) + max(0, len(names) - bound))

    def _own_changed(self, channel: str, roll: _Roll, now: Mono) -> None:
        if roll.share_at is None:
            roll.share_at = now if roll.shared_at is None else Mono(max(now, roll.shared_at + self.policy.share_s))
        self._changed(channel, roll, now)

    def _changed(self, channel: str, roll: _Roll, now: Mono) -> None:
        at = Mono(now + self.policy.tell_s)
        if roll.tell_at is None or roll.tell_at > at:
            roll.tell_at = at
        self._due[channel] = None

    def _union(self, roll: _Roll) -> tuple[dict[str, None], int]:
        names: dict[str, None] = {name: None for name in roll.own if name}
        others = roll.own.get("", 0)
        for part in roll.parts.values():
            names.update(dict.fromkeys(part.names))
            others += part.others
        count = len(names) + others
        if len(names) > self.policy.members_max:
            names = dict.fromkeys(tuple(names)[: self.policy.members_max])
        return names, count

    def _tell(self, channel: str, roll: _Roll, now: Mono) -> list[PresenceEffect]:
        names, count = self._union(roll)
        left: list[str] = []
        next_at: Mono | None = None
        for name, since in roll.told.items():
            if name in names:
                roll.told[name] = None
                continue
            gone_at = now if since is None else since
            roll.told[name] = gone_at
            until = Mono(gone_at + self.policy.away_s)
            if until <= now:
                left.append(name)
            elif next_at is None or until < next_at:
                next_at = until
        for name in left:
            del roll.told[name]
        room = self.policy.members_max - len(roll.told)
        joined = [name for name in names if name not in roll.told][: max(0, room)]
        roll.told.update(dict.fromkeys(joined))
        count += sum(since is not None for since in roll.told.values())  # who may come back is still counted
        roll.tell_at = next_at
        if not joined and not left and count == roll.count:
            return []
        roll.count = count
        return [TellMembers(channel, tuple(joined), tuple(left), count)]
