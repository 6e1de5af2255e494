"""A channel that is followed here: who flows, who lags and from where, and who waits for its beginning to be known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from budao.push import ChannelPolicy, Message, Position, Problem, Ring

if TYPE_CHECKING:
    from budao.aio.gateway.connection import Connection
    from budao.aio.gateway.encoding import Encoding

LEFT: Final = Problem(why="unsubscribed", happened="it was unsubscribed before its beginning was known")
"""What is told of a wish that was given up."""

Done = Callable[[Position | Problem], None]


class Lag:
    """Where one reader of a channel is that does not flow."""

    __slots__ = ("is_reading", "is_standing", "mark", "missing", "place")

    def __init__(self, place: Position, mark: int) -> None:
        self.place = place
        self.mark = mark
        """What the ring had counted at that place; for one older than the ring, what it is judged by."""
        self.missing: Position | None = None
        """It was too slow, and from here up to `place` it gets nothing; not told yet."""
        self.is_reading = False
        """The log was asked for what follows."""
        self.is_standing = False
        """It is a standby: it keeps the channel followed, and gets nothing."""


@dataclass(slots=True)
class Waiting:
    """Somebody who subscribed before it was known where the channel stands."""

    after: Position | None
    last: int
    is_standing: bool
    done: Done


class Channel:
    """A channel that is followed here."""

    __slots__ = (
        "ahead",
        "early",
        "early_count",
        "flowing",
        "idle_since",
        "lagging",
        "least_mark",
        "name",
        "policy",
        "ring",
        "told_at",
        "waiting",
    )

    def __init__(self, name: str, policy: ChannelPolicy) -> None:
        self.name = name
        self.policy = policy
        self.ring: Ring | None = None
        """None until the log has said where it stands."""
        self.early: list[Sequence[Message]] = []
        """News that came before that, as they came."""
        self.early_count = 0
        self.waiting: dict[Connection, Waiting] = {}
        self.flowing: dict[Encoding, dict[Connection, Callable[[bytes], None]]] = {}
        self.lagging: dict[Connection, Lag] = {}
        self.ahead: dict[Connection, Lag] = {}
        """Those of them who know more than our feed has told: from the log, or from another gateway."""
        self.least_mark = 0
        """No lagging reader is judged by less."""
        self.told_at = 0.0
        """When those who flow last heard something."""
        self.idle_since: float | None = None

    @property
    def is_idle(self) -> bool:
        return not (self.flowing or self.lagging or self.waiting)

    @property
    def readers(self) -> int:
        """How many flow."""
        return sum(map(len, self.flowing.values()))
