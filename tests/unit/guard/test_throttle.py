from __future__ import annotations

from random import Random

import pytest

from budao.guard.throttle import Throttle
from budao.model import BadSettings, Mono, Refusal, ThrottlePolicy, Why

BOOK = ThrottlePolicy(multiplier=2.0, window_s=30.0, refused_share_max=1.0)


class NoDice(Random):
    def random(self) -> float:
        raise AssertionError("nothing to decide, and yet a die was rolled")


def test_nothing_is_refused_while_at_least_half_is_accepted() -> None:
    throttle = Throttle(BOOK)
    assert throttle.refuses(Mono(0.0), NoDice()) is None
    throttle.count(100, 50, Mono(0.0))
    assert throttle.share_at(Mono(0.0)) == 0.0
    assert throttle.refuses(Mono(0.0), NoDice()) is None


def test_the_refused_share_is_the_books() -> None:
    throttle = Throttle(BOOK)
    throttle.count(100, 20, Mono(0.0))
    assert throttle.share_at(Mono(0.0)) == (100 - 2 * 20) / 101


def test_a_call_refused_here_counts_as_asked() -> None:
    throttle = Throttle(BOOK)
    throttle.count(1000, 0, Mono(0.0))
    refusal = throttle.refuses(Mono(0.0), Random(1))
    assert refusal == Refusal(Why.THROTTLED, 3.0)
    assert throttle.counts_at(Mono(0.0)) == (1001, 0)


def test_looking_changes_nothing() -> None:
    throttle = Throttle(BOOK)
    throttle.count(100, 20, Mono(0.0))
    assert throttle.share_at(Mono(1e6)) == 0.0
    assert throttle.share_at(Mono(0.0)) == 60 / 101


def test_a_die_that_says_no_lets_the_call_through_uncounted() -> None:
    throttle = Throttle(BOOK)
    throttle.count(3, 1, Mono(0.0))
    rng = Random(1)
    refused = sum(throttle.refuses(Mono(0.0), rng) is not None for _ in range(4))
    assert throttle.counts_at(Mono(0.0)) == (3 + refused, 1)


def test_an_outage_never_silences_a_client_altogether() -> None:
    throttle = Throttle(ThrottlePolicy(refused_share_max=0.95))
    throttle.count(1_000_000, 0, Mono(0.0))
    assert throttle.share_at(Mono(0.0)) == 0.95


def test_what_is_older_than_the_window_is_forgotten() -> None:
    throttle = Throttle(BOOK)
    throttle.count(100, 0, Mono(0.0))
    assert throttle.share_at(Mono(26.9)) == 100 / 101
    assert throttle.share_at(Mono(30.0)) == 0.0


def run(
    policy: ThrottlePolicy, calls_per_s: int, capacity_per_s: int, until_s: int, seed: int
) -> list[tuple[int, int]]:
    """Calls sent and accepted in each second, against a server that accepts so many a second and refuses the rest."""
    throttle, rng = Throttle(policy), Random(seed)
    seconds = []
    for second in range(until_s):
        sent = accepted = 0
        for call in range(calls_per_s):
            now = Mono(second + call / calls_per_s)
            if throttle.refuses(now, rng) is None:
                sent += 1
                ok = accepted < capacity_per_s
                accepted += ok
                throttle.count(1, int(ok), now)
        seconds.append((sent, accepted))
    return seconds


def test_an_overloaded_server_is_sent_about_twice_what_it_accepts() -> None:
    seconds = run(BOOK, calls_per_s=400, capacity_per_s=50, until_s=60, seed=3)
    sent = sum(each for each, _ in seconds[30:]) / 30
    accepted = sum(each for _, each in seconds[30:]) / 30
    assert accepted == pytest.approx(50, rel=0.02)
    assert sent == pytest.approx(100, rel=0.15)


def test_a_cap_on_the_refused_share_makes_a_recovery_quick_at_high_rates() -> None:
    def half_recovered_after(policy: ThrottlePolicy) -> int:
        throttle, rng = Throttle(policy), Random(4)
        for second in range(60):
            throttle.count(1000, 0, Mono(float(second)))
        for second in range(60, 600):
            accepted = 0
            for call in range(1000):
                now = Mono(second + call / 1000)
                if throttle.refuses(now, rng) is None:
                    accepted += 1
                    throttle.count(1, 1, now)
            if accepted > 500:
                return second - 60
        return 600

    capped, bare = half_recovered_after(ThrottlePolicy(refused_share_max=0.95)), half_recovered_after(BOOK)
    assert capped <= 60
    assert capped < bare / 2


def test_new_settings_keep_what_was_counted() -> None:
    throttle = Throttle(BOOK)
    throttle.count(100, 20, Mono(5.0))
    throttle.obey(ThrottlePolicy(multiplier=1.5, window_s=30.0), Mono(6.0))
    assert throttle.share_at(Mono(6.0)) == 70 / 101
    throttle.obey(ThrottlePolicy(multiplier=1.5, window_s=10.0), Mono(6.0))
    assert throttle.share_at(Mono(6.0)) == 70 / 101
    assert throttle.share_at(Mono(17.0)) == 0.0


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_cap_that_makes_no_sense_is_refused(share: float) -> None:
    with pytest.raises(BadSettings, match="refused_share_max"):
        ThrottlePolicy(refused_share_max=share)
