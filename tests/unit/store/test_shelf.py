"""The shelf: keys in order, spans, and how many bytes lie on it."""

from __future__ import annotations

from random import Random

from budao.store.shelf import Shelf
from budao.store.values import Change, Entry, Span


def entry(key: str, value: bytes = b"") -> Entry:
    return Entry(key, value, 1, 1, 1)


def test_a_span_is_found_by_its_edges() -> None:
    shelf = Shelf(map(entry, ["b", "a", "bb", "b\x00", "c"]))
    for span, keys in (
        (Span.prefix(""), ["a", "b", "b\x00", "bb", "c"]),
        (Span.prefix("b"), ["b", "b\x00", "bb"]),
        (Span.one("b"), ["b"]),
        (Span.one("x"), []),
        (Span("b\x00", "c"), ["b\x00", "bb"]),
        (Span("bb", None), ["bb", "c"]),
        (Span("d", None), []),
    ):
        assert shelf.keys(span) == keys


def test_keys_are_ordered_as_their_bytes_are() -> None:
    rng = Random(3)
    points = [1, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]
    keys = {"".join(chr(rng.choice(points)) for _ in range(rng.randrange(1, 4))) for _ in range(300)}
    assert Shelf(map(entry, keys)).keys(Span.prefix("")) == sorted(keys, key=str.encode)


def test_a_limit_leaves_some_out_and_says_so() -> None:
    shelf = Shelf(map(entry, "abc"))
    assert shelf.entries(Span.prefix(""), 2) == ((entry("a"), entry("b")), True)
    assert shelf.entries(Span.prefix(""), 3) == ((entry("a"), entry("b"), entry("c")), False)


def test_few_and_many_deletes_leave_the_same_order() -> None:
    keys = [f"{number:03}" for number in range(300)]
    for doomed in (keys[10:20], keys[10:200], keys):
        shelf = Shelf(map(entry, keys))
        shelf.place([*(Change(key, None) for key in doomed), Change("x", None), Change("1500", entry("1500"))])
        assert shelf.keys(Span.prefix("")) == sorted({*keys, "1500"} - {*doomed})
        assert [each.key for each in shelf.all()] == shelf.keys(Span.prefix(""))
        assert shelf.get(doomed[0]) is None


def test_bytes_are_those_of_keys_and_values() -> None:
    shelf = Shelf([entry("é", b"12")])
    assert shelf.bytes == 4
    shelf.place([Change("é", entry("é", b"12345")), Change("a", entry("a"))])
    assert (shelf.bytes, len(shelf)) == (8, 2)
    shelf.place([Change("é", None)])
    assert (shelf.bytes, len(shelf)) == (1, 1)
