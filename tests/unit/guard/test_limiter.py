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


def test_a_limit_of_which_nine_tenths_are_used_grows() -> None:
    assert learned((0.1, 18)).calls_max == 24


def test_a_limit_that_gained_one_place_was_raised_and_one_that_gained_less_is_held() -> None:
    policy = LimitPolicy(calls_min=4, calls_first=4, calls_max=100, smoothing=0.2)
    limiter = learned((0.1, 4), policy=policy)
    assert limiter.calls_max == 4, "4.8"
    assert limiter.view().reason.startswith(Step.HELD.value)
    limiter.learn([0.1] * 30, 4, 0, Mono(1.0))
    assert limiter.calls_max == 5, "5.76"
    assert limiter.view().reason.startswith(Step.GROWN.value)


def balanced() -> Limiter:
    """16 places of which 10 are used, and latency of twice the floor: 16 * 0.75 + sqrt(16) = 16."""
    policy = LimitPolicy(calls_min=4, calls_first=16, calls_max=1000, tolerance=1.5, smoothing=0.2)
    return learned((1.0, 8), (2.0, 10), policy=policy)


def test_a_queue_as_short_as_the_headroom_holds_the_limit() -> None:
    assert balanced().view() == LimiterView(
        16,
        1.0,
        2.0,
        is_looking=False,
        reason="held, as latency and room for a short queue balance: typically 2 s, without a queue 1 s",
    )


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limiter = learned(*[(0.1, 17)] * 50)
    assert limiter.calls_max == 20
    assert limiter.view().reason.startswith(Step.UNUSED.value)


def test_a_limit_of_which_less_than_half_is_used_has_no_part_in_the_latency() -> None:
    limiter = learned((0.1, 9), *[(5.0, 9)] * 50)
    assert limiter.calls_max == 20


def test_a_limit_of_which_just_half_is_used_is_lowered_for_the_latency() -> None:
    assert learned((0.1, 10), (5.0, 10)).calls_max == 18, "0.8 * 20 + 0.2 * (10 + sqrt(20)) = 18.9"


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


@pytest.mark.parametrize(("apart_s", "typical_s"), [(60.0, 0.1), (60.5, None)])
def test_calls_of_folds_a_whole_floor_window_apart_are_still_put_together(
    apart_s: float, typical_s: float | None
) -> None:
    limiter = Limiter(POLICY)
    limiter.learn([0.1] * (SAMPLES_MIN - 1), 20, 0, Mono(0.0))
    limiter.learn([0.1], 20, 0, Mono(apart_s))
    assert limiter.view().typical_s == typical_s


def test_of_thirty_calls_the_fifteenth_is_typical_whatever_order_they_came_in() -> None:
    limiter = Limiter(POLICY)
    limiter.learn([float(30 - each) for each in range(30)], 20, 0, Mono(0.0))
    assert limiter.view().typical_s == 15.0


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


def test_one_failure_in_twenty_lowers_the_limit_by_a_twentieth() -> None:
    limiter = Limiter(POLICY)
    limiter.learn([0.1] * 19, 20, 1, Mono(0.0))
    assert limiter.calls_max == 19


def test_failures_lower_a_limit_of_which_just_half_is_used() -> None:
    limiter = Limiter(POLICY)
    limiter.learn([], 10, 100, Mono(0.0))
    assert limiter.calls_max == 10


def test_what_failures_lowered_is_not_explained_by_latency_and_is_no_look() -> None:
    limiter = learned((0.1, 20))
    limiter.learn([], 24, 100, Mono(1.0))
    assert limiter.view() == LimiterView(
        12, 0.1, 0.1, is_looking=False, reason="lowered, as calls fail as they do under overload"
    )


def test_failures_end_a_look() -> None:
    limiter = learned((0.1, 20), (0.3, 100))
    assert limiter.view().is_looking
    limiter.learn([], 100, 100, Mono(2.0))
    assert not limiter.view().is_looking
    assert limiter.calls_max == 11, "half of the 22 from before the look, not of the look's 11"


def test_a_limit_that_falls_from_its_balance_grows_fast_up_to_seven_tenths_of_it() -> None:
    limiter = balanced()
    limiter.learn([], 16, 100, Mono(2.0))
    limits = [limiter.calls_max]
    for second in (3.0, 4.0, 5.0):
        limiter.learn([1.0] * 30, 16, 0, Mono(second))
        limits.append(limiter.calls_max)
    assert limits == [8, 9, 11, 12], "8, 9.6, 11.52, and past 11.2 only by a fifth of the square root: 12.2"


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


@pytest.mark.parametrize(
    ("in_flight", "floor_s"),
    [(12, 0.1), (11, 0.3), (1, 0.3), (0, 0.1)],
)
def test_a_fold_is_compared_if_it_had_at_most_eleven_twentieths_of_the_calls_and_at_least_one(
    in_flight: int, floor_s: float
) -> None:
    limiter = learned((0.1, 20), (0.3, 15), (0.3, in_flight))
    assert not limiter.view().is_looking
    assert limiter.view().floor_s == floor_s


@pytest.mark.parametrize(("apart_s", "floor_s"), [(60.0, 0.3), (60.5, 0.1)])
def test_folds_a_whole_floor_window_apart_are_still_compared(apart_s: float, floor_s: float) -> None:
    limiter = learned((0.1, 20))
    limiter.learn([0.3] * 30, 5, 0, Mono(apart_s))
    assert limiter.view().floor_s == floor_s


def test_a_fold_that_nobody_counted_is_compared_with_nothing_after_a_silence_or_a_failure_either() -> None:
    limiter = Limiter(POLICY)
    limiter.learn([0.1] * (SAMPLES_MIN - 1), 20, 0, Mono(0.0))
    limiter.learn([0.1], 20, 0, Mono(59.0))
    limiter.learn([0.3] * 30, 0, 0, Mono(61.0))
    assert limiter.view().floor_s == 0.1
    limiter = learned((0.1, 20))
    limiter.learn([], 20, 100, Mono(1.0))
    limiter.learn([0.3] * 30, 0, 0, Mono(2.0))
    assert limiter.view().floor_s == 0.1


@pytest.mark.parametrize(("took_s", "floor_s"), [(0.7, 0.7), (0.69, 0.1)])
def test_latency_that_keeps_seven_tenths_with_fewer_calls_is_the_floor(took_s: float, floor_s: float) -> None:
    assert learned((0.1, 20), (1.0, 15), (took_s, 5)).view().floor_s == floor_s


def test_a_limit_that_came_down_for_nothing_grows_fast_up_to_seven_tenths_of_the_calls_there_were() -> None:
    limiter = learned((0.1, 20), (0.3, 100))
    limits = []
    for second in range(2, 10):
        limiter.learn([0.3] * 30, 50, 0, Mono(float(second)))
        limits.append(limiter.calls_max)
    # 22.6 grows by a fifth up to 70, which is 0.7 * 100, and is used no more once 50 are less than nine tenths of it.
    assert limits == [27, 32, 39, 46, 56, 56, 56, 56]


def test_a_floor_that_is_only_confirmed_hurries_nothing() -> None:
    limiter = learned((0.1, 20), (0.3, 15), (0.1, 5), (0.1, 100))
    assert limiter.calls_max == 27
    limiter.learn([0.1] * 30, 50, 0, Mono(4.0))
    assert limiter.calls_max == 28, "27.1 and a fifth of its square root"


# -- looks


def test_a_look_halves_the_limit_if_that_is_not_below_its_least() -> None:
    policy = LimitPolicy(calls_min=11, calls_first=20, calls_max=1000, tolerance=1.5, smoothing=0.2)
    limiter = learned((0.1, 20), (0.3, 100), policy=policy)
    assert (limiter.calls_max, limiter.view().is_looking) == (11, True)
    policy = LimitPolicy(calls_min=12, calls_first=20, calls_max=1000, tolerance=1.5, smoothing=0.2)
    limiter = learned((0.1, 20), (0.3, 100), policy=policy)
    assert (limiter.calls_max, limiter.view().is_looking) == (22, False)


@pytest.mark.parametrize(("took_s", "calls_max", "is_looking"), [(0.525, 5, True), (0.53, 21, False)])
def test_a_look_goes_deeper_while_latency_falls_by_nearly_as_much_as_the_calls_did(
    took_s: float, calls_max: int, is_looking: bool
) -> None:
    limiter = learned((0.1, 20), (1.0, 100))
    assert limiter.calls_max == 11
    limiter.learn([took_s] * 30, 50, 0, Mono(2.0))
    assert (limiter.calls_max, limiter.view().is_looking) == (calls_max, is_looking)


@pytest.mark.parametrize(
    ("floor_s", "wait_s"),
    [(9.0, 60.0), (8.9, 6.0)],
    ids=["a tenth is no news", "more than a tenth is news"],
)
def test_the_next_look_comes_after_a_floor_window_or_after_a_tenth_of_it_if_the_last_had_news(
    floor_s: float, wait_s: float
) -> None:
    limiter = learned((10.0, 20), (30.0, 100), (floor_s, 20))
    assert (limiter.view().floor_s, limiter.view().is_looking) == (floor_s, False)
    limiter.learn([30.0] * 30, 100, 0, Mono(2.0 + wait_s - 0.5))
    assert not limiter.view().is_looking
    limiter.learn([30.0] * 30, 100, 0, Mono(2.0 + wait_s))
    assert limiter.view().is_looking


# -- settings


def test_new_settings_end_a_look() -> None:
    limiter = learned((0.1, 20), (0.3, 100))
    assert (limiter.calls_max, limiter.view().is_looking) == (11, True)
    limiter.obey(POLICY)
    assert (limiter.calls_max, limiter.view().is_looking) == (22, False)


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
