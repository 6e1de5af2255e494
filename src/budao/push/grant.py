"""What one client may do, by patterns of channels, and until when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from budao.model import Wall
from budao.push.patterns import any_holds, check_patterns


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Who it is, and what is allowed. Patterns are checked where they come in: see `Grant.of`."""

    subject: str = ""
    """Who it is; empty is nobody in particular."""
    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    presence: tuple[str, ...] = ()
    """Where it may ask who else is there."""
    operate: bool = False
    """Whether it may drain, promote and the like."""
    until: Wall | None = None
    """The session ends here; None for never."""

    @classmethod
    def of(
        cls,
        *,
        subject: str = "",
        subscribe: Iterable[object] = (),
        publish: Iterable[object] = (),
        presence: Iterable[object] = (),
        operate: bool = False,
        until: Wall | None = None,
    ) -> Self:
        """A grant of patterns that come from outside.

        Raises:  RemoteWireError for what is no pattern.
        """
        return cls(
            subject=subject,
            subscribe=check_patterns(subscribe),
            publish=check_patterns(publish),
            presence=check_patterns(presence),
            operate=operate,
            until=until,
        )

    @classmethod
    def nothing(cls) -> Self:
        """Somebody who may do nothing at all."""
        return cls()

    @classmethod
    def anonymous(cls, *, subscribe: Iterable[object] = (), publish: Iterable[object] = ()) -> Self:
        """Somebody without a token, where a gateway lets such in.

        Raises:  RemoteWireError for what is no pattern.
        """
        return cls.of(subject="anonymous", subscribe=subscribe, publish=publish)

    def may_subscribe(self, channel: str) -> bool:
        """Whether it may read a checked channel."""
        return any_holds(self.subscribe, channel)

    def may_publish(self, channel: str) -> bool:
        """Whether it may publish to a checked channel."""
        return any_holds(self.publish, channel)

    def may_see_presence(self, channel: str) -> bool:
        """Whether it may ask who else reads a checked channel."""
        return any_holds(self.presence, channel)

    def has_expired(self, now: Wall) -> bool:
        """Whether its time is over."""
        return self.until is not None and now >= self.until
