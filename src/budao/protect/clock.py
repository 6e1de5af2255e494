"""The guard's clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf, isfinite, nextafter


def default_clock() -> Callable[[], float]:
    """`time.perf_counter`, which is monotonic, made strict where its steps are too coarse to tell two calls apart."""
    is_fine = time.get_clock_info("perf_counter").resolution <= 1e-8
    return time.perf_counter if is_fine else strict(time.perf_counter)


def strict(clock: Callable[[], float]) -> Callable[[], float]:
    """A clock whose every reading is later than the one before, whatever the one below does.

    A clock that stands still advances by one step of a float; one that goes back stands, in that sense, until it has
    caught up; one that says something that is no time at all is treated as standing. Calls in flight are told apart by
    when they started, so two equal readings must not happen.
    """
    last = -inf
    lock = threading.Lock()

    def read() -> float:
        nonlocal last
        with lock:
            told = clock()
            last = told if isfinite(told) and told > last else nextafter(last, inf) if last > -inf else 0.0
            return last

    return read
