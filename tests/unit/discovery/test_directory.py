from __future__ import annotations

from math import inf

import pytest

from budao.discovery import (
    Address,
    CameBack,
    Changed,
    DirectoryMachine,
    DirectoryPolicy,
    Instance,
    Listed,
    StalePart,
    WentAway,
)
from budao.discovery.directory import Acknowledge, FollowAnew, Publish
from budao.model import BadSettings, Mono, Stage

POLICY = DirectoryPolicy(doubt_hold_s=60.0, doubt_window_s=15.0)


def copy(name: str, stage: Stage = Stage.READY) -> Instance:
    return Instance(service="orders", id=name, addresses={"http": Address("127.0.0.1", 80)}, stage=stage)


def copies(count: int) -> tuple[Instance, ...]:
    return tuple(copy(f"i{number:02}") for number in range(count))


def listed(count: int, policy: DirectoryPolicy = POLICY) -> DirectoryMachine:
    machine = DirectoryMachine("orders", policy)
    machine.handle(Listed(10, copies(count)), Mono(0.0))
    return machine


def ids(machine: DirectoryMachine) -> list[str]:
    return [instance.id for instance in machine.roster.instances]


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"i{number:02}" for number in numbers)


def test_a_list_is_published_whole_sorted_by_id_and_acknowledged() -> None:
    machine = DirectoryMachine("orders", POLICY)
    effects = machine.handle(Listed(7, (copy("b"), copy("a"))), Mono(1.0))
    assert machine.roster.instances == (copy("a"), copy("b"))
    assert machine.roster.revision == 7
    assert effects == (Publish(machine.roster), Acknowledge(7))
    assert machine.is_known


def test_an_empty_list_is_the_truth_too() -> None:
    machine = DirectoryMachine("orders", POLICY)
    assert not machine.is_known
    assert Acknowledge(3) in machine.handle(Listed(3, ()), Mono(1.0))
    assert machine.is_known


def test_a_newcomer_is_published_and_needs_no_acknowledgement() -> None:
    machine = listed(1)
    effects = machine.handle(Changed(11, put=(copy("a"),)), Mono(1.0))
    assert ids(machine) == ["a", "i00"]
    assert effects == (Publish(machine.roster),)


def test_an_instance_that_drains_is_published_and_acknowledged_at_that_revision() -> None:
    machine = listed(2)
    effects = machine.handle(Changed(11, put=(copy("i00", Stage.DRAINING),)), Mono(1.0))
    assert effects == (Publish(machine.roster), Acknowledge(11))
    assert [endpoint.id for endpoint in machine.roster.endpoints()] == ["i01"]


def test_a_single_instance_that_expires_is_gone_at_once() -> None:
    machine = listed(20)
    assert Acknowledge(11) in machine.handle(Changed(11, gone=names(3)), Mono(1.0))
    assert "i03" not in ids(machine)
    assert machine.counts.expired == 1


def test_the_only_instance_that_expires_is_gone_at_once() -> None:
    machine = listed(1)
    machine.handle(Changed(11, gone=names(0)), Mono(1.0))
    assert ids(machine) == []


def test_many_that_expire_at_one_revision_are_kept_as_doubted() -> None:
    machine = listed(10)
    machine.handle(Changed(11, gone=names(0, 1, 2, 3)), Mono(1.0))
    assert len(ids(machine)) == 10
    assert machine.roster.doubted == {*names(0, 1, 2, 3)}
    assert [e.is_doubted for e in machine.roster.endpoints()] == [True] * 4 + [False] * 6


def test_as_many_as_the_share_allows_are_let_go() -> None:
    machine = listed(10)
    machine.handle(Changed(11, gone=names(0, 1, 2)), Mono(1.0))
    assert len(ids(machine)) == 7
    assert machine.roster.doubted == frozenset()


def test_many_that_expire_one_by_one_are_all_kept_also_those_let_go_when_it_did_not_look_like_many() -> None:
    machine = listed(10)
    for number in range(3):
        machine.handle(Changed(11 + number, gone=names(number)), Mono(1.0 + number))
    assert len(ids(machine)) == 7
    machine.handle(Changed(14, gone=names(3)), Mono(4.0))
    assert len(ids(machine)) == 10
    assert machine.roster.doubted == {*names(0, 1, 2, 3)}
    assert (machine.counts.expired, machine.counts.doubted) == (0, 4)
    # Each is kept for one hold after its own expiry.
    assert machine.wake_at() == 61.0


def test_expiries_further_apart_than_the_window_are_no_mass() -> None:
    machine = listed(4)
    for number in range(4):
        machine.handle(Changed(11 + number, gone=names(number)), Mono(16.0 * number))
    assert ids(machine) == []


def test_the_doubted_are_let_go_after_their_hold_also_when_more_vanish_meanwhile() -> None:
    machine = listed(10)
    machine.handle(Changed(11, gone=names(0, 1, 2, 3)), Mono(1.0))
    machine.handle(Changed(12, gone=names(4)), Mono(50.0))
    assert machine.wake_at() == 61.0
    assert machine.wake(Mono(60.9)) == ()
    machine.wake(Mono(61.0))
    assert ids(machine) == [f"i{number:02}" for number in range(5, 10)]
    assert machine.counts.expired == 5
    assert machine.wake_at() is None


def test_a_mass_expiry_of_everybody_is_let_go_in_the_end() -> None:
    machine = listed(3)
    machine.handle(Changed(11, gone=names(0, 1, 2)), Mono(1.0))
    assert len(ids(machine)) == 3
    machine.wake(Mono(61.0))
    assert ids(machine) == []


def test_an_instance_that_registers_again_is_no_longer_doubted() -> None:
    machine = listed(4)
    machine.handle(Changed(11, gone=names(0, 1)), Mono(1.0))
    machine.handle(Changed(12, put=(copy("i00"),)), Mono(2.0))
    assert machine.roster.doubted == {"i01"}
    assert machine.counts.cleared == 1
    machine.wake(Mono(100.0))
    assert ids(machine) == ["i00", "i02", "i03"]


def test_an_instance_that_came_back_does_not_count_among_those_that_expired() -> None:
    machine = listed(10)
    machine.handle(Changed(11, gone=names(0, 1, 2)), Mono(1.0))
    machine.handle(Changed(12, put=(copy("i00"), copy("i01"))), Mono(2.0))
    machine.handle(Changed(13, gone=names(3)), Mono(3.0))
    assert machine.roster.doubted == frozenset()


def test_those_that_drained_have_left_and_are_never_held() -> None:
    machine = listed(4)
    machine.handle(Changed(11, put=tuple(copy(name, Stage.DRAINING) for name in names(0, 1, 2, 3))), Mono(1.0))
    machine.handle(Changed(12, gone=names(0, 1, 2, 3)), Mono(2.0))
    assert ids(machine) == []
    assert machine.counts.expired == 0


def test_those_that_drained_are_let_go_while_others_are_held() -> None:
    machine = listed(4)
    machine.handle(Changed(11, put=(copy("i00", Stage.DRAINING),)), Mono(1.0))
    machine.handle(Changed(12, gone=names(0, 1, 2)), Mono(2.0))
    assert ids(machine) == ["i01", "i02", "i03"]
    assert machine.roster.doubted == {"i01", "i02"}


def test_a_share_of_one_switches_the_guard_off() -> None:
    machine = listed(4, DirectoryPolicy(doubt_share=1.0))
    machine.handle(Changed(11, gone=names(0, 1, 2, 3)), Mono(1.0))
    assert ids(machine) == []


def test_while_the_source_is_away_the_last_roster_is_served_and_says_since_when() -> None:
    machine = listed(2)
    machine.handle(WentAway("no route"), Mono(5.0))
    machine.handle(WentAway("still no route"), Mono(6.0))
    assert machine.roster.stale_since == 5.0
    assert (machine.problem, machine.counts.away) == ("still no route", 1)
    assert len(ids(machine)) == 2
    assert machine.wake_at() is None
    machine.handle(CameBack(), Mono(9.0))
    assert machine.roster.stale_since is None
    assert machine.problem is None


def test_a_roster_older_than_the_bound_is_empty_until_the_source_is_back() -> None:
    machine = listed(2, DirectoryPolicy(stale_max_s=30.0))
    machine.handle(WentAway("no route"), Mono(5.0))
    assert machine.wake_at() == 35.0
    machine.wake(Mono(35.0))
    assert ids(machine) == []
    assert machine.wake_at() is None
    machine.handle(CameBack(), Mono(100.0))
    assert len(ids(machine)) == 2


def test_the_time_a_source_is_away_does_not_count_against_the_doubted() -> None:
    machine = listed(4)
    machine.handle(Changed(11, gone=names(0, 1)), Mono(1.0))
    machine.handle(WentAway("no route"), Mono(11.0))
    assert machine.wake(Mono(1_000.0)) == ()
    assert len(ids(machine)) == 4
    machine.handle(CameBack(), Mono(1_011.0))
    assert machine.wake_at() == 1_061.0


def test_a_store_that_comes_back_empty_empties_nothing_until_the_hold_is_over() -> None:
    machine = listed(3)
    machine.handle(WentAway("no route"), Mono(5.0))
    machine.handle(Listed(1, ()), Mono(6.0))
    assert len(ids(machine)) == 3
    assert machine.roster.revision == 1
    machine.handle(Changed(2, put=(copy("i00"),)), Mono(7.0))
    assert machine.roster.doubted == {"i01", "i02"}
    machine.wake(Mono(66.0))
    assert ids(machine) == ["i00"]


def test_what_was_said_before_changes_nothing() -> None:
    machine = listed(2)
    assert machine.handle(Changed(10, gone=names(0)), Mono(1.0)) == ()
    assert machine.handle(Changed(9, put=(copy("x"),)), Mono(1.0)) == ()
    assert machine.handle(CameBack(), Mono(1.0)) == ()
    assert machine.handle(Listed(10, copies(2)), Mono(1.0)) == (Acknowledge(10),)


def test_an_unknown_id_that_is_gone_changes_nobody() -> None:
    machine = listed(2)
    machine.handle(Changed(11, gone=("who",)), Mono(1.0))
    assert len(ids(machine)) == 2


def test_time_that_stands_or_jumps_far_ahead_is_borne() -> None:
    machine = listed(4)
    machine.handle(Changed(11, gone=names(0, 1)), Mono(5.0))
    assert machine.wake(Mono(5.0)) == ()
    machine.handle(CameBack(), Mono(1e12))
    assert ids(machine) == ["i02", "i03"]


def test_instances_beyond_the_bound_are_left_out_and_fetched_when_there_is_room() -> None:
    machine = DirectoryMachine("orders", DirectoryPolicy(instances_max=10, doubt_share=1.0))
    machine.handle(Listed(10, copies(12)), Mono(0.0))
    assert len(ids(machine)) == 10
    assert machine.counts.left_out == 2
    assert FollowAnew() not in machine.handle(Changed(11, gone=names(0)), Mono(1.0))
    assert FollowAnew() in machine.handle(Changed(12, gone=names(1)), Mono(2.0))
    assert FollowAnew() not in machine.handle(Changed(13, gone=names(2)), Mono(3.0))
    machine.handle(Listed(13, copies(12)[3:]), Mono(4.0))
    assert ids(machine) == [f"i{number:02}" for number in range(3, 12)]


def test_known_instances_keep_their_place_when_a_list_is_too_long() -> None:
    machine = DirectoryMachine("orders", DirectoryPolicy(instances_max=2))
    machine.handle(Listed(1, (copy("y"), copy("z"))), Mono(0.0))
    machine.handle(Listed(2, (copy("a"), copy("y"), copy("z"))), Mono(1.0))
    assert ids(machine) == ["y", "z"]


def test_a_policy_names_every_number_that_cannot_be() -> None:
    with pytest.raises(BadSettings) as caught:
        DirectoryPolicy(doubt_share=1.5, doubt_min=0, doubt_hold_s=-1.0, stale_max_s=-inf, instances_max=0)
    assert [path for path, _ in caught.value.problems] == [
        "directory.doubt_share",
        "directory.doubt_min",
        "directory.doubt_hold_s",
        "directory.stale_max_s",
        "directory.instances_max",
    ]


def test_of_a_list_that_is_old_in_part_the_rest_goes_on() -> None:
    machine = listed(3, DirectoryPolicy(stale_max_s=20.0))
    old = StalePart("no route", frozenset(names(0, 1)))
    machine.handle(Listed(11, copies(3), old), Mono(5.0))
    assert (machine.roster.stale_since, machine.problem, machine.counts.away) == (5.0, "no route", 1)
    machine.handle(Listed(12, (*copies(3), copy("new")), old), Mono(20.0))
    assert machine.roster.stale_since == 5.0
    assert machine.wake_at() == 25.0
    machine.wake(Mono(25.0))
    assert ids(machine) == ["i02", "new"]
    machine.handle(WentAway("all is gone"), Mono(26.0))
    assert ids(machine) == []
    machine.handle(Listed(13, copies(3)), Mono(30.0))
    assert (ids(machine), machine.roster.stale_since, machine.problem) == (list(names(0, 1, 2)), None, None)


def test_who_was_doubted_before_a_part_went_away_waits_for_it_and_who_is_doubted_since_does_not() -> None:
    machine = listed(4, POLICY)
    machine.handle(Changed(11, gone=names(0, 1)), Mono(10.0))
    rest = (copy("i02"), copy("i03"))
    far = (copy("x"), copy("y"), copy("z"))
    old = StalePart("no route", frozenset(names(2, 3)))
    machine.handle(Listed(12, (*rest, *far), old), Mono(30.0))
    machine.handle(Listed(13, rest, old), Mono(50.0))
    assert machine.roster.doubted == frozenset((*names(0, 1), "x", "y", "z"))
    assert machine.wake_at() == 110.0
    machine.wake(Mono(110.0))
    assert machine.roster.doubted == frozenset(names(0, 1))
    machine.handle(CameBack(), Mono(130.0))
    assert machine.wake_at() == 170.0
    machine.wake(Mono(170.0))
    assert ids(machine) == list(names(2, 3))
