"""Work in executors and threads that nobody waits for, and that must not crash unheard."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")

OnCrash = Callable[[str, BaseException], object]


def submit(executor: Executor, on_crash: OnCrash, function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
    """Runs a function in an executor, in a copy of the caller's context. A crash is reported and stays in the future."""
    return executor.submit(copy_context().run, _heard, on_crash, function, *args, **kwargs)


def thread(on_crash: OnCrash, function: Callable[..., object], *args: Any, **kwargs: Any) -> threading.Thread:
    """Starts a daemon thread in a copy of the caller's context. A crash is reported, and ends the thread quietly."""

    def run() -> None:
        try:
            _heard(on_crash, function, *args, **kwargs)
        except Exception:  # noqa: BLE001 - it has been reported, and a thread has nobody to raise to
            return

    started = threading.Thread(target=copy_context().run, args=(run,), name=_name(function), daemon=True)
    started.start()
    return started


def _heard(on_crash: OnCrash, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        on_crash(f"thread {threading.current_thread().name}, {_name(function)}", error)
        raise


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
