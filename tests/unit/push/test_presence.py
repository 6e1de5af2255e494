"""Who reads a channel is told in time, once, and within bounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, Mono
from budao.push import (
    Attendance,
    Members,
    PresenceEffect,
    PresencePart,
    PresencePolicy,
    ShareMembers,
    TellMembers,
)

POLICY = PresencePolicy(tell_s=0.1, away_s=0.5, share_s=0.2, members_max=4)


def at(instant: float) -> Mono:
    return Mono(instant)


def awake(attendance: Attendance, until: float) -> list[tuple[float, PresenceEffect]]:
    """Everything that happens up to an instant, and when."""
    found: list[tuple[float, PresenceEffect]] = []
    while (due := attendance.wake_at()) is not None and due <= until:
        found += [(round(due, 6), effect) for effect in attendance.wake(due)]
    return found


def told(effects: Sequence[tuple[float, PresenceEffect]]) -> list[tuple[float, PresenceEffect]]:
    return [(when, effect) for when, effect in effects if isinstance(effect, TellMembers)]


def shared(effects: Sequence[tuple[float, PresenceEffect]]) -> list[tuple[float, PresenceEffect]]:
    return [(when, effect) for when, effect in effects if isinstance(effect, ShareMembers)]


def test_those_who_come_within_a_moment_are_told_together() -> None:
    room = Attendance(POLICY)
    room.enter("room", "ann", at(0.0))
    room.enter("room", "bob", at(0.05))
    assert room.members("room") == Members(("ann", "bob"), 2)
    assert room.told("room") == Members((), 0)
    assert told(awake(room, 1.0)) == [(0.1, TellMembers("room", ("ann", "bob"), (), 2))]
    assert room.told("room") == Members(("ann", "bob"), 2)


def test_a_name_counts_once_however_many_connections_it_has() -> None:
    room = Attendance(POLICY)
    room.enter("room", "ann", at(0.0))
    room.enter("room", "ann", at(0.0))
    assert told(awake(room, 1.0)) == [(0.1, TellMembers("room", ("ann",), (), 1))]
    room.depart("room", "ann", at(1.0))
    assert awake(room, 5.0) == []
    room.depart("room", "ann", at(5.0))
    assert told(awake(room, 9.0)) == [(5.6, TellMembers("room", (), ("ann",), 0))]


def test_who_comes_back_within_a_moment_has_not_left() -> None:
    room = Attendance(POLICY)
    room.enter("room", "ann", at(0.0))
    awake(room, 1.0)
    room.depart("room", "ann", at(1.0))
    assert told(awake(room, 1.3)) == []
    room.enter("room", "ann", at(1.3))
    assert told(awake(room, 9.0)) == []
    room.depart("room", "ann", at(9.0))
    assert told(awake(room, 20.0)) == [(9.6, TellMembers("room", (), ("ann",), 0))]


def test_what_other_gateways_say_is_added_and_taken_away() -> None:
    room = Attendance(POLICY)
    room.enter("room", "ann", at(0.0))
    room.heard("room", "b", PresencePart(("bob", "ann"), 1), at(0.0))
    assert told(awake(room, 1.0)) == [(0.1, TellMembers("room", ("ann", "bob"), (), 3))]
    room.heard("room", "b", None, at(1.0))
    # The count of those without a name falls at once; bob may come back for half a second.
    assert told(awake(room, 5.0)) == [
        (1.1, TellMembers("room", (), (), 2)),
        (1.6, TellMembers("room", (), ("bob",), 1)),
    ]
    room.heard("room", "b", PresencePart(("cid",)), at(5.0))
    room.heard("room", "c", PresencePart(("dan",)), at(5.0))
    room.forget_others("room", at(5.0), keep=["c"])
    assert room.members("room") == Members(("ann", "dan"), 2)


def test_our_part_is_shared_at_once_and_then_seldom_and_only_if_it_changed() -> None:
    room = Attendance(POLICY)
    room.enter("room", "ann", at(0.0))
    assert shared(awake(room, 0.0)) == [(0.0, ShareMembers("room", PresencePart(("ann",))))]
    room.enter("room", "bob", at(0.01))
    room.enter("room", "", at(0.02))
    assert shared(awake(room, 0.2)) == [(0.2, ShareMembers("room", PresencePart(("ann", "bob"), 1)))]
    room.depart("room", "bob", at(0.21))
    room.enter("room", "bob", at(0.22))
    assert shared(awake(room, 9.0)) == []
    for name in ("ann", "bob", ""):
        room.depart("room", name, at(9.0))
    assert shared(awake(room, 20.0)) == [(9.0, ShareMembers("room", None))]
    room.enter("room", "ann", at(30.0))
    awake(room, 40.0)
    room.share_again(at(40.0))
    assert shared(awake(room, 50.0)) == [(40.0, ShareMembers("room", PresencePart(("ann",))))]


def test_beyond_the_bound_there_is_a_count_only() -> None:
    room = Attendance(POLICY)
    for name in "abcdef":
        room.enter("room", name, at(0.0))
    assert room.part("room") == PresencePart(tuple("abcd"), 2)
    assert told(awake(room, 1.0)) == [(0.1, TellMembers("room", tuple("abcd"), (), 6))]
    room.heard("room", "b", PresencePart(tuple("ghij"), 90), at(1.0))
    assert told(awake(room, 2.0)) == [(1.1, TellMembers("room", (), (), 100))]
    assert room.members("room") == Members(tuple("abcd"), 100)


def test_a_room_that_is_empty_is_forgotten() -> None:
    room = Attendance(POLICY)
    room.enter("room", "ann", at(0.0))
    awake(room, 1.0)
    room.depart("room", "ann", at(1.0))
    room.depart("room", "ann", at(1.0))
    room.depart("elsewhere", "ann", at(1.0))
    awake(room, 5.0)
    assert (len(room), room.wake_at()) == (0, None)
    assert room.members("room") == room.told("room") == Members()


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadSettings, match="members_max"):
        PresencePolicy(members_max=-1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "depart", "heard", "gone"]),
            st.sampled_from(["ann", "bob", "cid", ""]),
            st.floats(0.0, 0.4),
        ),
        max_size=40,
    )
)
def test_whoever_hears_every_change_knows_who_is_there(history: list[tuple[str, str, float]]) -> None:
    room = Attendance(PresencePolicy(tell_s=0.1, away_s=0.5, share_s=0.2, members_max=100))
    own: list[str] = []
    theirs: set[str] = set()
    known: set[str] = set()
    latest: PresencePart | None = None
    now = count = 0.0

    def hear(until: float) -> None:
        nonlocal count, latest
        for _, effect in awake(room, until):
            if isinstance(effect, ShareMembers):
                latest = effect.part
                continue
            assert not known.intersection(effect.joined), "nobody comes twice"
            assert known.issuperset(effect.left), "nobody leaves who was not there"
            known.update(effect.joined)
            known.difference_update(effect.left)
            count = effect.count

    for what, name, wait_s in history:
        if what == "enter":
            own.append(name)
            room.enter("room", name, at(now))
        elif what == "depart":
            if name in own:
                own.remove(name)
            room.depart("room", name, at(now))
        elif what == "heard":
            theirs = {name} - {""}
            room.heard("room", "b", PresencePart(tuple(theirs)), at(now))
        else:
            theirs = set()
            room.heard("room", "b", None, at(now))
        now += wait_s
        hear(now)
    hear(now + 10.0)
    assert known == (set(own) | theirs) - {""}
    assert count == len(known) + own.count("")
    assert latest == (
        PresencePart(tuple(dict.fromkeys(name for name in own if name)), own.count("")) if own else None
    ) or (latest is not None and set(latest.names) == set(own) - {""} and latest.others == own.count(""))
    assert room.wake_at() is None
