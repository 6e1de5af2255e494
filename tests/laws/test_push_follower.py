"""A reader of several connections, each of which may begin early, run behind, leave out and say so, against a naive twin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import Wall
from budao.push import START, BrokenPromise, Follower, Gap, Hole, Kind, Message, Position

Step = tuple[int, int]
"""From one place to the next, as indices; one apart is a message if both are of one life."""


def all_places(lives: list[int]) -> list[Position]:
    """Every place of a channel, in order. Before the first life there is one place for all."""
    places = [START]
    for number, count in enumerate(lives):
        epoch = f"life{number}"
        places += [Position(epoch, seq) for seq in range(0 if number else 1, count + 1)]
    return places


def told(places: list[Position], step: Step) -> Message | Gap:
    before, after = places[step[0]], places[step[1]]
    if step[1] == step[0] + 1 and after.seq:
        return Message("c", after, b"", Kind.JSON, Wall(0.0))
    return Gap("c", before, after, Hole.TRIMMED if before.epoch == after.epoch else Hole.EPOCH)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Position], list[Step], int]:
    """Places, what connections said in the order it came, and where the reader began."""
    places = all_places(draw(st.lists(st.integers(0, 12), min_size=1, max_size=4)))
    top = len(places) - 1
    start = reader = draw(st.integers(0, top))
    links: list[int] = []
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, 40))):
        if not links or draw(st.integers(0, 5)) == 0:
            # Nobody begins ahead of the reader, nor behind the place it came with: that is what it asked for.
            links.append(draw(st.integers(start, reader)))
        which = draw(st.integers(0, len(links) - 1))
        at = links[which]
        if at == top:
            continue
        upto = min(top, at + draw(st.sampled_from([1, 1, 1, 1, 2, 5])))
        steps.append((at, upto))
        links[which], reader = upto, max(reader, upto)
    return places, steps, start


@given(histories())
def test_each_message_is_handed_out_once_and_in_order_or_a_gap_names_it(
    history: tuple[list[Position], list[Step], int],
) -> None:
    places, steps, naive = history  # the naive twin is one number
    follower = Follower("c", places[naive])
    for step in steps:
        item = told(places, step)
        got = follower.take(item)
        if step[1] <= naive:
            assert got is None
            continue
        if isinstance(item, Message):
            assert step[0] == naive
            assert got is item
        else:
            assert isinstance(got, Gap)
            assert (got.after, got.upto) == (places[naive], places[step[1]])
        naive = step[1]
        assert follower.place == places[naive]


@given(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.data())
def test_what_one_connection_leaves_out_never_goes_unnoticed(lives: list[int], data: st.DataObject) -> None:
    places = all_places(lives)
    script = [(at, at + 1) for at in range(len(places) - 1)]
    left_out = data.draw(st.integers(0, len(script) - 1))
    follower = Follower("c", START)
    for step in script[:left_out]:
        assert follower.take(told(places, step)) is not None
    for step in script[left_out + 1 :][:1]:
        with pytest.raises(BrokenPromise):
            follower.take(told(places, step))
    assert follower.place == places[left_out]
