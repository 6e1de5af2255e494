"""What kind of callable a user hands over."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any


def is_async_function(function: Any) -> bool:
    """Whether calling it gives something to await, as far as can be told without calling it."""
    if inspect.iscoroutinefunction(function):
        return True
    is_plain = inspect.isroutine(function) or isinstance(function, type | functools.partial)
    return not is_plain and inspect.iscoroutinefunction(type(function).__call__)


def context_manager_of(function: Any) -> Callable[[Any], Any] | None:
    """How to make a context manager of the guarded generator, if `function` was made of one by contextlib."""
    code, wrapped = getattr(function, "__code__", None), getattr(function, "__wrapped__", None)
    if code is None or wrapped is None or code.co_filename != contextlib.__file__:
        return None
    if inspect.isasyncgenfunction(wrapped):
        return contextlib.asynccontextmanager
    return contextlib.contextmanager if inspect.isgeneratorfunction(wrapped) else None
