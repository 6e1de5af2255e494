from __future__ import annotations

import pytest

from budao.model import Mono
from budao.push import ClientPolicy, Liveness

POLICY = ClientPolicy(missed_max=3, look_s=0.005, stretch_max=3.0)


def at(seconds: float) -> Mono:
    return Mono(seconds)


def beating(beat_s: float = 0.05, gap_s: float = 0.05, beats: int = 100) -> tuple[Liveness, float]:
    liveness, now = Liveness(POLICY, beat_s, at(0.0)), 0.0
    for _ in range(beats):
        now += gap_s
        liveness.heard(at(now))
    return liveness, now


def test_three_beats_that_do_not_come_are_death_after_a_second_look() -> None:
    liveness, now = beating()
    assert liveness.wake_at() == pytest.approx(now + 0.15)
    assert not liveness.wake(at(now + 0.149))
    assert not liveness.wake(at(now + 0.151))  # the first look
    assert liveness.wake_at() == pytest.approx(now + 0.156)
    assert liveness.wake(at(now + 0.156))


def test_what_is_heard_between_the_looks_is_life() -> None:
    liveness, now = beating()
    assert not liveness.wake(at(now + 0.4))  # our own loop stood still, and the beats lie unread
    liveness.heard(at(now + 0.401))
    assert not liveness.wake(at(now + 0.406))
    assert liveness.wake_at() > now + 0.55


def test_a_process_that_is_late_at_its_second_look_takes_another() -> None:
    liveness, now = beating()
    assert not liveness.wake(at(now + 1.0))
    assert not liveness.wake(at(now + 1.2))  # 195 ms late: what was to be read may still wait
    assert liveness.wake(at(now + 1.206))


def test_who_is_always_late_still_comes_to_an_end() -> None:
    liveness, now = beating()
    verdicts = [liveness.wake(at(now + number)) for number in range(1, 8)]
    assert verdicts.index(True) == 5


def test_a_gateway_that_beats_late_is_waited_for_longer_up_to_a_bound() -> None:
    liveness, _ = beating(gap_s=0.08)
    assert liveness.silence_max_s == pytest.approx(0.24, rel=0.01)
    liveness, _ = beating(gap_s=1.0)
    assert liveness.silence_max_s == pytest.approx(0.45)


def test_traffic_between_beats_does_not_shorten_the_wait() -> None:
    liveness, _ = beating(gap_s=0.001, beats=1000)
    assert liveness.silence_max_s == pytest.approx(0.15)
    liveness, _ = beating(gap_s=0.04)
    assert liveness.silence_max_s == pytest.approx(0.12, rel=0.01)
    liveness, _ = beating(gap_s=0.03)
    assert liveness.silence_max_s == pytest.approx(0.12)


def test_without_a_promise_there_is_no_death_and_a_standby_may_be_quiet() -> None:
    assert Liveness(POLICY, 0.0, at(0.0)).wake_at() == float("inf")
    assert not Liveness(POLICY, 0.0, at(0.0)).wake(at(1e9))
    assert Liveness(POLICY, 0.05, at(0.0), silence_min_s=10.0).wake_at() == 10.0
