"""Settings in a store: read, set, look back, go back."""

from __future__ import annotations

import time
from collections.abc import Callable

from budao.aio.store import Store
from budao.model import BadSettings, Wall
from budao.settings import (
    Version,
    change,
    current_key,
    going_back,
    history,
    read_version,
    version_key,
    versions_span,
)
from budao.store import Entry, Span, StoreError, Txn

TRIES_MAX = 8
"""How often a change is tried again because somebody else was quicker."""


class Overtaken(StoreError):
    """Somebody else changed the settings meanwhile. Nothing was written: look at the new version, then decide again."""

    def __init__(self, name: str, expected: int, found: int) -> None:
        super().__init__(name, expected, found)
        self.name, self.expected, self.found = name, expected, found

    def __str__(self) -> str:
        return (
            f"settings {self.name!r}: version {self.found} is current, not {self.expected}; "
            "nothing was written, look at it and decide again"
        )


def _wall() -> Wall:
    return Wall(time.time())


class StoredSettings:
    """The settings of one name in a store. Checks nothing but size: give `check` what must be able to read the text.

    Raises:  whatever the store raises; BadSettings for what `check` refuses, and then nothing is written.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        check: Callable[[str], object] | None = None,
        namespace: str = "budao",
        wall: Callable[[], Wall] = _wall,
    ) -> None:
        self.name = name
        self._store = store
        self._check = check
        self._namespace = namespace
        self._wall = wall
        self.key = current_key(name, namespace)

    async def get(self, number: int = 0) -> Version | None:
        """A version, by default the current one; None if there is none, or none any more."""
        entry = await self._entry(number)
        return read_version(entry) if entry is not None else None

    async def set(self, text: str, *, by: str = "", note: str = "", expected: int | None = None) -> Version:
        """Makes a text current.

        `expected` is the version it was made from, 0 for none: if another one is current by now, nothing is written.

        Raises:  Overtaken.
        """
        if self._check is not None:
            self._check(text)

        def make(current: Entry | None) -> tuple[Version, Txn]:
            if expected is not None and _number(current) != expected:
                raise Overtaken(self.name, expected, _number(current))
            return change(self.name, text, current, self._wall(), by=by, note=note, namespace=self._namespace)

        return await self._commit(make)

    async def roll_back(self, number: int, *, by: str = "") -> Version:
        """Makes the text of an earlier version current again, as a new version.

        Raises:  BadSettings if that version is not kept; Overtaken if others keep changing it.
        """
        wanted = await self.get(number) if number > 0 else None
        if wanted is None:
            raise BadSettings([(self.name, f"version {number} is not kept; the history lists those that are")])
        if self._check is not None:
            self._check(wanted.text)

        def make(current: Entry | None) -> tuple[Version, Txn]:
            return going_back(self.name, wanted, current, self._wall(), by=by, namespace=self._namespace)

        return await self._commit(make)

    async def history(self) -> tuple[Version, ...]:
        """Every version that is kept, the newest first."""
        return history((await self._store.read(versions_span(self.name, self._namespace))).entries)

    async def _entry(self, number: int = 0) -> Entry | None:
        key = version_key(self.name, number, self._namespace) if number else self.key
        return (await self._store.read(Span.one(key))).first

    async def _commit(self, make: Callable[[Entry | None], tuple[Version, Txn]]) -> Version:
        for _ in range(TRIES_MAX):
            current = await self._entry()
            version, txn = make(current)
            if (await self._store.commit(txn)).held:
                return version
        found = await self._entry()
        raise Overtaken(self.name, _number(found) - 1, _number(found))


def _number(current: Entry | None) -> int:
    return read_version(current).number if current is not None else 0
