"""A ring tells everything after a place or nothing, within its bounds; what is missing is named."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import Wall
from budao.push import START, Gap, Hole, Kind, Message, Position, Ring, Stretch, bridge

EPOCH = "e1"


def message(seq: int, size: int = 10, *, epoch: str = EPOCH, at: float = 0.0) -> Message:
    return Message("c", Position(epoch, seq), b"x" * size, Kind.JSON, Wall(at))


def ring_of(*messages: Message, head: Position = START, count_max: int = 100, bytes_max: int = 100_000) -> Ring:
    ring = Ring(head, count_max=count_max, bytes_max=bytes_max)
    ring.append(messages)
    return ring


def seqs(ring: Ring, place: Position, bytes_max: int = 1_000_000) -> list[int]:
    return [each.message.position.seq for each in ring.after(place, bytes_max)]


def test_it_tells_what_follows_a_place_it_covers() -> None:
    ring = ring_of(*map(message, range(1, 6)))
    assert seqs(ring, START) == [1, 2, 3, 4, 5]
    assert seqs(ring, Position(EPOCH, 0)) == [1, 2, 3, 4, 5]
    assert seqs(ring, Position(EPOCH, 3)) == [4, 5]
    assert seqs(ring, Position(EPOCH, 5)) == []


def test_it_covers_neither_another_life_nor_what_lies_ahead() -> None:
    ring = ring_of(message(1))
    assert not ring.covers(Position("e2", 1))
    assert not ring.covers(Position(EPOCH, 2))
    assert ring.covers(START)
    assert not Ring(Position(EPOCH, 7), count_max=1, bytes_max=1).covers(START)


def test_pieces_are_bounded_in_bytes_and_hold_at_least_one_message() -> None:
    ring = ring_of(*map(message, range(1, 6)))
    one = 10 + 64
    assert seqs(ring, START, 1) == [1]
    assert seqs(ring, START, 2 * one) == [1, 2]
    assert seqs(ring, Position(EPOCH, 2), 2 * one + 1) == [3, 4]


def test_what_is_too_old_is_forgotten_but_never_the_last_message() -> None:
    ring = ring_of(*map(message, range(1, 10)), count_max=3)
    assert len(ring) == 3
    assert ring.oldest == Position(EPOCH, 6)
    assert not ring.covers(START)
    large = ring_of(message(1, 5_000), message(2, 5_000), bytes_max=1_000)
    assert seqs(large, Position(EPOCH, 1)) == [2]
    assert large.bytes == 5_064


def test_the_latest_messages_begin_where_they_are_kept_and_not_too_old() -> None:
    ring = ring_of(*(message(seq, at=float(seq)) for seq in range(1, 6)), count_max=4)
    assert ring.before_last(2) == Position(EPOCH, 3)
    assert ring.before_last(0) == Position(EPOCH, 5)
    assert ring.before_last(100) == Position(EPOCH, 1)
    assert ring.before_last(100, since=4.0) == Position(EPOCH, 3)


def test_how_far_behind_a_place_is_counts_data_and_overhead() -> None:
    ring = ring_of(message(1, 100), message(2, 36))
    assert ring.total_bytes - ring.mark_at(START) == 264
    assert ring.total_bytes - ring.mark_at(Position(EPOCH, 1)) == 100
    assert ring.total_bytes - ring.mark_at(Position(EPOCH, 2)) == 0


def test_after_a_jump_it_covers_the_new_place_only() -> None:
    ring = ring_of(message(1), message(2))
    ring.jump(Position("e2", 4))
    assert not ring.covers(Position(EPOCH, 2))
    assert seqs(ring, Position("e2", 4)) == []
    ring.append([message(5, epoch="e2")])
    assert seqs(ring, Position("e2", 4)) == [5]
    assert ring.bytes == 74


@given(
    steps=st.lists(st.lists(st.integers(0, 200), max_size=5), max_size=30),
    count_max=st.integers(1, 20),
    bytes_max=st.integers(1, 2_000),
    piece=st.integers(1, 2_000),
)
def test_a_ring_is_the_end_of_a_plain_list(
    steps: Sequence[Sequence[int]], count_max: int, bytes_max: int, piece: int
) -> None:
    ring = Ring(START, count_max=count_max, bytes_max=bytes_max)
    everything: list[Message] = []
    for sizes in steps:
        new = [message(len(everything) + 1 + index, size) for index, size in enumerate(sizes)]
        everything += new
        ring.append(new)
        assert len(ring) <= count_max
        assert ring.bytes <= bytes_max or len(ring) == 1
        for place in (START, *(each.position for each in everything)):
            if not ring.covers(place):
                assert place.seq < ring.oldest.seq
                continue
            found = [each.message for each in ring.after(place, piece)]
            assert found == everything[place.seq : place.seq + len(found)]
            assert bool(found) == (place.seq < len(everything))
            assert len(found) <= 1 or sum(len(each.data) + 64 for each in found) <= piece
            behind = sum(len(each.data) + 64 for each in everything[place.seq :])
            assert ring.total_bytes - ring.mark_at(place) == behind


@pytest.mark.parametrize(
    ("place", "first", "head", "expected"),
    [
        (START, 1, 5, None),
        (Position(EPOCH, 3), 4, 5, None),
        (Position(EPOCH, 1), 4, 5, (3, Hole.TRIMMED)),
        (START, 4, 5, (3, Hole.TRIMMED)),
        (Position("old", 9), 4, 5, (3, Hole.EPOCH)),
        (Position("old", 3), 4, 5, (3, Hole.EPOCH)),
        (Position(EPOCH, 9), 4, 5, (3, Hole.EPOCH)),
        (Position(EPOCH, 5), None, 5, None),
        (Position(EPOCH, 2), None, 5, (5, Hole.TRIMMED)),
        (Position(EPOCH, 9), None, 5, (5, Hole.EPOCH)),
        (START, None, 0, None),
        (START, None, 5, (5, Hole.TRIMMED)),
    ],
)
def test_what_is_missing_in_an_answer_of_the_log_is_named(
    place: Position, first: int | None, head: int, expected: tuple[int, Hole] | None
) -> None:
    messages = () if first is None else tuple(message(seq) for seq in range(first, head + 1))
    gap = bridge(place, Stretch("c", Position(EPOCH, head), messages))
    assert gap == (None if expected is None else Gap("c", place, Position(EPOCH, expected[0]), expected[1]))


def test_a_forgotten_channel_is_another_life() -> None:
    gap = bridge(Position(EPOCH, 4), Stretch("c", START, ()))
    assert gap == Gap("c", Position(EPOCH, 4), START, Hole.EPOCH)
