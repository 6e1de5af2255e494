"""A reader of several connections, each of which may begin early, run behind, leave out and say so, against a naive twin."""

from __future__ import annotations

import pytest
from hypothesis import example, given
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


Turn = tuple[int, int, int]
"""Which connection says something, how far on it goes, and where it begins if it is not open. One that goes nowhere ends."""

JUMPS = st.sampled_from([0, 1, 1, 1, 1, 1, 1, 2, 5])
TURNS = st.lists(st.tuples(st.integers(0, 2), JUMPS, st.integers(0, 50)), max_size=40)
SHORT = [1, 1, 1]
"""Three lives of one message each: 0 START, 1 life0:1, 2 and 3 life1:0 and :1, 4 and 5 life2:0 and :1."""


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(0, 50), TURNS)
@example(
    SHORT, 1, [(0, 3, 0), (1, 1, 0), (1, 1, 0), (0, 1, 0), (1, 1, 0)]
)  # one leaves out a life that the other begins to tell
@example(SHORT, 1, [(0, 1, 0), (1, 3, 0), (0, 1, 0), (0, 1, 0), (1, 1, 0)])
@example(SHORT, 0, [(0, 5, 0), (1, 1, 0), (1, 1, 0), (1, 2, 0)])
@example(SHORT, 0, [(0, 5, 0), (1, 1, 3), (1, 1, 0)])  # one begins in a life that the reader never heard of
def test_each_message_is_handed_out_once_and_in_order_or_a_gap_names_it(
    lives: list[int], start: int, turns: list[Turn]
) -> None:
    places = all_places(lives)
    top = len(places) - 1
    start = naive = start % len(places)  # the naive twin is one number
    follower = Follower("c", places[start])
    heard = {places[start].epoch}
    links: dict[int, int] = {}

    def say(which: int, upto: int) -> None:
        nonlocal naive
        item = told(places, (at := links[which], upto))
        links[which] = upto
        begin = places[at]
        try:
            got = follower.take(item)
        except BrokenPromise:
            # Only where nobody could know: a life it never heard of, told by somebody who does not come from its own.
            assert places[upto].epoch not in heard
            assert begin.epoch != places[naive].epoch
            links[which] = naive  # that is asked what follows our place
            got = None
        else:
            if upto <= naive:
                assert got is None
            elif isinstance(item, Message):
                assert at == naive
                assert got is item
            else:
                assert isinstance(got, Gap)
                assert (got.after, got.upto) == (places[naive], places[upto])
            naive = max(naive, upto)
            heard.add(places[naive].epoch)
        assert follower.place == places[naive]

    for which, jump, begin in turns:
        if jump == 0:
            links.pop(which, None)
            continue
        # Nobody begins ahead of the reader, nor behind the place it came with: that is what it asked for.
        links.setdefault(which, start + begin % (naive + 1 - start))
        if links[which] < top:
            say(which, min(top, links[which] + jump))
    while links:  # whoever is left tells the rest, and nothing of it is lost
        which, at = links.popitem()
        if at < top:
            links[which] = at
            say(which, at + 1)
        else:
            assert follower.place == places[top]


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
