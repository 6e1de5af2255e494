"""One value from a file, the environment and a store, kept up to date."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from random import Random
from types import TracebackType
from typing import Generic, Self, TypeVar

from budao.aio import Latest, Lost, Store, follow
from budao.model import BadSettings, Mono
from budao.settings import (
    PREFIX,
    Adjustable,
    Layers,
    Settings,
    Stated,
    checked,
    current_key,
    describe,
    guard_settings,
    read_environment,
    read_version,
    taken,
)
from budao.store import Entry, Patience, Span
from budao.threads import FileWatch

T = TypeVar("T")

FIRST_S = 5.0
"""How long a program waits, when it starts, for what the store says; then it begins with what it has."""

_log = logging.getLogger("budao.settings")


class LiveSettings(Generic[T]):
    """Settings of any kind: the defaults in the code, under a file, under the environment, under a store.

    `build` makes the value of what they state together, and raises BadSettings if it cannot: `guard_settings` for guards,
    `partial(typed, MySettings)` for a dataclass. Whatever changes, the value is swapped whole or stays what it was, and
    then `problems` says why. `on_value` is called with each new value, on the loop, and with the first before the block
    begins.

    A file or a variable that is wrong when the program starts is an error there and then. A text in the store that is
    wrong never keeps a program from starting: one bad change would keep every restart from going well.
    """

    def __init__(
        self,
        build: Callable[[Stated], T],
        *,
        file: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        prefix: str = PREFIX,
        store: Store | None = None,
        name: str = "main",
        namespace: str = "budao",
        on_value: Callable[[T], object] | None = None,
        first_s: float = FIRST_S,
        every_s: float = 1.0,
    ) -> None:
        environment = read_environment(os.environ if environ is None else environ, prefix=prefix)
        self._layers = Layers(build, environment=environment)
        self.latest: Latest[T] = Latest(self._layers.value)
        """The value in force, to be read or watched."""
        self._key = current_key(name, namespace)
        self._file = file
        self._every_s = every_s
        self._store = store
        self._first_s = first_s
        self._on_value = on_value
        self._trouble: dict[str, str] = {}
        self._rng = Random()
        self._watch: FileWatch | None = None
        self._task: asyncio.Task[None] | None = None
        self._store_said = asyncio.Event()
        self._is_over = False

    @property
    def value(self) -> T:
        """What is in force."""
        return self.latest.value

    @property
    def version(self) -> int:
        """The number of the store's version in force; 0 for none."""
        return self._layers.version

    @property
    def problems(self) -> tuple[tuple[str, str], ...]:
        """What keeps a layer, as it is now, from being in force; empty if all of them are."""
        return (*self._layers.problems, *self._trouble.items())

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:  # a start that is cancelled leaves no thread and no task behind, either
            await self._end()
            raise
        return self

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._is_over = False
        if self._file is not None:
            self._watch = FileWatch(
                self._file,
                lambda raw: loop.call_soon_threadsafe(self._take_file, raw),
                on_trouble=lambda problem: loop.call_soon_threadsafe(self._note, str(self._file), problem),
                every_s=self._every_s,
            )
            await asyncio.sleep(0)  # the first look has been taken; now it arrives
            if self._layers.problems:
                raise BadSettings(self._layers.problems)
        self._tell(is_first=True)
        if self._store is not None:
            self._task = asyncio.create_task(self._follow(self._store), name=f"budao follows {self._key}")
            try:
                async with asyncio.timeout(self._first_s):
                    await self._store_said.wait()
            except TimeoutError:
                _log.warning("%s: no word from the store yet; beginning without it", self._key)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        self._is_over = True
        if self._watch is not None:
            self._watch.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self, store: Store) -> None:
        patience = Patience()
        while True:
            try:
                await self._follow_once(store, patience)
            except Exception as error:  # noqa: BLE001 -- logged whole; the next change must still be heard of
                _log.exception("following %s on %s failed, trying again", self._key, store.name)
                self._note(store.name, f"{type(error).__name__}: {error}")
            await asyncio.sleep(patience.pause_s(Mono(time.monotonic()), self._rng))

    async def _follow_once(self, store: Store, patience: Patience) -> None:
        async with aclosing(follow(store, Span.one(self._key))) as seen:
            async for each in seen:
                if isinstance(each, Lost):
                    self._note(store.name, f"cannot be asked: {each.problem}; what is in force stays in force")
                    continue
                patience.went_well(Mono(time.monotonic()))
                self._note(store.name, None)
                self._take_store(each.entries.get(self._key))
                self._store_said.set()

    def _take_file(self, raw: bytes) -> None:
        if self._is_over:
            return  # it was on its way from the thread when the block ended
        if self._layers.file_said(raw, str(self._file)):
            self._tell()
        self._complain(str(self._file))

    def _take_store(self, entry: Entry | None) -> None:
        try:
            said = read_version(entry) if entry is not None else None
        except BadSettings as bad:
            is_new = self._layers.store_said(bad)
        else:
            is_new = self._layers.store_said(said)
        if is_new:
            self._tell()
        self._complain(self._key)

    def _tell(self, *, is_first: bool = False) -> None:
        value = self._layers.value
        if self._on_value is not None and (is_first or value != self.latest.value):
            try:
                self._on_value(value)
            except Exception:  # noqa: BLE001 -- logged whole; what takes the settings must not end the following
                _log.exception("%s: what takes new settings failed; following goes on", self._key)
        self.latest.publish(value)

    def _complain(self, source: str) -> None:
        if self._layers.problems:
            _log.error("%s: %s", source, BadSettings(self._layers.problems))

    def _note(self, source: str, problem: str | None) -> None:
        if problem is None:
            self._trouble.pop(source, None)
        elif self._trouble.get(source) != problem:
            self._trouble[source] = problem
            _log.warning("%s: %s", source, problem)


def live_guards(
    guards: Iterable[Adjustable],
    *,
    file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    store: Store | None = None,
    name: str = "main",
    namespace: str = "budao",
) -> LiveSettings[Settings]:
    """Keeps guards to what a file, the environment and a store say about them, while the block is open.

    All guards are asked before the first is changed: settings that one of them cannot take are taken by none.
    """
    kept = tuple(guards)

    def take(settings: Settings) -> None:
        for guard, changes in taken(settings, kept).items():
            _log.info("%s: %s: %s", settings.source, guard, describe(changes))
        for sentence in settings.unclaimed(guard.name for guard in kept):
            _log.warning("%s", sentence)

    return LiveSettings(
        lambda stated: checked(guard_settings(stated), kept),
        file=file,
        environ=environ,
        store=store,
        name=name,
        namespace=namespace,
        on_value=take,
    )
