"""A mirror: what differs between two lists, and what a batch adds."""

from __future__ import annotations

from budao.store import Batch, Change, Entry, Mirror

A, B, C = (Entry(key, b"1", 2, 2, 1) for key in "abc")
B2 = Entry("b", b"2", 2, 5, 2)


def test_the_first_list_is_all_new() -> None:
    mirror = Mirror()
    assert mirror.list(4, (A, B)) == (Change("a", A), Change("b", B))
    assert (mirror.revision, dict(mirror.entries)) == (4, {"a": A, "b": B})


def test_a_later_list_says_what_came_what_changed_and_what_is_gone() -> None:
    mirror = Mirror()
    mirror.list(4, (A, B))
    assert mirror.list(9, (C, B2)) == (Change("a", None), Change("b", B2), Change("c", C))
    assert mirror.list(9, (B2, C)) == ()
    assert (mirror.revision, dict(mirror.entries)) == (9, {"b": B2, "c": C})


def test_a_store_that_was_replaced_may_be_at_a_lower_revision() -> None:
    mirror = Mirror()
    mirror.list(40, (A,))
    assert mirror.list(3, ()) == (Change("a", None),)
    assert mirror.take(Batch(4, (Change("b", B),))) == (Change("b", B),)


def test_a_batch_is_taken_once() -> None:
    mirror = Mirror()
    mirror.list(4, (A, B))
    batch = Batch(5, (Change("b", B2), Change("a", None), Change("x", None)))
    assert mirror.take(batch) == batch.changes
    assert mirror.take(batch) == ()
    assert (mirror.revision, dict(mirror.entries)) == (5, {"b": B2})
