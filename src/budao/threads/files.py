"""Files that others change while we run: looked at from a thread of their own, and taken whole or not at all."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from budao.model import BadSettings, Clock, Mono
from budao.settings import (
    BYTES_MAX,
    Adjustable,
    Change,
    Content,
    Look,
    Read,
    Report,
    Settings,
    Signature,
    Tell,
    Unreadable,
    Watch,
    checked,
    describe,
    parse,
    taken,
)

_log = logging.getLogger("budao.settings")


def _monotonic() -> Mono:
    return Mono(time.monotonic())


class FileWatch:
    """Tells one callback what a file says, now and whenever it says something else.

    The first look is taken before the constructor returns; the others on a daemon thread. A file that is written in
    place, replaced by a rename, or swapped behind a symbolic link (as Kubernetes does with mounted configuration) is
    noticed. While the file is away nothing is told, and what was told last stands.

    An exception of the callback is kept in `last_error` and ends nothing. The content is not told again until it changes.

    Units:   `every_s` is the pause between looks, in seconds. More than `bytes_max` bytes are told as the first
             `bytes_max + 1`, so that the callback can refuse them.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        on_bytes: Callable[[bytes], object],
        *,
        on_trouble: Callable[[str | None], object] | None = None,
        every_s: float = 1.0,
        bytes_max: int = BYTES_MAX,
        clock: Clock = _monotonic,
    ) -> None:
        self.path = Path(path)
        self.last_error: Exception | None = None
        """What the callback raised at the last content, or None."""
        self.trouble: str | None = None
        """Why the file cannot be read now, or None."""
        self._on_bytes = on_bytes
        self._on_trouble = on_trouble
        self._bytes_max = bytes_max
        self._clock = clock
        self._watch = Watch(clock(), every_s=every_s)
        self._stopping = threading.Event()
        self._step()
        self._thread = threading.Thread(target=self._run, name=f"budao watches {self.path.name}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the file is still looked at."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop looking, and wait until a callback that is running has ended. May be called again, and by a callback."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stopping.wait(max(0.0, self._watch.wake_at() - self._clock())):
            self._step()

    def _step(self) -> None:
        """Let the machine look if it is time, and carry out whatever follows from that."""
        effects = list(self._watch.wake(self._clock()))
        while effects:
            effect = effects.pop(0)
            if isinstance(effect, Look):
                effects += self._watch.handle(self._look(), self._clock())
            elif isinstance(effect, Read):
                effects += self._watch.handle(self._read(), self._clock())
            else:
                self._tell(effect)

    def _tell(self, news: Tell | Report) -> None:
        if isinstance(news, Report):
            self.trouble = news.problem
        try:
            if isinstance(news, Tell):
                self._on_bytes(news.raw)
            elif self._on_trouble is not None:
                self._on_trouble(news.problem)
        except Exception as error:  # noqa: BLE001 -- kept and logged; a callback must not end the watching
            self.last_error = error
            _log.exception("%s: what follows this file failed; watching goes on", self.path)
        else:
            if isinstance(news, Tell):
                self.last_error = None

    def _look(self) -> Signature | Unreadable:
        try:
            found = self.path.stat()
        except (OSError, ValueError) as error:
            return Unreadable(_said(error))
        # Not even opened: opening a terminal or a pipe may do something.
        return _signature(found) if stat.S_ISREG(found.st_mode) else Unreadable(_IRREGULAR)

    def _read(self) -> Content | Unreadable:
        try:
            with open(self.path, "rb", opener=_open) as file:
                before = os.fstat(file.fileno())
                if not stat.S_ISREG(before.st_mode):
                    return Unreadable(_IRREGULAR)
                raw = file.read(self._bytes_max + 1)
                return Content(raw, is_steady=_signature(before) == _signature(os.fstat(file.fileno())))
        except (OSError, ValueError) as error:
            return Unreadable(_said(error))


class Following:
    """Guards that follow one settings file. Made by `follow`."""

    def __init__(self, path: str | os.PathLike[str], guards: Iterable[Adjustable], *, every_s: float) -> None:
        self.settings = Settings(source=str(path))
        """What is in force: the last file that was good as a whole, or nothing."""
        self.changes: dict[str, tuple[Change, ...]] = {}
        """What the last good file changed, by the names of the guards it changed."""
        self._guards = tuple(guards)
        self._source = str(path)
        self._wrong: tuple[tuple[str, str], ...] = ()
        self._watch = FileWatch(path, self._take, on_trouble=self._note, every_s=every_s)

    @property
    def problems(self) -> tuple[tuple[str, str], ...]:
        """What keeps the file as it is now from being in force, each with its path; empty if it is in force."""
        trouble = self._watch.trouble
        return (*self._wrong, (self._source, f"cannot be read: {trouble}")) if trouble else self._wrong

    @property
    def last_error(self) -> Exception | None:
        """An exception that no settings should cause; a guard raised it."""
        return self._watch.last_error

    def close(self) -> None:
        """Stop following; what is in force stays in force."""
        self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _take(self, raw: bytes) -> None:
        try:
            settings = checked(parse(raw, source=self._source), self._guards)
        except BadSettings as bad:
            self._wrong = bad.problems
            _log.error("%s: %s", self._source, bad)
            return
        self._wrong = ()
        self.settings, self.changes = settings, taken(settings, self._guards)
        for name, changes in self.changes.items():
            _log.info("%s: %s: %s", self._source, name, describe(changes))
        for sentence in settings.unclaimed(guard.name for guard in self._guards):
            _log.warning("%s", sentence)

    def _note(self, trouble: str | None) -> None:
        if trouble is None:
            _log.info("%s: can be read again", self._source)
        else:
            _log.warning("%s: cannot be read: %s; what is in force stays in force", self._source, trouble)


def follow(path: str | os.PathLike[str], guards: Iterable[Adjustable], *, every_s: float = 1.0) -> Following:
    """Keep these guards to what a settings file says, now and whenever it changes, until the answer is closed.

    A file that is good as a whole, for every guard, is taken as a whole. Of any other nothing is taken: the problems
    are logged once, by the logger "budao.settings", and stand in `Following.problems`. A file that goes away takes
    nothing with it.

    Units:   `every_s` is the pause between looks, in seconds.
    """
    return Following(path, guards, every_s=every_s)


_IRREGULAR = "is not a regular file"


def _open(path: str, flags: int) -> int:
    # Should a pipe have taken the file's place since the look, opening it must not wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _signature(found: os.stat_result) -> Signature:
    return Signature((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
