"""Following a span of a store: list it, watch from there, and list and compare again where the past is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from budao.aio.memory_store import monotonic
from budao.aio.store import Store
from budao.model import Clock
from budao.store import (
    Batch,
    Change,
    Compacted,
    Entry,
    Mirror,
    Patience,
    PatiencePolicy,
    Span,
    StoreAway,
    StoreError,
    check_span,
)

ENTRIES_MAX = 1_000
"""Entries asked for at a time."""


@dataclass(frozen=True, slots=True)
class Followed:
    """The span as it stood at a revision."""

    revision: int
    changes: tuple[Change, ...]
    """What is new since the one before: everything, the first time; nothing, where the store came back as it was."""
    entries: Mapping[str, Entry]
    """The whole span by key: a view, which stays as it is until the next one is asked for."""
    is_list: bool
    """Whether the whole span was read, and not only changes."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The store cannot be asked at present, and why. What was told last may be old by now; `Followed` ends it."""

    problem: str


async def follow(
    store: Store,
    span: Span,
    *,
    policy: PatiencePolicy | None = None,
    clock: Clock = monotonic,
    rng: Random | None = None,
) -> AsyncGenerator[Followed | Lost, None]:
    """What a span holds, and what becomes of it, for ever. Close it (`aclosing`) when done.

    Every change is told: one by one and in order while the store remembers them, or as the difference between two lists
    (then a key that came and went in between is not told). A store that is away is a `Lost`, said again only if the
    reason changes, and is tried again until it answers; then the span is listed anew, since it may not be the same store.

    Raises:  StoreRefused for a span that cannot be.
    """
    check_span(span, "follow")
    mirror, patience = Mirror(), Patience(policy)
    rng = Random() if rng is None else rng
    problem: str | None = None
    while True:
        try:
            revision, entries = await list_span(store, span)
            patience.went_well(clock())
            problem = None
            changes = mirror.list(revision, entries)
            yield Followed(revision, changes, mirror.entries, is_list=True)
            async with watching(store, span, after=revision) as batches:
                async for batch in batches:
                    if changes := mirror.take(batch):
                        yield Followed(batch.revision, changes, mirror.entries, is_list=False)
            raise StoreAway(store.name, "it ended a watch")
        except Compacted:
            pass  # nobody needs to hear of it: the next list is compared with what is known
        except StoreError as error:
            if str(error) != problem:
                problem = str(error)
                yield Lost(problem)
        await asyncio.sleep(patience.pause_s(clock(), rng))


async def list_span(store: Store, span: Span) -> tuple[int, tuple[Entry, ...]]:
    """The entries of a span at one revision, and that revision, asked for in parts of bounded length.

    Raises:  what `Store.read` raises; Compacted if the store forgets faster than it can be read.
    """
    page = await store.read(span, limit=ENTRIES_MAX)
    revision, entries = page.revision, list(page.entries)
    while page.more:
        rest = Span(entries[-1].key + "\0", span.stop)
        page = await store.read(rest, revision=revision, limit=ENTRIES_MAX)
        entries += page.entries
    return revision, tuple(entries)


@asynccontextmanager
async def watching(store: Store, span: Span, *, after: int) -> AsyncIterator[AsyncIterator[Batch]]:
    """A watch that is closed at the end of the block."""
    batches = store.watch(span, after=after)
    try:
        yield batches
    finally:
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()
