from __future__ import annotations

from math import inf, nan

import pytest

from budao.guard.limiter import (
    FAILED_SHARE,
    LOOK_FOLDS_MAX,
    SAMPLES_MAX,
    SAMPLES_MIN,
    Limiter,
    LimiterView,
    Step,
)
from budao.model import LimitPolicy, Mono

POLICY = LimitPolicy(calls_min=4, calls_first=20, calls_max=1000, tolerance=1.5, smoothing=0.2, floor_window_s=60.0)


class Server:
    """A limiter fed one fold a second by a server of so many workers that is always asked for all it may be asked."""

    def __init__(self, policy: LimitPolicy = POLICY, *, workers: int = 20, service_s: float = 0.05) -> None:
        self.limiter = Limiter(policy)
        self.workers = workers
        self.service_s = service_s
        self.now = 0.0
        self.calls_before = 0

    def fold(self, calls: int | None = None, failed: int = 0) -> int:
        """One second in which at most `calls` were in flight; the answer is the limit after it."""
        allowed = self.limiter.calls_max
        in_flight = allowed if calls is None else min(calls, allowed)
        took_s = self.service_s * max(1.0, in_flight / self.workers)
        peak = max(in_flight, self.calls_before)  # those of the fold before are still in flight when it begins
        self.calls_before = in_flight
        self.now += 1.0
        self.limiter.learn([took_s] * 100, peak, failed, Mono(self.now))
        return self.limiter.calls_max

    def folds(self, count: int) -> list[int]:
        return [self.fold() for _ in range(count)]


def learned(*folds: tuple[float, int], policy: LimitPolicy = POLICY) -> Limiter:
    """A limiter that learned from folds of calls that all took as long, and so many in flight."""
    limiter = Limiter(policy)
    for second, (took_s, in_flight) in enumerate(folds):
        limiter.learn([took_s] * SAMPLES_MIN, in_flight, 0, Mono(float(second)))
    return limiter


def test_a_limiter_that_measured_nothing_allows_what_its_policy_says() -> None:
    limiter = Limiter(POLICY)
    assert limiter.view() == LimiterView(20, None, None, is_looking=False, reason="nothing measured yet")


def test_a_fold_without_calls_changes_nothing() -> None:
    limiter = learned((0.1, 20))
    before = limiter.view()
    limiter.learn([], 20, 0, Mono(1000.0))
    assert limiter.view() == before


def test_a_used_limit_grows_while_latency_stays() -> None:
    limiter = learned((0.1, 20))
    assert limiter.calls_max == 24, "in a hurry, until the first sign of a queue"
    assert limiter.view() == LimiterView(
        24,
        0.1,
        0.1,
        is_looking=False,
        reason="raised, as calls take no longer than without a queue: typically 0.1 s, without a queue 0.1 s",
    )


def test_latency_within_the_tolerance_is_no_queue() -> None:
    assert learned((0.1, 20), (0.15, 24)).calls_max == 28


def test_latency_beyond_the_tolerance_lowers_the_limit() -> None:
    limiter = learned((0.1, 20), (0.3, 20))
    assert limiter.calls_max == 22
    assert limiter.view().reason == (
        "lowered, as calls take longer than without a queue: typically 0.3 s, without a queue 0.1 s"
    )


def test_the_formula_is_the_one_that_is_written_down() -> None:
    limiter = learned((0.1, 17))
    assert limiter.calls_max == 20, "17 of 20 is too few to raise it"
    limiter.learn([0.2] * 30, 17, 0, Mono(1.0))
    # 0.8 * 20 + 0.2 * (20 * 1.5 * 0.1 / 0.2 + sqrt(20)) = 19.89
    assert limiter._limit == pytest.approx(0.8 * 20 + 0.2 * (20 * 0.75 + 20**0.5))
    limiter.learn([100.0] * 30, 17, 0, Mono(2.0))
    assert limiter.calls_max == 18, "never less than half is wanted"


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limiter = learned(*[(0.1, 17)] * 50)
    assert limiter.calls_max == 20
    assert limiter.view().reason.startswith(Step.UNUSED.value)


def test_a_limit_of_which_less_than_half_is_used_has_no_part_in_the_latency() -> None:
    limiter = learned((0.1, 9), *[(5.0, 9)] * 50)
    assert limiter.calls_max == 20


def test_the_limit_keeps_to_its_bounds() -> None:
    narrow = LimitPolicy(calls_min=15, calls_first=20, calls_max=22)
    assert learned(*[(0.1, 1000)] * 20, policy=narrow).calls_max == 22
    assert learned((0.1, 20), *[(5.0, 20)] * 20, policy=narrow).calls_max == 15


def test_few_calls_are_kept_until_there_are_enough_to_be_typical() -> None:
    limiter = Limiter(POLICY)
    for second in range(SAMPLES_MIN - 1):
        limiter.learn([0.1], 20, 0, Mono(float(second)))
    assert limiter.view().typical_s is None
    limiter.learn([0.1], 1, 0, Mono(59.0))
    assert limiter.view().typical_s == 0.1
    assert limiter.calls_max == 24, "the peak of all those folds counts"
    assert len(limiter._pool) == 0


def test_calls_from_long_ago_are_not_put_together_with_those_of_today() -> None:
    limiter = Limiter(POLICY)
    limiter.learn([9.0] * (SAMPLES_MIN - 1), 20, 0, Mono(0.0))
    limiter.learn([0.1], 20, 0, Mono(61.0))
    assert limiter.view().typical_s is None
    limiter.learn([0.1] * (SAMPLES_MIN - 1), 20, 0, Mono(62.0))
    assert limiter.view().typical_s == 0.1


def test_of_very_many_calls_only_some_are_looked_at() -> None:
    limiter = Limiter(POLICY)
    limiter.learn([0.1, 0.2] * SAMPLES_MAX * 50, 20, 0, Mono(0.0))
    assert limiter.view().typical_s in {0.1, 0.2}
    limiter._pool = []
    limiter.learn(range(1, 10 * SAMPLES_MAX + 1), 20, 0, Mono(1.0))
    assert limiter.view().typical_s == pytest.approx(5 * SAMPLES_MAX, rel=0.01)


@pytest.mark.parametrize("took_s", [0.0, -1.0, inf, nan])
def test_a_clock_that_stands_still_teaches_nothing(took_s: float) -> None:
    limiter = learned((0.1, 20))
    before = limiter.view()
    limiter.learn([took_s] * 100, 24, 0, Mono(1.0))
    assert limiter.view() == before


def test_one_lucky_fold_moves_the_floor_half_of_the_way() -> None:
    assert learned((0.1, 20), (0.06, 20)).view().floor_s == pytest.approx(0.08)


# -- failures


def test_many_failures_of_overload_lower_the_limit_by_their_share_and_at_most_by_half() -> None:
    limiter = Limiter(POLICY)
    limiter.learn([0.1] * 90, 20, 10, Mono(0.0))
    assert limiter.calls_max == 18
    limiter.learn([0.1] * 10, 18, 90, Mono(1.0))
    assert limiter.calls_max == 9
    assert limiter.view().reason == "lowered, as calls fail as they do under overload"


def test_a_few_failures_lower_nothing() -> None:
    limiter = Limiter(POLICY)
    limiter.learn([0.1] * 1000, 20, int(1000 * FAILED_SHARE) - 1, Mono(0.0))
    assert limiter.calls_max == 24


def test_failures_alone_lower_a_used_limit_down_to_its_least() -> None:
    limiter = Limiter(POLICY)
    limits = []
    for second in range(6):
        limiter.learn([], limiter.calls_max, 100, Mono(float(second)))
        limits.append(limiter.calls_max)
    assert limits == [10, 5, 4, 4, 4, 4]


def test_a_lone_call_that_fails_says_nothing_about_a_limit_of_twenty() -> None:
    limiter = Limiter(POLICY)
    for second in range(100):
        limiter.learn([], 1, 1, Mono(float(second)))
    assert limiter.calls_max == 20


def test_after_an_outage_the_limit_is_soon_nearly_where_it_was() -> None:
    server = Server(workers=200)
    server.folds(60)
    before = server.limiter.calls_max
    assert before > 200
    for _ in range(10):
        server.limiter.learn([], server.limiter.calls_max, 1000, Mono(server.now))
        server.now += 1.0
    assert server.limiter.calls_max == 4
    limits = server.folds(30)
    assert limits[25] > 0.6 * before


# -- the floor


def test_a_server_that_becomes_slower_raises_the_floor_and_gets_its_limit_back() -> None:
    server = Server(workers=40)
    server.folds(60)
    assert server.limiter.view().floor_s == pytest.approx(0.05)
    before = server.limiter.calls_max
    server.service_s = 0.25
    limits = server.folds(40)
    assert server.limiter.view().floor_s == pytest.approx(0.25)
    limits += server.folds(60)
    assert min(limits) > 40 / 4
    assert max(limits[-40:]) == pytest.approx(before, rel=0.1)


def test_a_queue_of_our_own_never_raises_the_floor() -> None:
    server = Server(workers=20)
    server.folds(30)
    for workers in (5, 10, 40, 10, 5):
        server.workers = workers
        for _ in range(300):
            server.fold()
            assert server.limiter.view().floor_s == pytest.approx(0.05, rel=0.1)


def test_a_first_limit_far_too_high_is_found_out() -> None:
    server = Server(LimitPolicy(calls_min=4, calls_first=640, calls_max=1000), workers=20)
    server.folds(5)
    server.folds(120)
    assert server.limiter.view().floor_s == pytest.approx(0.05, rel=0.1)
    assert server.limiter.calls_max <= 50


def test_a_look_lowers_the_limit_for_two_folds_and_gives_it_back() -> None:
    server = Server(workers=20)
    server.folds(100)
    settled = server.limiter.calls_max
    limits = server.folds(61)
    looks = [limit for limit in limits if limit < 0.6 * settled]
    assert len(looks) == 2
    assert limits[-1] == pytest.approx(settled, abs=1)


def test_a_look_ends_although_old_calls_keep_filling_the_places() -> None:
    server = Server(workers=20)
    while not server.limiter.view().is_looking:
        server.fold()
    assert server.limiter.view().reason.startswith(Step.LOOKING.value)
    for _ in range(LOOK_FOLDS_MAX):
        assert server.limiter.view().is_looking
        server.limiter.learn([0.1] * 100, 1000, 0, Mono(server.now))
    assert not server.limiter.view().is_looking
    assert server.limiter.calls_max >= 20


def test_a_healthy_server_is_never_looked_at() -> None:
    server = Server(LimitPolicy(calls_min=4, calls_first=20, calls_max=50), workers=1000)
    assert min(server.folds(400)) == 24
    assert server.limiter.calls_max == 50


def test_a_limit_too_small_to_be_halved_forgets_its_floor_instead() -> None:
    server = Server(LimitPolicy(calls_min=4, calls_first=4, calls_max=100), workers=50)
    server.fold()
    server.service_s = 1.0
    limits = server.folds(60)
    assert max(limits) <= 10
    assert max(server.folds(200)) > 50


def test_traffic_that_comes_and_goes_shows_the_floor_for_nothing() -> None:
    limiter = learned((0.1, 20))
    limiter.learn([0.3] * 30, 22, 0, Mono(1.0))
    limiter.learn([0.3] * 30, 5, 0, Mono(2.0))
    assert limiter.view().floor_s == 0.3, "with a quarter of the calls in flight it takes as long: it is no queue"


def test_folds_far_apart_are_not_compared() -> None:
    limiter = learned((0.1, 20))
    limiter.learn([0.1] * 30, 22, 0, Mono(1.0))
    limiter.learn([0.3] * 30, 5, 0, Mono(1000.0))
    assert limiter.view().floor_s == 0.1


# -- settings


def test_looking_at_a_limiter_changes_nothing() -> None:
    limiter = learned((0.1, 20), (0.2, 24))
    assert limiter.view() == limiter.view()


def test_new_settings_keep_what_was_found_within_the_new_bounds() -> None:
    limiter = learned((0.1, 20))
    limiter.obey(LimitPolicy(calls_min=1, calls_first=5, calls_max=10))
    assert limiter.calls_max == 10
    limiter.obey(LimitPolicy(calls_min=12, calls_first=15, calls_max=100))
    assert limiter.calls_max == 12
    assert limiter.view().floor_s == 0.1
