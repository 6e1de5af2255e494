"""The call a server works on, for whoever makes it wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter

from budao.discovery import Work

work: ContextVar[Work | None] = ContextVar("budao_work", default=None)
"""Set where a load is measured; None outside of a call, and where nobody measures."""


@contextmanager
def waiting() -> Iterator[None]:
    """The call being served waits for a place here, which is no work. Outside of a call nothing happens."""
    mine = work.get()
    if mine is None:
        yield
        return
    mine.wait(perf_counter())
    try:
        yield
    finally:
        mine.go_on(perf_counter())


def wait_begins() -> Work | None:
    """The same in two halves, where the wait is the entering of a block."""
    mine = work.get()
    if mine is not None:
        mine.wait(perf_counter())
    return mine


def wait_is_over(mine: Work | None) -> None:
    """The other half."""
    if mine is not None:
        mine.go_on(perf_counter())
