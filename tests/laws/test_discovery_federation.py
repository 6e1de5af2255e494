"""The federated set: laws of merging, over random histories with partitions, deltas, pruning and forgetting."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from budao.discovery import Address, FederatedSet, FederationPolicy, Instance
from budao.discovery.federation import Key

NAMES = ("east", "north", "south", "west", "zenith")
KEYS: tuple[Key, ...] = tuple(("shop", id_) for id_ in "abcd")
SMALL = FederationPolicy(removals_max=2)


def instance(key: Key, weight: float = 1.0) -> Instance:
    return Instance(service=key[0], id=key[1], addresses={"http": Address("10.0.0.1", 80)}, weight=weight)


def exchange(to: FederatedSet, by: FederatedSet, *, acknowledges: bool = True) -> int:
    """By delta, as on a connection; how many writes went over."""
    delta = by.delta_since(to.digest(), to.forgotten)
    absorbed = to.absorb(delta)
    assert not absorbed.has_gap
    if acknowledges:
        by.acknowledge(to.cluster, to.digest())
        to.acknowledge(by.cluster, by.digest())
    return sum(len(span.writes) for span in delta.spans)


def level(copies: list[FederatedSet], *, settles: bool = True) -> None:
    for _ in range(4):
        for to in copies:
            for by in copies:
                if to is not by:
                    exchange(to, by)
                    if settles:
                        to.settle(KEYS)


STEP = st.tuples(
    st.sampled_from(["put", "put", "remove", "withdraw", "meet", "meet", "settle"]),
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from(KEYS),
)
HISTORY = st.lists(STEP, max_size=60)


def lived(
    steps: list[tuple[str, int, int, Key]], count: int = 3, policy: FederationPolicy = SMALL
) -> list[FederatedSet]:
    copies = [FederatedSet(name, 1, policy) for name in NAMES[:count]]
    for number, (what, one, other, key) in enumerate(steps):
        copy, peer = copies[one % count], copies[other % count]
        if what == "put":
            copy.put(instance(key, float(number)))
        elif what == "remove":
            copy.remove(key)
            assert copy.seen(key) is None
        elif what == "withdraw":
            copy.withdraw(key)
        elif what == "settle":
            copy.settle(KEYS)
        elif copy is not peer:
            exchange(copy, peer)
    return copies


@given(HISTORY)
def test_merging_commutes_associates_and_is_idempotent(steps: list[tuple[str, int, int, Key]]) -> None:
    one, two, three = lived(steps)
    left, right = one.copy(), two.copy()
    left.merge(two)
    right.merge(one)
    assert left.contents() == right.contents()
    first, then = left.copy(), two.copy()
    first.merge(three)
    then.merge(three)
    together = one.copy()
    together.merge(then)
    assert first.contents() == together.contents()
    again = first.copy()
    again.merge(first)
    again.merge(two)
    assert again.contents() == first.contents()


@given(HISTORY)
def test_a_delta_does_what_a_full_merge_does(steps: list[tuple[str, int, int, Key]]) -> None:
    one, two, _ = lived(steps)
    full, little = one.copy(), one.copy()
    full.merge(two)
    delta = two.delta_since(little.digest(), little.forgotten)
    little.absorb(delta)
    assert little.contents() == full.contents()
    assert little.visible() == full.visible()
    little.absorb(delta)
    assert little.contents() == full.contents()


@given(HISTORY, st.integers(3, 5))
def test_clusters_that_are_connected_again_agree(steps: list[tuple[str, int, int, Key]], count: int) -> None:
    copies = lived(steps, count)
    level(copies)
    assert all(copy.contents() == copies[0].contents() for copy in copies)
    assert all(copy.visible() == copies[0].visible() for copy in copies)


@given(HISTORY, st.sampled_from(KEYS), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=20))
def test_what_is_removed_is_never_seen_again_where_the_removal_is_known(
    steps: list[tuple[str, int, int, Key]], key: Key, meetings: list[tuple[int, int]]
) -> None:
    copies = lived(steps)
    level(copies)
    old = [copy.copy() for copy in copies]
    copies[0].remove(key)
    knowing = {0}
    for to, by in meetings:
        if to != by:
            exchange(copies[to], copies[by])
            copies[to].settle([key])
            # Old gossip comes in between and brings nothing back.
            copies[to].merge(old[by])
            if by in knowing:
                knowing.add(to)
        assert all(copies[each].seen(key) is None for each in knowing)


@given(HISTORY, st.integers(1, 2))
def test_a_claim_renewed_while_another_cluster_removes_it_stays(
    steps: list[tuple[str, int, int, Key]], remover: int
) -> None:
    copies = lived(steps)
    level(copies)
    fresh = instance(KEYS[0], 1e5)
    copies[0].put(fresh)
    copies[remover].remove(KEYS[0])
    level(copies)
    for copy in copies:
        seen = copy.seen(KEYS[0])
        assert seen is not None
        assert (seen.instance, seen.cluster, seen.conflicts) == (
            fresh,
            "east",
            0 if seen.conflicts == 0 else seen.conflicts,
        )


@given(HISTORY, st.integers(0, 4))
def test_pruning_changes_nothing_that_is_seen(steps: list[tuple[str, int, int, Key]], removals_max: int) -> None:
    pruning = lived(steps, policy=FederationPolicy(removals_max=removals_max))
    keeping = lived(steps)
    for one, other in zip(pruning, keeping, strict=True):
        assert one.visible() == other.visible()
        assert one.contents() == other.contents()
        assert one.removals <= removals_max * len(one.clusters)


@given(HISTORY, st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=20), st.integers(0, 2**32))
def test_a_forgotten_cluster_stays_forgotten_until_it_comes_under_a_later_epoch(
    steps: list[tuple[str, int, int, Key]], meetings: list[tuple[int, int]], seed: int
) -> None:
    copies = lived(steps)
    level(copies)
    old = [copy.copy() for copy in copies]
    copies[0].forget("south")
    knowing = {0}
    rng = Random(seed)
    for to, by in meetings:
        if to != by:
            exchange(copies[to], copies[by])
            copies[to].merge(rng.choice(old))
            if by in knowing:
                knowing.add(to)
        for each in knowing:
            assert all(seen.cluster != "south" for seen in copies[each].visible().values())
            assert "south" not in copies[each].digest()
    level(copies)
    assert copies[2].is_forgotten
    assert not copies[2].put(instance(("shop", "new")))
    copies[2].renew(2)
    copies[2].put(instance(("shop", "new")))
    level(copies)
    assert all(copy.seen(("shop", "new")) is not None for copy in copies)
    assert all(copy.contents() == copies[0].contents() for copy in copies)


@given(st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=30)
def test_who_was_away_gets_no_more_than_what_changed(puts: int, removals: int) -> None:
    home, away = FederatedSet("east", 1), FederatedSet("west", 1)
    for number in range(200):
        home.put(instance(("shop", f"i{number}")))
    assert exchange(away, home) == 200
    for number in range(puts):
        home.put(instance(("shop", f"i{number}"), 2.0))
        home.put(instance(("shop", f"i{number}"), 3.0))
    for number in range(removals):
        home.remove(("shop", f"i{199 - number}"))
    assert exchange(away, home) == puts + removals
    assert away.visible() == home.visible()
    assert exchange(away, home) == 0


@given(HISTORY, HISTORY)
def test_a_cluster_that_starts_anew_replaces_what_it_said(
    before: list[tuple[str, int, int, Key]], after: list[tuple[str, int, int, Key]]
) -> None:
    copies = lived(before)
    copies[1] = FederatedSet("north", 2, SMALL)
    for number, (what, one, other, key) in enumerate(after):
        copy, peer = copies[one % 3], copies[other % 3]
        if what == "put":
            copy.put(instance(key, float(number)))
        elif copy is not peer and what == "meet":
            exchange(copy, peer)
    level(copies)
    assert all(copy.contents() == copies[0].contents() for copy in copies)


def test_two_claims_of_one_id_are_told_and_all_choose_alike() -> None:
    east, west = FederatedSet("east", 1), FederatedSet("west", 1)
    east.put(instance(KEYS[0], 1.0))
    west.put(instance(KEYS[0], 2.0))
    level([east, west])
    for copy in (east, west):
        seen = copy.seen(KEYS[0])
        assert seen is not None
        assert (seen.cluster, seen.conflicts, seen.instance.weight) == ("east", 1, 1.0)
    east.withdraw(KEYS[0])
    level([east, west])
    assert (
        east.seen(KEYS[0])
        == west.seen(KEYS[0])
        == replace(seen, instance=instance(KEYS[0], 2.0), cluster="west", conflicts=0)
    )


def test_a_writer_whose_calendar_went_back_is_heard_again() -> None:
    east, west = FederatedSet("east", 900), FederatedSet("west", 1)
    east.put(instance(KEYS[0]))
    exchange(west, east)
    east = FederatedSet("east", 100)
    east.put(instance(KEYS[1]))
    level([east, west])
    assert (east.renewals, east.epoch) == (1, 901)
    assert list(west.visible()) == list(east.visible()) == [KEYS[1]]


def test_who_missed_more_removals_than_the_log_holds_gets_the_part_whole() -> None:
    home, away = FederatedSet("east", 1, SMALL), FederatedSet("west", 1, SMALL)
    for number in range(10):
        home.put(instance(("shop", f"i{number}")))
    exchange(away, home)
    for number in range(5):
        home.remove(("shop", f"i{number}"))
    assert [span.base for span in home.delta_since(away.digest()).spans if span.cluster == "east"] == [None]
    exchange(away, home)
    assert away.visible() == home.visible()


def test_a_delta_that_overlaps_what_is_known_adds_only_what_is_new() -> None:
    east, west = FederatedSet("east", 1), FederatedSet("west", 1)
    for id_ in "ab":
        east.put(instance(("shop", id_)))
    exchange(west, east)
    east.put(instance(("shop", "c")))
    again = west.absorb(east.delta_since({"east": (1, 0), "west": (1, 0)}))
    assert again.keys == {("shop", "c")}
    # A write told twice, or out of order, would be refused by whoever is told.
    (told,) = [span for span in west.delta_since({"east": (1, 0)}).spans if span.cluster == "east"]
    assert [write.counter for write in told.writes] == [1, 2, 3]


def test_an_instance_that_is_back_is_no_removal_any_more() -> None:
    east, west = FederatedSet("east", 1), FederatedSet("west", 1)
    east.put(instance(KEYS[0]))
    exchange(west, east, acknowledges=False)
    east.withdraw(KEYS[0])
    assert east.removals == 1
    east.put(instance(KEYS[0]))
    assert east.removals == 0
    assert exchange(west, east, acknowledges=False) == 1


def test_who_got_a_part_whole_does_not_claim_to_know_the_removals_before_it() -> None:
    policy = FederationPolicy(removals_max=0)
    east, north, south = (FederatedSet(name, 1, policy) for name in ("east", "north", "south"))
    east.put(instance(KEYS[0]))
    east.put(instance(KEYS[1]))
    exchange(south, east)
    east.withdraw(KEYS[0])
    exchange(north, east)
    exchange(south, north)
    assert list(south.visible()) == [KEYS[1]]


def test_a_cluster_that_is_held_back_learns_and_says_nothing_of_its_own() -> None:
    east, west = FederatedSet("east", 1), FederatedSet("west", 1)
    west.put(instance(KEYS[0]))
    exchange(east, west)
    west = FederatedSet("west", 2)
    west.is_held = True
    east.put(instance(KEYS[1]))
    level([east, west])
    assert list(east.visible()) == [KEYS[0], KEYS[1]]
    assert list(west.visible()) == [KEYS[1]]
    west.is_held = False
    level([east, west])
    assert list(east.visible()) == [KEYS[1]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=80), st.integers(1, 5))
def test_of_two_processes_with_one_name_one_gives_in_soon_and_the_other_stands(
    meetings: list[tuple[int, int]], renewals_max: int
) -> None:
    policy = FederationPolicy(renewals_max=renewals_max)
    copies = [
        FederatedSet(name, epoch, policy)
        for name, epoch in zip(("east", "east", "mid", "far"), (1, 5, 1, 1), strict=True)
    ]
    for number in (0, 1):
        copies[number].put(instance(KEYS[number]))
    # The two are never connected to each other, and any two others meet in any order.
    level_pairs = [(to, by) for to in range(4) for by in range(4) if to != by and {to, by} != {0, 1}]
    for to, by in meetings + level_pairs * (4 * renewals_max + 8):
        if to != by and {to, by} != {0, 1}:
            exchange(copies[to], copies[by], acknowledges=False)
    assert [copies[0].is_contested, copies[1].is_contested].count(True) == 1
    assert copies[0].renewals + copies[1].renewals <= 2 * renewals_max + 1
    gave_in, stands = sorted(copies[:2], key=lambda copy: not copy.is_contested)
    assert "another process" in str(gave_in.problem)
    assert "does another process" in str(stands.problem) or renewals_max == 1
    assert copies[2].contents()["east"] == copies[3].contents()["east"] == stands.contents()["east"]
    stands.calm()
    assert stands.problem is None


def test_of_two_processes_with_one_name_the_earlier_one_gives_in() -> None:
    earlier, later, mid = FederatedSet("east", 1), FederatedSet("east", 5), FederatedSet("mid", 1)
    for _ in range(20):
        for copy in (earlier, later):
            exchange(mid, copy)
            exchange(copy, mid)
    assert (earlier.is_contested, later.is_contested) == (True, False)
    assert mid.digest()["east"][0] == later.epoch <= 12
