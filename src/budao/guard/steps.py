"""Counting on which rung of the ladder calls are answered."""

from __future__ import annotations

from typing import Any

from budao.guard.events import Descended, words_of
from budao.guard.home import Home
from budao.guard.ladder import Ladder, Remembered, Rung, key_of
from budao.model import CallRefused, context


class Steps:
    """What the shells of one ladder share: when to go down, and what to count on the way."""

    __slots__ = ("_home", "_remembered")

    def __init__(self, home: Home, ladder: Ladder) -> None:
        cache = ladder.cache.answer if isinstance(ladder.cache, Rung) else ladder.cache
        self._home = home
        self._remembered = cache if isinstance(cache, Remembered) else None

    def must_raise(self, error: Exception) -> bool:
        """Whether the error is an answer, such as "not found", that no rung may paper over."""
        return not isinstance(error, CallRefused) and not self._home.is_failure(error)

    def direct(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any], now: float) -> None:
        """The call itself answered: remembers the answer if the ladder has a memory."""
        home = self._home
        with home.lock:
            home.rungs["direct"] = home.rungs.get("direct", 0) + 1
            if self._remembered is not None:
                key = key_of(args, kwargs)
                try:
                    if key is not None:
                        self._remembered.put(key, result, now)
                except Exception:  # noqa: BLE001 - arguments that cannot be compared must not fail the call
                    home.inner_errors += 1

    def served(self, rung: str, error: Exception, now: float) -> None:
        """A rung answered."""
        home = self._home
        with home.lock:
            home.rungs[rung] = home.rungs.get(rung, 0) + 1
            home.note(Descended(home.name, "", now, rung, words_of(error), context.trace_id()))
        home.tell()

    def broke(self, rung: str, trouble: BaseException, error: Exception) -> None:
        """A rung raised: counted, and said on the error that the caller may still get to see."""
        home = self._home
        with home.lock:
            home.rungs["broken"] = home.rungs.get("broken", 0) + 1
        error.add_note(f"the {rung} rung failed as well: {words_of(trouble)}")
