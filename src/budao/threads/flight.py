"""Single flight for threads: equal calls at one time are one call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from budao.guard import key_of


def single(function: Callable[..., Any]) -> Callable[..., Any]:
    """Callers with equal arguments share one call, which the first of them makes."""
    lock = threading.Lock()
    flights: dict[Hashable, Future[Any]] = {}

    def flown(*args: Any, **kwargs: Any) -> Any:
        key = key_of(args, kwargs)
        if key is None:
            return function(*args, **kwargs)
        mine: Future[Any] = Future()
        with lock:
            shared = flights.setdefault(key, mine)
        if shared is not mine:
            return shared.result()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            with lock:
                del flights[key]
            mine.set_exception(error)
            raise
        with lock:
            del flights[key]
        mine.set_result(result)
        return result

    return flown
