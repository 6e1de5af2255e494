"""What holds for every balancer over any history, and for subsets of any roster."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budao.discovery import BALANCERS, balancer
from budao.discovery.balancing import subset
from budao.model import Endpoint, Load, Mono

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pick"), st.booleans(), st.sets(st.integers(0, 7), max_size=8)),
        st.tuples(st.just("settle"), st.integers(0, 50), st.floats(0.0, 10.0), st.booleans(), st.booleans()),
        st.tuples(st.just("drop"), st.integers(0, 50)),
        st.tuples(st.just("renew"), st.dictionaries(st.integers(0, 7), st.sampled_from([0.0, 0.5, 1.0, 40.0]))),
        st.tuples(st.just("wait"), st.floats(0.0, 100.0)),
    ),
    max_size=60,
)


def endpoint(number: int, weight: float = 1.0, zone: str = "") -> Endpoint:
    return Endpoint(id=f"s{number}", host="10.0.0.1", port=80, weight=weight, zone=zone)


@pytest.mark.parametrize("name", BALANCERS)
@settings(max_examples=40, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_every_choice_is_on_the_roster_and_what_is_in_flight_adds_up(
    name: str, steps: list[tuple[Any, ...]], seed: int
) -> None:
    if name == "maglev":
        chooser: Any = type(balancer(name, Random(0)))(Random(seed), slots=101)
    else:
        chooser = balancer(name, Random(seed), client="c")
    now, roster, held = 0.0, {}, []  # type: ignore[var-annotated]
    for kind, *more in steps:
        if kind == "pick":
            has_key, avoided = more
            avoid = {f"s{each}" for each in avoided}
            choice = chooser.pick(Mono(now), key=b"k" if has_key else None, avoid=avoid)
            assert (choice is None) == (not roster)
            if choice is not None:
                assert roster[choice.endpoint.id] == choice.endpoint
                weighty = {each.id for each in roster.values() if each.weight} or set(roster)
                assert choice.endpoint.id in weighty
                assert choice.endpoint.id not in avoid or weighty <= avoid
                held.append(choice)
        elif kind == "settle" and held:
            choice = held.pop(more[0] % len(held))
            chooser.settle(choice, more[1], more[2], Load(more[0], more[1]) if more[3] else None, Mono(now))
            with pytest.raises(AssertionError):
                chooser.drop(choice, Mono(now))
        elif kind == "drop" and held:
            chooser.drop(held.pop(more[0] % len(held)), Mono(now))
        elif kind == "renew":
            roster = {f"s{number}": endpoint(number, weight) for number, weight in more[0].items()}
            chooser.renew(list(roster.values()), Mono(now))
        elif kind == "wait":
            now += more[0]
        here = Counter(choice.place for choice in held)
        assert all(place.in_flight == here[place] for place in chooser._by_id.values())


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(0, 60),
    most=st.integers(1, 30),
    client=st.text(max_size=8),
    gone=st.integers(0, 59),
    order=st.randoms(use_true_random=False),
)
def test_a_subset_depends_on_the_client_alone_and_a_removal_changes_one_place(
    count: int, most: int, client: str, gone: int, order: Random
) -> None:
    endpoints = [endpoint(each) for each in range(count)]
    kept = subset(endpoints, client, "", most=most, near_share=0.75)
    assert len(kept) == min(count, most)
    shuffled = list(endpoints)
    order.shuffle(shuffled)
    assert subset(shuffled, client, "", most=most, near_share=0.75) == kept
    without = [each for each in endpoints if each.id != f"s{gone}"]
    after = subset(without, client, "", most=most, near_share=0.75)
    assert len({each.id for each in kept} - {each.id for each in after}) <= 1
    assert {each.id for each in kept} - {each.id for each in after} <= {f"s{gone}"}


def test_subsets_of_many_clients_spread_evenly() -> None:
    endpoints = [endpoint(each) for each in range(100)]
    found = Counter(
        each.id
        for client in range(1000)
        for each in subset(endpoints, f"client-{client}", "", most=20, near_share=0.75)
    )
    # 200 each if it were exact; four standard deviations of 12.6 for the worst of a hundred.
    assert 150 <= min(found.values()) <= max(found.values()) <= 250


def test_a_subset_prefers_the_own_zone_and_keeps_a_way_out() -> None:
    endpoints = [endpoint(each, zone="a" if each < 50 else "b") for each in range(100)]
    kept = subset(endpoints, "c", "a", most=20, near_share=0.75)
    near = sum(each.zone == "a" for each in kept)
    assert 15 <= near < 20
