"""A storm of clients: with slots it is over after one round, and without it goes on."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from random import Random

import pytest

from budao.model import BadSettings, Mono
from budao.push import Admitted, Advice, Backoff, PacePolicy, Pacer, Slot

POLICY = PacePolicy(rate_per_s=1_000.0, burst=500)


def storm(clients: int, *, has_slots: bool, whole_seconds: bool = False) -> tuple[list[float], list[float]]:
    """When clients that all come within 50 ms were admitted, and when any was sent away.

    Without slots they are sent away with nothing but the advice to come back later, and back off as clients do.
    """
    rng = Random(7)
    pacer = Pacer(POLICY, rng)
    backoffs = [Backoff() for _ in range(clients)]
    coming = [(rng.uniform(0.0, 0.05), number) for number in range(clients)]
    heapify(coming)
    admitted, refused = [], []
    while coming:
        at, number = heappop(coming)
        answer = pacer.admit(Mono(at))
        if isinstance(answer, Admitted):
            admitted.append(at)
            continue
        refused.append(at)
        after_s = 0.0
        if has_slots:
            after_s = float(answer.retry_after_s) if whole_seconds else answer.after_s
        pause_s = backoffs[number].pause_s(rng, Advice.LATER, after_s)
        assert pause_s is not None
        heappush(coming, (at + pause_s, number))
    return admitted, refused


def test_ten_thousand_at_once_are_all_admitted_at_the_rate_without_a_second_storm() -> None:
    admitted, refused = storm(10_000, has_slots=True)
    assert len(admitted) == 10_000
    assert max(admitted) < 9.5 * 1.35  # 9,500 beyond the burst take 9.5 s at best
    first_round = sum(at < 0.1 for at in refused)
    assert len(refused) - first_round < 0.3 * 10_000  # most of them keep their first slot
    for second in range(1, 10):
        assert sum(second <= at < second + 1 for at in refused) < 600


def test_without_slots_they_come_again_and_again() -> None:
    admitted, refused = storm(10_000, has_slots=False)
    _, refused_with = storm(10_000, has_slots=True)
    assert len(admitted) == 10_000
    assert len(refused) > 3 * len(refused_with)


def test_slots_in_whole_seconds_still_end_the_storm() -> None:
    admitted, refused = storm(10_000, has_slots=True, whole_seconds=True)
    assert len(admitted) == 10_000
    assert max(admitted) < 20.0
    assert len(refused) < 40_000


def test_who_comes_alone_is_admitted_and_slots_are_forgotten() -> None:
    pacer = Pacer(POLICY, Random(1))
    for _ in range(500):
        assert isinstance(pacer.admit(Mono(5.0)), Admitted)
    slots = [pacer.admit(Mono(5.0)) for _ in range(100)]
    assert all(isinstance(slot, Slot) for slot in slots)
    assert pacer.waiting_s(Mono(5.0)) == pytest.approx(0.2 + 99 / 1_000)
    assert pacer.waiting_s(Mono(6.0)) == 0.0
    assert isinstance(pacer.admit(Mono(6.0)), Admitted)


def test_no_slot_is_beyond_the_bound_however_many_come() -> None:
    pacer = Pacer(PacePolicy(rate_per_s=10.0, burst=1), Random(1))
    after = [slot.after_s for slot in (pacer.admit(Mono(1.0)) for _ in range(5_000)) if isinstance(slot, Slot)]
    assert len(after) == 4_999
    assert min(after) == pytest.approx(0.2)
    assert max(after) <= 30.0
    assert len({round(each, 3) for each in after}) > 3_000  # the last ones are spread, not piled up
    assert {Slot(0.01).retry_after_s, Slot(1.2).retry_after_s} == {1, 2}


def test_a_pace_whose_slots_cannot_be_is_refused() -> None:
    with pytest.raises(BadSettings, match="slot_max_s"):
        PacePolicy(slot_min_s=5.0, slot_max_s=6.0)
