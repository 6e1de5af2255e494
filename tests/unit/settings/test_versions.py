"""Settings kept in a store: the next version, the history, the way back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, Wall
from budao.settings import TEXT_BYTES_MAX, VERSIONS_MAX, Version, change, current_key, going_back, history, read_version
from budao.settings import version_key as key_of
from budao.settings.versions import written_version
from budao.store import Delete, Entry, Put, Span, absent, unchanged


def entry(version: Version, modified: int = 7) -> Entry:
    return Entry(current_key("shop"), written_version(version), 1, modified, 1)


def test_the_first_version_is_made_only_where_there_is_none() -> None:
    version, txn = change("shop", "a = 1", None, Wall(5.0), by="ann", note="start")
    assert version == Version(number=1, text="a = 1", at=Wall(5.0), by="ann", note="start")
    assert txn.when == (absent("budao/settings/shop/current"),)
    assert [put.key for put in txn.then if isinstance(put, Put)] == [
        "budao/settings/shop/current",
        "budao/settings/shop/versions/000000000001",
    ]


def test_the_next_version_is_made_only_if_nobody_was_quicker() -> None:
    current = entry(Version(number=4, text="a = 1", at=Wall(5.0)))
    version, txn = change("shop", "a = 2", current, Wall(6.0))
    assert version.number == 5
    assert txn.when == (unchanged(current),)


def test_going_back_makes_a_new_version_of_the_old_text_and_says_so() -> None:
    old = Version(number=2, text="a = 1", at=Wall(1.0))
    version, _ = going_back("shop", old, entry(Version(number=4, text="b", at=Wall(5.0))), Wall(9.0), by="ann")
    assert version == Version(number=5, text="a = 1", at=Wall(9.0), by="ann", note="back to version 2", back_to=2)


def test_old_versions_are_deleted_with_the_change_that_makes_them_too_many() -> None:
    current = entry(Version(number=VERSIONS_MAX, text="", at=Wall(0.0)))
    _, txn = change("shop", "", current, Wall(1.0))
    assert [each for each in txn.then if isinstance(each, Delete)] == [
        Delete(Span("budao/settings/shop/versions/", key_of("shop", 2)))
    ]


def test_a_history_has_the_newest_first() -> None:
    found = [entry(Version(number=number, text="", at=Wall(0.0))) for number in (2, 10, 1)]
    assert [version.number for version in history(found)] == [10, 2, 1]


@given(st.text(max_size=100), st.text(max_size=50), st.integers(1, 10**9))
def test_a_version_comes_back_as_it_was_kept(text: str, by: str, number: int) -> None:
    version = Version(number=number, text=text, at=Wall(1.5), by=by, note=by, back_to=3)
    assert read_version(entry(version)) == version


@given(st.binary(max_size=200))
def test_what_is_no_version_is_refused_without_repeating_it(raw: bytes) -> None:
    with pytest.raises(BadSettings, match="is no version of settings"):
        read_version(Entry("k", raw, 1, 1, 1))


def test_a_version_of_a_later_format_is_named() -> None:
    with pytest.raises(BadSettings, match="format 2"):
        read_version(Entry("k", b'{"format": 2}', 1, 1, 1))


def test_a_text_too_long_to_keep_is_refused() -> None:
    with pytest.raises(BadSettings, match="more than"):
        change("shop", "x" * (TEXT_BYTES_MAX + 1), None, Wall(0.0))


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(BadSettings, match="printable"):
        current_key(name)


def test_a_name_with_slashes_stays_within_its_own_keys() -> None:
    assert current_key("a/b") == "budao/settings/a%2Fb/current"


GOOD = {"format": 1, "number": 4, "text": "a = 1", "at": 5.0, "by": "ann", "note": "", "back_to": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", 0),
        ("number", -5),
        ("number", 10**12),
        ("number", 10**4299),
        ("number", True),
        ("back_to", -1),
        ("at", 10**400),
        ("at", float("nan")),
        ("at", float("inf")),
        ("text", "\ud800"),
        ("note", "\udfff"),
    ],
)
def test_a_version_that_could_not_be_kept_again_is_refused(name: str, value: object) -> None:
    raw = json.dumps(GOOD | {name: value}).encode()
    with pytest.raises(BadSettings, match="is no version of settings"):
        read_version(Entry("k", raw, 1, 7, 1))


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"format":' + b"[" * 900 + b"]" * 900 + b"}"])
def test_a_value_nested_too_deeply_is_refused(raw: bytes) -> None:
    with pytest.raises(BadSettings):
        read_version(Entry("k", raw, 1, 7, 1))
