from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import RemoteWireError
from budao.push import PATTERNS_MAX, any_holds, check_channel, check_pattern, check_patterns, holds

PART = st.text(alphabet="ab", min_size=1, max_size=3)
NAMES = st.lists(st.tuples(PART, st.sampled_from(".:/")), min_size=1, max_size=4).map(
    lambda parts: "".join(part + separator for part, separator in parts)[:-1]
)
ENDS = st.sampled_from(["", "", "*"])


@st.composite
def patterns(draw: st.DrawFn) -> str:
    pieces = [draw(st.sampled_from(["", "a", "b", "ab"])) + draw(ENDS) or "*" for _ in range(draw(st.integers(1, 3)))]
    pattern = "".join(piece + draw(st.sampled_from(".:/")) for piece in pieces)
    return pattern + "**" if draw(st.booleans()) else pattern[:-1]


def naive(pattern: str, channel: str) -> bool:
    """The slow, obvious twin: character by character, every way there is."""
    if not pattern:
        return not channel
    if pattern == "**":
        return bool(channel)
    if pattern[0] == "*":
        return naive(pattern[1:], channel) or (
            bool(channel) and channel[0] not in ".:/" and naive(pattern, channel[1:])
        )
    return bool(channel) and channel[0] == pattern[0] and naive(pattern[1:], channel[1:])


@given(pattern=patterns(), channel=NAMES)
def test_a_pattern_holds_what_the_naive_twin_says(pattern: str, channel: str) -> None:
    assert check_pattern(pattern) == pattern
    assert holds(pattern, check_channel(channel)) == naive(pattern, channel)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("room:*", ["room:42"], ["room", "room:42:typing", "rooms:1"]),
        ("room:**", ["room:42", "room:42:typing"], ["room", "rooms:1"]),
        ("log.err*", ["log.err", "log.error"], ["log.error.disk", "log.warn"]),
        ("*:state", ["a:state"], ["a:b:state", "a:stat"]),
        ("**", ["a", "a.b:c/d"], []),
        ("news", ["news"], ["new", "news.1"]),
        ("a.b", ["a.b"], ["a:b", "axb"]),
        ("user:*:**", ["user:1:x", "user:1:x.y"], ["user:1", "user"]),
    ],
)
def test_patterns_hold_what_the_page_says(pattern: str, inside: list[str], outside: list[str]) -> None:
    assert all(holds(pattern, channel) for channel in inside)
    assert not any(holds(pattern, channel) for channel in outside)


@pytest.mark.parametrize(
    "pattern", ["", "a*b", "**a", "a**", "a.**.b", "***", "a..b", ".a", "a b", "a:", "x" * 201, 7, None, "\ud800"]
)
def test_what_is_no_pattern_is_refused(pattern: object) -> None:
    with pytest.raises(RemoteWireError):
        check_pattern(pattern)


def test_a_list_of_patterns_is_bounded_and_says_each_once() -> None:
    assert check_patterns(["a", "b", "a"]) == ("a", "b")
    with pytest.raises(RemoteWireError, match="65 patterns"):
        check_patterns(str(number) for number in range(PATTERNS_MAX + 1))


def test_no_pattern_takes_long() -> None:
    # It would take for ever if stars were tried against each other.
    assert not holds("a*." * 60 + "b", "a" * 130 + "." + "a" * 60)


def test_of_several_patterns_one_is_enough() -> None:
    assert any_holds(("news", "room:*"), "room:1")
    assert not any_holds((), "room:1")
