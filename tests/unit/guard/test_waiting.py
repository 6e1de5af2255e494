from __future__ import annotations

from math import inf, sqrt

import pytest

from budao.guard.waiting import Placed, TurnedAway, WaitingRoom
from budao.model import BulkheadPolicy, Mono, Priority, Refusal, Why

POLICY = BulkheadPolicy(waiting_max=1000, wait_max_s=60.0, sojourn_target_s=1.0, sojourn_interval_s=10.0)
NEVER = Mono(inf)

CRITICAL, HIGH, LOW, SHEDDABLE = Priority


def room_with(*arrivals: tuple[int, Priority, float], policy: BulkheadPolicy = POLICY) -> WaitingRoom:
    room = WaitingRoom(policy)
    for number, priority, at in arrivals:
        assert room.join(number, priority, NEVER, Mono(at)) == ()
    return room


def small(waiting_max: int) -> BulkheadPolicy:
    return BulkheadPolicy(waiting_max=waiting_max, wait_max_s=60.0, sojourn_target_s=1.0, sojourn_interval_s=10.0)


def whys(effects: tuple[Placed | TurnedAway, ...]) -> list[tuple[int, Why | None]]:
    return [(each.number, each.refusal.why if isinstance(each, TurnedAway) else None) for each in effects]


def test_a_free_place_goes_to_whoever_came_first() -> None:
    room = room_with((1, HIGH, 0.0), (2, HIGH, 0.25), (3, HIGH, 0.5))
    assert room.next(Mono(0.75)) == (Placed(1, 0.75),)
    assert room.next(Mono(0.75)) == (Placed(2, 0.5),)
    assert room.next(Mono(1.0)) == (Placed(3, 0.5),)
    assert room.next(Mono(1.0)) == ()


def test_more_important_calls_go_first() -> None:
    room = room_with((1, SHEDDABLE, 0.0), (2, LOW, 0.0), (3, CRITICAL, 0.0), (4, HIGH, 0.0), (5, CRITICAL, 0.0))
    assert [each.number for _ in range(5) for each in room.next(Mono(0.5))] == [3, 5, 4, 2, 1]


def test_a_room_for_nobody_turns_everybody_away() -> None:
    room = WaitingRoom(BulkheadPolicy(waiting_max=0))
    assert room.join(1, CRITICAL, NEVER, Mono(0.0)) == (TurnedAway(1, Refusal(Why.NO_ROOM, 0.0)),)
    assert len(room) == 0


def test_a_full_room_turns_away_the_newest_of_the_least_important_for_a_more_important_one() -> None:
    room = room_with((1, LOW, 0.0), (2, SHEDDABLE, 0.25), (3, SHEDDABLE, 0.5), policy=small(3))
    assert whys(room.join(4, HIGH, NEVER, Mono(0.75))) == [(3, Why.SHED)]
    assert whys(room.join(5, LOW, NEVER, Mono(0.75))) == [(2, Why.SHED)]
    assert whys(room.join(6, HIGH, NEVER, Mono(0.75))) == [(5, Why.SHED)]
    assert whys(room.join(7, CRITICAL, NEVER, Mono(0.75))) == [(1, Why.SHED)]
    assert len(room) == 3


def test_a_full_room_turns_away_whoever_is_no_more_important_than_all_inside() -> None:
    room = room_with((1, LOW, 0.0), (2, HIGH, 0.0), policy=small(2))
    assert room.join(3, LOW, NEVER, Mono(0.5)) == (TurnedAway(3, Refusal(Why.NO_ROOM, 0.5)),)
    assert whys(room.join(4, SHEDDABLE, NEVER, Mono(0.5))) == [(4, Why.NO_ROOM)]
    assert whys(room.next(Mono(0.5))) == [(2, None)]


def test_whoever_leaves_is_gone_and_leaves_once() -> None:
    room = room_with((1, HIGH, 0.0), (2, HIGH, 0.0), (3, HIGH, 0.0))
    assert room.leave(2, Mono(0.5))
    assert not room.leave(2, Mono(0.5))
    assert not room.leave(99, Mono(0.5))
    assert [each.number for _ in range(3) for each in room.next(Mono(0.5))] == [1, 3]
    assert not room.leave(1, Mono(0.5)), "placed is placed"


def test_nobody_waits_longer_than_allowed_or_than_the_caller_does() -> None:
    room = WaitingRoom(POLICY)
    assert room.wake_at() is None
    room.join(1, HIGH, NEVER, Mono(0.0))
    room.join(2, HIGH, Mono(5.0), Mono(1.0))
    room.join(3, HIGH, Mono(7.0), Mono(1.0))
    assert room.wake_at() == 5.0
    assert room.wake(Mono(4.9)) == ()
    assert room.wake(Mono(5.0)) == (TurnedAway(2, Refusal(Why.WAITED_OUT, 5.0)),)
    assert room.leave(3, Mono(5.0))
    assert room.wake_at() == 60.0
    assert whys(room.wake(Mono(100.0))) == [(1, Why.WAITED_OUT)]
    assert room.wake_at() is None


def test_a_free_place_is_not_given_to_a_call_whose_time_is_up() -> None:
    room = WaitingRoom(POLICY)
    room.join(1, CRITICAL, Mono(0.5), Mono(0.0))
    room.join(2, SHEDDABLE, NEVER, Mono(0.0))
    assert whys(room.next(Mono(0.5))) == [(1, Why.WAITED_OUT), (2, None)]


def test_the_time_of_some_may_be_up_when_another_one_comes() -> None:
    room = WaitingRoom(small(1))
    room.join(1, CRITICAL, Mono(0.5), Mono(0.0))
    assert whys(room.join(2, LOW, NEVER, Mono(0.5))) == [(1, Why.WAITED_OUT)]
    assert len(room) == 1


@pytest.mark.parametrize("until", [1.0, 0.5, -inf])
def test_whoever_has_no_time_left_does_not_wait(until: float) -> None:
    room = WaitingRoom(POLICY)
    assert whys(room.join(1, CRITICAL, Mono(until), Mono(1.0))) == [(1, Why.WAITED_OUT)]
    assert len(room) == 0
    assert room.wake_at() is None


def test_a_queue_stands_when_somebody_waited_too_long_all_through_an_interval() -> None:
    room = room_with((1, HIGH, 0.0), (2, HIGH, 0.5))
    assert not room.is_standing(Mono(10.9))
    assert room.is_standing(Mono(11.0)), "since 1.0 call 1 has been too old"
    room.leave(1, Mono(5.0))
    assert room.is_standing(Mono(11.0)), "and at 5.0 call 2 was too old as well"
    room.join(3, HIGH, NEVER, Mono(4.5))
    room.leave(2, Mono(5.0))
    assert not room.is_standing(Mono(11.0)), "but for half a second nobody was"
    assert not room.is_standing(Mono(15.4))
    assert room.is_standing(Mono(15.5))
    room.leave(3, Mono(16.0))
    assert not room.is_standing(Mono(1e9))


def test_while_the_queue_stands_the_newest_of_equals_goes_first() -> None:
    room = room_with(
        (1, HIGH, 0.0), (2, HIGH, 0.0), (3, HIGH, 9.0), (4, HIGH, 10.75), (5, LOW, 0.0), (6, LOW, 10.75)
    )  # fmt: skip
    assert whys(room.next(Mono(10.75))) == [(1, None)], "not yet"
    assert room.is_standing(Mono(11.0))
    # The oldest of the least important is dropped, the newest of the most important placed.
    assert whys(room.next(Mono(11.0))) == [(5, Why.SHED), (4, None)]
    assert whys(room.next(Mono(11.0))) == [(3, None)]
    assert whys(room.next(Mono(11.0))) == [(2, None)]
    assert not room.is_standing(Mono(11.0)), "call 6 has not waited for long"
    assert whys(room.next(Mono(11.0))) == [(6, None)]


def drops_at(room: WaitingRoom, start: float, ends: float, step_s: float = 0.0625) -> list[float]:
    """When calls are dropped, if a place comes free and is taken again at each step."""
    found: list[float] = []
    number = 10_000
    for step in range(int((ends - start) / step_s)):
        now = Mono(start + step * step_s)
        found += [now for each in room.next(now) if isinstance(each, TurnedAway)]
        number += 1
        assert room.join(number, HIGH, NEVER, now) == ()
    return found


def standing_since(start: float) -> WaitingRoom:
    return room_with(*((number, LOW, start - 11.0) for number in range(200)), policy=BulkheadPolicy(
        waiting_max=5000, wait_max_s=3600.0, sojourn_target_s=1.0, sojourn_interval_s=10.0,
    ))  # fmt: skip


def test_drops_come_faster_with_the_square_root_of_their_number() -> None:
    found = drops_at(standing_since(100.0), 100.0, 200.0)
    due, planned = 100.0, []
    for count in range(1, len(found) + 1):
        planned.append(due)
        due += 10.0 / sqrt(count)
    assert len(found) > 20
    assert all(0.0 <= at - plan < 0.0625 for at, plan in zip(found, planned, strict=True))


def test_the_last_call_waiting_is_never_dropped() -> None:
    room = room_with((1, SHEDDABLE, 0.0), (2, SHEDDABLE, 0.0), (3, SHEDDABLE, 0.0))
    assert whys(room.next(Mono(59.0))) == [(1, Why.SHED), (3, None)]
    assert whys(room.next(Mono(59.0))) == [(2, None)]


def test_dropping_that_begins_again_soon_goes_on_at_nearly_the_old_pace() -> None:
    room = standing_since(100.0)
    first = drops_at(room, 100.0, 140.0)
    while len(room):
        room.next(Mono(140.0))
    assert not room.is_standing(Mono(140.0))
    for number in range(200):
        room.join(number, LOW, NEVER, Mono(140.0))
    again = drops_at(room, 151.0, 160.0)
    assert first[1] - first[0] == 10.0
    assert again[0] == 151.0
    assert again[1] - again[0] <= 10.0 / sqrt(len(first) - 2)


def test_dropping_that_begins_again_much_later_starts_afresh() -> None:
    room = standing_since(100.0)
    drops_at(room, 100.0, 140.0)
    while len(room):
        room.next(Mono(140.0))
    for number in range(200):
        room.join(number, LOW, NEVER, Mono(400.0))
    again = drops_at(room, 411.0, 425.0)
    assert again[:2] == [411.0, 421.0]


def test_a_place_after_a_long_silence_makes_up_for_the_drops_that_were_due() -> None:
    room = standing_since(100.0)
    assert whys(room.next(Mono(100.0)))[0] == (0, Why.SHED)
    dropped = [each for each in room.next(Mono(150.0)) if isinstance(each, TurnedAway)]
    due, count = 100.0 + 10.0, 1
    while due <= 150.0:
        count += 1
        due += 10.0 / sqrt(count)
    assert len(dropped) == count - 1


def test_looking_changes_nothing() -> None:
    room = room_with((1, HIGH, 0.0), (2, LOW, 0.5))
    for now in (1e9, 0.75, 20.0):
        room.is_standing(Mono(now))
        room.oldest_s(Mono(now))
        room.wake_at()
    assert len(room) == 2
    assert room.oldest_s(Mono(0.75)) == 0.75
    assert room.next(Mono(0.75)) == (Placed(1, 0.75),)


def test_a_clock_that_goes_back_makes_nobody_wait_less_than_nothing() -> None:
    room = room_with((1, HIGH, 5.0))
    assert room.oldest_s(Mono(4.0)) == 0.0
    assert room.next(Mono(4.0)) == (Placed(1, 0.0),)


def test_callers_that_come_and_go_leave_nothing_behind() -> None:
    room = room_with((0, HIGH, 0.0))
    for number in range(1, 20_000):
        room.join(number, Priority(number % 4), NEVER, Mono(number / 1000))
        room.leave(number, Mono(number / 1000))
        assert len(room._heap) <= 2 * len(room) + 65
    assert len(room) == 1
    assert set(room._lanes) == {HIGH}


def test_a_number_may_wait_again_after_its_ending() -> None:
    room = WaitingRoom(POLICY)
    room.join(1, HIGH, Mono(2.0), Mono(0.0))
    room.leave(1, Mono(0.5))
    room.join(1, HIGH, Mono(9.0), Mono(1.0))
    assert room.wake_at() == 9.0
    assert room.wake(Mono(2.0)) == ()
    with pytest.raises(AssertionError, match="waits once"):
        room.join(1, HIGH, Mono(9.0), Mono(2.0))


def test_new_settings_turn_nobody_away_and_count_from_now_on() -> None:
    room = room_with((1, HIGH, 0.0), (2, HIGH, 0.0))
    room.obey(BulkheadPolicy(waiting_max=1, wait_max_s=5.0, sojourn_target_s=3.0, sojourn_interval_s=10.0))
    assert len(room) == 2
    assert not room.is_standing(Mono(12.9))
    assert room.is_standing(Mono(13.0))
    assert whys(room.join(3, HIGH, NEVER, Mono(1.0))) == [(3, Why.NO_ROOM)]
    assert room.wake_at() == 60.0
    assert whys(room.join(4, CRITICAL, NEVER, Mono(1.0))) == [(2, Why.SHED)]
    assert room.wake_at() == 6.0


def test_fresh_calls_are_served_fast_though_twice_as_many_come_as_can_be_served() -> None:
    """A place comes free every 10 ms and a call comes every 5 ms: FIFO would make all of them late."""
    policy = BulkheadPolicy(waiting_max=500, wait_max_s=1.0, sojourn_target_s=0.005, sojourn_interval_s=0.1)
    room = WaitingRoom(policy)
    waited: list[float] = []
    for step in range(4000):
        now = Mono(step * 0.005)
        room.join(step, HIGH, NEVER, now)
        if step % 2:
            waited += [each.waited_s for each in room.next(now) if isinstance(each, Placed)]
    waited.sort()
    assert len(waited) == 2000
    assert waited[1000] <= 0.005
    assert waited[1900] <= 0.05
    assert len(room) <= 200, "and the rest is turned away in time"
