"""Local and remote instances in one list, stepped with numbers."""

from __future__ import annotations

from budao.discovery import (
    Address,
    CameBack,
    Changed,
    DirectoryMachine,
    DirectoryPolicy,
    FederationPolicy,
    Instance,
    Listed,
    Seen,
    Sighting,
    StalePart,
    WentAway,
)
from budao.discovery.federation_joining import Joining, Remote
from budao.model import Mono, Stage

POLICY = FederationPolicy(first_list_max_s=5.0)


def instance(id_: str, **more: object) -> Instance:
    return Instance(service="shop", id=id_, addresses={"http": Address("10.0.0.1", 80)}, zone="a", **more)  # type: ignore[arg-type]


def remote(*ids: str, clusters: str = "west") -> Remote:
    return Remote({id_: Seen(instance(id_), "west") for id_ in ids}, frozenset(clusters.split()))


def ids(said: tuple[Sighting, ...]) -> list[object]:
    """Lists as their ids, those that are old in capitals; the rest by its name."""
    return [_ids(each) if isinstance(each, Listed) else type(each).__name__ for each in said]


def _ids(listed: Listed) -> list[str]:
    old = frozenset() if listed.stale is None else listed.stale.ids
    return [each.id.upper() if each.id in old else each.id for each in listed.instances]


def at(seconds: float) -> Mono:
    return Mono(seconds)


def test_an_id_that_is_here_and_elsewhere_is_the_local_one() -> None:
    joining = Joining(POLICY, at(0))
    assert joining.handle(remote("a", "b"), at(0)) == ()
    (said,) = joining.handle(Listed(3, (instance("b", weight=2.0),)), at(1))
    assert isinstance(said, Listed)
    assert (said.revision, [(each.id, each.weight) for each in said.instances]) == (3, [("a", 1.0), ("b", 2.0)])
    assert joining.wake_at() is None or joining.wake(at(9)) == ()


def test_local_changes_are_told_even_if_nothing_looks_different_and_remote_ones_only_if_it_does() -> None:
    joining = Joining(POLICY, at(0))
    joining.handle(Listed(3, (instance("a"),)), at(0))
    (said,) = joining.handle(Changed(4, (instance("b"),), ("a",)), at(1))
    assert said == Listed(4, (instance("b"),))
    assert joining.handle(Changed(5), at(1)) == (Listed(5, (instance("b"),)),)
    assert joining.handle(remote(), at(1)) == ()
    assert ids(joining.handle(remote("w"), at(1))) == [["w", "b"]]


def test_remote_instances_show_alone_once_the_local_source_says_that_it_is_away() -> None:
    joining = Joining(POLICY, at(0))
    joining.handle(remote("w"), at(0))
    assert ids(joining.handle(WentAway("no route"), at(1))) == [["w"]]
    assert joining.handle(Listed(3, (instance("a"),)), at(2)) == (Listed(3, (instance("w"), instance("a"))),)


def test_remote_instances_show_alone_when_the_local_source_has_said_nothing_for_long() -> None:
    joining = Joining(POLICY, at(0))
    joining.handle(remote("w"), at(1))
    assert joining.wake_at() == 5.0
    assert joining.wake(at(4.9)) == ()
    assert ids(joining.wake(at(5))) == [["w"]]
    assert joining.wake_at() is None


def test_a_source_that_is_back_without_a_list_ever_is_no_reason_to_hold_remote_instances() -> None:
    joining = Joining(POLICY, at(0))
    joining.handle(WentAway("no route"), at(1))
    assert joining.handle(CameBack(), at(2)) == ()
    assert ids(joining.handle(remote("w"), at(3))) == [["w"]]


def test_an_empty_list_is_no_truth_before_the_local_source_has_listed() -> None:
    joining = Joining(POLICY, at(0))
    assert joining.handle(WentAway("no route"), at(1)) == (WentAway("no route"),)
    assert joining.handle(remote(), at(2)) == ()
    assert ids(joining.handle(remote("w"), at(3))) == [["w"]]
    # Once it was shown, it is taken back too.
    assert ids(joining.handle(remote(), at(10))) == [[]]


def test_while_the_local_source_is_away_remote_changes_come_and_the_local_half_is_old() -> None:
    joining = Joining(POLICY, at(0))
    joining.handle(Listed(3, (instance("a"),)), at(0))
    assert joining.handle(WentAway("no route"), at(10)) == (
        Listed(3, (instance("a"),), StalePart("no route", frozenset({"a"}))),
    )
    assert ids(joining.handle(remote("w"), at(11))) == [["w", "A"]]
    assert ids(joining.handle(remote("w", "x"), at(11.1))) == [["w", "x", "A"]]
    assert joining.handle(remote("w", "x"), at(11.2)) == ()
    assert joining.wake_at() is None
    assert joining.handle(CameBack(), at(12.5)) == (Listed(3, tuple(map(instance, "wxa"))),)


def test_a_local_source_that_is_old_in_part_is_an_old_half_until_it_is_back() -> None:
    joining = Joining(POLICY, at(0))
    part = StalePart("no route", frozenset({"a"}))
    assert ids(joining.handle(Listed(3, (instance("a"), instance("b")), part), at(0))) == [["A", "B"]]
    assert ids(joining.handle(Changed(4, gone=("b",)), at(1))) == [["A"]]
    assert ids(joining.handle(Listed(5, (instance("a"),)), at(2))) == [["a"]]


def test_remote_changes_do_not_restart_how_long_the_local_half_is_believed_nor_hide_with_it() -> None:
    joining, directory = Joining(POLICY, at(0)), DirectoryMachine("shop", DirectoryPolicy(stale_max_s=30.0))

    def carry(fact: Sighting | Remote, now: float) -> list[str]:
        for sighting in joining.handle(fact, at(now)):
            directory.handle(sighting, at(now))
        return [each.id for each in directory.roster.instances]

    carry(Listed(3, (instance("a"), instance("b"))), 0)
    carry(WentAway("no route"), 10)
    for second in range(11, 40):
        far = [f"w{number}" for number in range(11, second + 1)]
        assert carry(remote(*far), second) == ["a", "b", *far]
        assert directory.roster.stale_since == 10
    assert directory.wake_at() == 40
    assert carry(remote(*far), 40) == ["a", "b", *far]
    directory.wake(at(40))
    assert [each.id for each in directory.roster.instances] == far
    assert (directory.counts.away, directory.roster.stale_since) == (1, 10)
    assert carry(remote(*far, "x"), 50) == [*far, "x"]
    assert carry(CameBack(), 60) == ["a", "b", *far, "x"]
    assert directory.roster.stale_since is None


def test_a_new_follower_goes_by_the_local_list_of_the_one_before() -> None:
    joining = Joining(POLICY, at(0))
    joining.handle(Listed(3, (instance("a"),)), at(0))
    again = Joining(POLICY, at(9), joining.known)
    assert again.handle(remote("w"), at(9)) == ()
    assert ids(again.handle(WentAway("no route"), at(9))) == [["w", "A"]]


def test_instances_of_a_forgotten_cluster_leave_on_purpose_whatever_metadata_others_carry() -> None:
    joining, directory = Joining(POLICY, at(0)), DirectoryMachine("shop", DirectoryPolicy())

    def carry(fact: Sighting | Remote, now: float) -> None:
        for sighting in joining.handle(fact, at(now)):
            directory.handle(sighting, at(now))

    # It says of itself that it is of a cluster, as one that carries this name for a purpose of its own would.
    mine = [instance(id_, metadata={"cluster": "blue"}) for id_ in "abcd"]
    carry(Listed(3, tuple(mine)), 0)
    carry(remote("w", "x", "y", "z"), 1)
    assert len(directory.roster.instances) == 8
    carry(remote(clusters=""), 2)
    assert [each.id for each in directory.roster.instances] == list("abcd")
    assert not directory.roster.doubted
    carry(Changed(4, gone=tuple("abcd")), 3)
    assert directory.roster.doubted == frozenset("abcd")


def test_instances_a_known_cluster_lost_all_at_once_are_doubted() -> None:
    joining, directory = Joining(POLICY, at(0)), DirectoryMachine("shop", DirectoryPolicy())
    for fact in (Listed(3, (instance("a"),)), remote("w", "x", "y"), remote()):
        for sighting in joining.handle(fact, at(1)):
            directory.handle(sighting, at(1))
    assert directory.roster.doubted == frozenset("wxy")
    assert all(each.stage is Stage.READY for each in directory.roster.instances)
