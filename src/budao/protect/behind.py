"""The function behind a guarded one, for which a rehearsal may put in another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet, ref


class Behind:
    """What a guarded function calls: the real function, or for a while its understudy.

    Compiled calls do not ask here; what they close over is exchanged, so that a call pays nothing for being rehearsable.
    """

    __slots__ = ("__weakref__", "_acting", "function", "guarded", "is_async", "is_stream")

    def __init__(self, function: Callable[..., Any], *, is_async: bool, is_stream: bool) -> None:
        self.function = function
        self.is_async = is_async
        self.is_stream = is_stream
        self.guarded: tuple[ref[Any], ...] = ()
        """The compiled calls around it, as long as somebody holds them."""
        self._acting = function

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Calls whoever acts now. For streams and races, which do not mind one call more."""
        return self._acting(*args, **kwargs)

    def act(self, understudy: Callable[..., Any] | None) -> None:
        """Puts a function in the place of the real one; None gives the place back."""
        self._acting = self.function if understudy is None else understudy
        for reference in self.guarded:
            holder = reference()
            if holder is not None:
                place = holder.__code__.co_freevars.index("_b_function")
                holder.__closure__[place].cell_contents = self._acting


Understudy = Callable[[Behind], Callable[..., Any]]
"""Gives what acts in the place of a function."""


class Cast:
    """Everything that one guard protects and that somebody still holds."""

    __slots__ = ("_members", "_understudy")

    def __init__(self) -> None:
        self._members: WeakSet[Behind] = WeakSet()
        self._understudy: Understudy | None = None

    @property
    def is_rehearsing(self) -> bool:
        """Whether the real functions are away."""
        return self._understudy is not None

    def join(self, behind: Behind) -> None:
        """Takes one more in; during a rehearsal its understudy acts at once."""
        self._members.add(behind)
        if self._understudy is not None:
            behind.act(self._understudy(behind))

    def rehearse(self, understudy: Understudy | None) -> None:
        """Gives everybody an understudy, or with None the place back."""
        self._understudy = understudy
        for behind in tuple(self._members):
            behind.act(None if understudy is None else understudy(behind))
