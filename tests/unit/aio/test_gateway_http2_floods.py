"""Frames of HTTP/2 that bring nothing, counted from their heads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budao.aio.gateway.http2_floods import (
    CALM,
    CALM_PER_S,
    CONTINUATION,
    COSTS,
    DATA,
    FRAME_BYTES_MAX,
    HEADERS,
    OVERLONG,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    FloodGuard,
)

FLOOD = "too many frames that bring nothing"


def frame(kind: int, size: int = 0, flags: int = 0) -> bytes:
    return size.to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 1]) + bytes(size)


def guard(block_bytes_max: int = 1_000) -> FloodGuard:
    found = FloodGuard(block_bytes_max=block_bytes_max, now=0.0)
    assert found.feed(PREFACE, 0.0) == ""
    return found


def test_so_many_of_a_kind_are_borne_and_one_more_is_not() -> None:
    for kind in (RST_STREAM, SETTINGS, PING, WINDOW_UPDATE):
        it = guard()
        borne = int(CALM / COSTS[kind])
        assert it.feed(frame(kind, 4) * borne, 0.0) == ""
        assert it.feed(frame(kind, 4), 0.0) == FLOOD


def test_time_restores_the_calm_up_to_where_it_began() -> None:
    it = guard()
    assert it.feed(frame(PING, 8) * 250, 0.0) == ""
    assert it.feed(frame(PING, 8) * int(CALM_PER_S / 4), 1.0) == ""
    assert it.feed(frame(PING, 8), 1.0) == FLOOD
    it = guard()
    assert it.feed(frame(PING, 8) * 251, 1e6) == FLOOD


def test_updates_of_windows_are_answers_to_what_was_sent() -> None:
    it = guard()
    for _ in range(10_000):
        it.sent(1)
        assert it.feed(frame(WINDOW_UPDATE, 4) * 2, 0.0) == ""


def test_data_and_requests_cost_nothing_and_empty_data_does() -> None:
    it = guard()
    assert it.feed((frame(HEADERS, 50) + frame(DATA, 100)) * 5_000, 0.0) == ""
    assert it.feed(frame(DATA, 0, flags=1) * 5_000, 0.0) == ""
    assert it.feed(frame(DATA) * 501, 0.0) == FLOOD


def test_a_block_of_headers_is_bounded_with_all_its_pieces() -> None:
    assert guard().feed(frame(HEADERS, 600) + frame(CONTINUATION, 400), 0.0) == ""
    assert "more than 1000 bytes" in guard().feed(frame(HEADERS, 600) + frame(CONTINUATION, 401), 0.0)
    assert guard().feed((frame(HEADERS, 600) + frame(CONTINUATION, 400)) * 2, 0.0) == ""


def test_a_frame_that_is_too_long_is_refused_at_its_head() -> None:
    it = guard()
    assert it.feed(frame(DATA, FRAME_BYTES_MAX), 0.0) == ""
    assert it.feed(frame(DATA, FRAME_BYTES_MAX + 1)[:9], 0.0) == OVERLONG


def test_what_we_are_made_to_do_costs_as_well() -> None:
    it = guard()
    assert [it.spend(5.0) for _ in range(201)] == [""] * 200 + [FLOOD]


@given(
    frames=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 40), st.integers(0, 1)), max_size=400),
    cuts=st.lists(st.integers(1, 50), min_size=1),
)
def test_how_the_bytes_are_cut_changes_nothing(frames: list[tuple[int, int, int]], cuts: list[int]) -> None:
    raw = PREFACE + b"".join(frame(*each) for each in frames)
    whole = FloodGuard(block_bytes_max=1_000, now=0.0).feed(raw, 0.0)
    it = FloodGuard(block_bytes_max=1_000, now=0.0)
    found, at, turn = "", 0, 0
    while at < len(raw) and not found:
        size = cuts[turn % len(cuts)]
        found = it.feed(raw[at : at + size], 0.0)
        at, turn = at + size, turn + 1
    assert found == whole
