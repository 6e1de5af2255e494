"""A file of keys that may change while a gateway serves.

    keys = FollowedFile(Path("keys.json"), load, "the keys of tokens")
    access = Access(keys=keys.value)
    async with keys.telling(access.renew): ...

A changed file is tried first, and only a good one takes the place of what was there before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Generic, TypeVar

from budao.model import BadSettings

log = logging.getLogger("budao.gateway")

LOOKS_EVERY_S: Final = 1.0
SETTLES_S: Final = 3.0
"""Whoever renews may write slowly: a bad file is no news before it has been bad for so long."""

T = TypeVar("T")
Stamp = tuple[int, int, int]


class FollowedFile(Generic[T]):
    """What a file holds, as `load` makes it; `what` names it in the log. What is in the file never reaches the log.

    Raises:  BadSettings where the first file is not good.
    """

    def __init__(self, file: Path, load: Callable[[], T], what: str, *, every_s: float = LOOKS_EVERY_S) -> None:
        self.file = file
        self.what = what
        self.every_s = every_s
        self._load = load
        self._stamp = stamp_of(file)
        self._bad_since: float | None = None
        self._told = ""
        self._use: Callable[[T], object] = lambda _: None
        self.value = load()

    def reload(self) -> str:
        """Take the file as it is now, also if it looks unchanged; the problem if it is not good, else empty."""
        self._bad_since = None
        problem = self._try()
        if problem:
            self._tell(problem)
        return problem

    def look(self, now: float) -> None:
        """Take the file if it changed. A bad one is tried again until it is good, and told of once it has settled.

        Units:   `now` in seconds of any clock that does not go back.
        """
        if self._bad_since is None and stamp_of(self.file) == self._stamp:
            return
        problem = self._try()
        if not problem:
            self._bad_since = None
        elif self._bad_since is None:
            self._bad_since = now
        elif now - self._bad_since >= SETTLES_S and problem != self._told:
            self._tell(problem)

    @asynccontextmanager
    async def telling(self, use: Callable[[T], object]) -> AsyncIterator[None]:
        """Looks each second from here on, and hands what is new to `use`."""
        self._use = use
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _try(self) -> str:
        stamp = stamp_of(self.file)
        try:
            value = self._load()
        except BadSettings as problem:
            return str(problem)
        if stamp_of(self.file) != stamp:
            return "the file changes while it is read"
        self.value, self._stamp = value, stamp
        self._told = ""
        self._use(value)
        log.info("%s are from now on those of the changed file %s", self.what, self.file)
        return ""

    def _tell(self, problem: str) -> None:
        self._told = problem
        log.error("the changed file %s is not used, %s stay as they were: %s", self.file, self.what, problem)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.every_s)
            try:
                self.look(time.monotonic())
            except Exception:
                log.exception("%s in %s could not be looked at", self.what, self.file)


def stamp_of(path: Path) -> Stamp | None:
    """What changes with a file: through links, as secrets of Kubernetes are mounted."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
