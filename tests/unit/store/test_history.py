"""History: what is remembered, what is undone, and what is forgotten once the bounds ask for it."""

from __future__ import annotations

import pytest

from budao.store.errors import Compacted
from budao.store.history import CHANGE_BYTES, History
from budao.store.policy import StorePolicy
from budao.store.values import Batch, Change, Entry, Span

ALL = Span.prefix("")


def entry(key: str, revision: int, size: int = 0) -> Entry:
    return Entry(key, bytes(size), revision, revision, 1)


def grown(policy: StorePolicy, revisions: int, size: int = 0) -> History:
    """One key, put at each revision from 2 on."""
    history = History(1, 0, policy)
    before: Entry | None = None
    for revision in range(2, revisions + 2):
        after = entry("k", revision, size)
        history.add(Batch(revision, (Change("k", after),)), (before,))
        before = after
    return history


def test_the_oldest_eighth_goes_at_once() -> None:
    history = grown(StorePolicy(history_revisions_max=80), 80)
    assert history.compacted == 0
    history.add(Batch(82, (Change("k", None),)), (entry("k", 81),))
    assert history.compacted == 82 - 70
    assert len(history.since(ALL, 12)) == 70


def test_bytes_count_what_only_the_past_needs() -> None:
    each = CHANGE_BYTES + 1 + 100
    assert grown(StorePolicy(history_bytes_max=CHANGE_BYTES + 7 * each), 8, 100).compacted == 0
    assert grown(StorePolicy(history_bytes_max=CHANGE_BYTES + 7 * each - 1), 8, 100).compacted > 0


def test_what_is_forgotten_makes_room_in_bytes() -> None:
    each = CHANGE_BYTES + 1 + 100
    history = grown(StorePolicy(history_bytes_max=8 * each), 1_000, 100)
    assert len(history.since(ALL, history.compacted)) >= 6


def test_a_step_larger_than_the_bound_leaves_no_history() -> None:
    history = grown(StorePolicy(history_bytes_max=1_000), 3, 2_000)
    assert history.compacted == 4
    assert history.since(ALL, 4) == ()
    with pytest.raises(Compacted):
        history.undone(ALL, 3)


def test_what_is_undone_is_what_stood_there_first() -> None:
    history = grown(StorePolicy(), 5)
    assert history.undone(ALL, 1) == {"k": None}
    assert history.undone(ALL, 3) == {"k": entry("k", 3)}
    assert history.undone(ALL, 6) == {}
    assert history.undone(Span.one("x"), 1) == {}


def test_a_batch_holds_what_lies_within_the_span() -> None:
    history = History(1, 0, StorePolicy())
    batch = Batch(2, (Change("a", None), Change("b", None), Change("ab", None)))
    history.add(batch, (entry("a", 1), entry("b", 1), entry("ab", 1)))
    assert history.since(Span.prefix("a"), 1) == (Batch(2, (Change("a", None), Change("ab", None))),)
    assert history.since(Span.prefix("x"), 1) == ()
    assert history.since(ALL, 1)[0] is batch


def test_history_has_no_gaps() -> None:
    with pytest.raises(AssertionError):
        History(5, 5, StorePolicy()).add(Batch(7, (Change("a", None),)), (None,))
