"""Calls of a guard that end as a test orders."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from budao.model import REFUSED_AS, Refusal, TimedOut, context
from budao.protect import Behind, Guard
from budao.testkit.endings import REAL, Slow, error_of, refusal_of


class Rehearsal:
    """What was ordered, and how many tries have ended so."""

    def __init__(self, guard: Guard, endings: tuple[Any, ...]) -> None:
        self._guard = guard
        self._endings = endings
        self._lock = threading.Lock()
        self.tries = 0
        """Tries that have ended as ordered; a call that is retried or hedged makes several."""

    def gate(self) -> Refusal | None:
        """Refuses the try if a refusal is what it was ordered."""
        with self._lock:
            refusal = refusal_of(self._due())
            if refusal is not None:
                self.tries += 1
        return refusal

    def understudy(self, behind: Behind) -> Callable[..., Any]:
        """What stands in for one function."""
        if behind.is_stream:
            return self._async_stream(behind) if behind.is_async else self._stream(behind)
        return self._async_call(behind) if behind.is_async else self._call(behind)

    def _call(self, behind: Behind) -> Callable[..., Any]:
        def acting(*args: Any, **kwargs: Any) -> Any:
            ending = self._act(is_async=False)
            return behind.function(*args, **kwargs) if ending is REAL else ending

        return acting

    def _async_call(self, behind: Behind) -> Callable[..., Any]:
        async def acting(*args: Any, **kwargs: Any) -> Any:
            ending = self._act(is_async=True)
            return await behind.function(*args, **kwargs) if ending is REAL else ending

        return acting

    def _stream(self, behind: Behind) -> Callable[..., Any]:
        def acting(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            ending = self._act(is_async=False)
            return (yield from behind.function(*args, **kwargs) if ending is REAL else ending)

        return acting

    def _async_stream(self, behind: Behind) -> Callable[..., Any]:
        async def acting(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            ending = self._act(is_async=True)
            if ending is REAL:
                async for item in behind.function(*args, **kwargs):
                    yield item
            else:
                for item in ending:
                    yield item

        return acting

    def _due(self) -> Any:
        return self._endings[min(self.tries, len(self._endings) - 1)]

    def _act(self, *, is_async: bool) -> Any:
        """Ends one try: raises, or gives the answer, or REAL."""
        with self._lock:
            ending = self._due()
            self.tries += 1
        name, timeout = self._guard.name, self._guard.policy.timeout
        if isinstance(ending, Slow):
            self._pass(ending, is_async=is_async)
            ending = ending.then
        refusal = refusal_of(ending)
        if refusal is not None:  # another thread took the ending that the gate saw; a refusal further in is the nearest
            raise REFUSED_AS[refusal.why](name, refusal)
        error = error_of(ending, name, timeout.call_s if timeout else 0.0)
        if error is not None:
            raise error
        return ending

    def _pass(self, slow: Slow, *, is_async: bool) -> None:
        left_s = context.deadline.get() - slow.clock()
        if is_async and slow.took_s > left_s:
            slow.clock.advance(max(0.0, left_s))
            raise TimedOut(self._guard.name, max(0.0, left_s))
        slow.clock.advance(slow.took_s)


@contextmanager
def forced(guard: Guard, *endings: Any) -> Iterator[Rehearsal]:
    """Inside the block, every try of this guard's calls ends as ordered; outside of it nothing has changed.

    An ending is a kind of refusal (`BreakerOpen`, `NoRoom`, a `Why`, a `Refusal`), an exception or a kind of one
    (`TimedOut`), `Slow`, `REAL`, or else the value to return. A stream gives the items of the value. Of several endings
    each try takes the next, and the last one stays. A block of code (`guard.block`) can be refused but not replaced.

    Only the other side is pretended: the guard counts, retries, opens its breaker and goes down its ladder as in life.

    Raises: ValueError without an ending, RuntimeError inside another rehearsal of the same guard.
    """
    if not endings:
        raise ValueError("say how calls shall end, such as forced(guard, TimedOut)")
    rehearsal = Rehearsal(guard, endings)
    end = guard.rehearse(rehearsal.gate, rehearsal.understudy)
    try:
        yield rehearsal
    finally:
        end()
