"""Single flight for threads: equal calls at one time are one call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from budao.guard import key_of


class _GaveUpError(Exception):
    """The leader was interrupted before there was an answer."""


class _Shared(Future[Any]):
    """One call, and the thread that makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.leader = threading.get_ident()


def single(function: Callable[..., Any]) -> Callable[..., Any]:
    """Callers with equal arguments share one call, which the first of them makes."""
    lock = threading.Lock()
    flights: dict[Hashable, _Shared] = {}

    def flown(*args: Any, **kwargs: Any) -> Any:
        key = key_of(args, kwargs)
        if key is None:
            return function(*args, **kwargs)
        mine = _Shared()
        while True:
            with lock:
                shared = flights.setdefault(key, mine)
            if shared is mine:
                break
            if shared.leader == mine.leader:
                return function(*args, **kwargs)  # it called itself, and waiting for itself would be for ever
            try:
                return shared.result()
            except _GaveUpError:
                continue
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            with lock:
                del flights[key]
            # What ends the leader's thread says nothing to the others: one of them makes the call.
            mine.set_exception(error if isinstance(error, Exception) else _GaveUpError())
            raise
        with lock:
            del flights[key]
        mine.set_result(result)
        return result

    return flown
