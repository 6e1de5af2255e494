from __future__ import annotations

from math import inf

import pytest

from budao.slo.bounds import EXACT_MAX, _wilson, calls_for, lower_bound, tail


def test_the_tail_is_the_chance_of_at_least_so_many() -> None:
    assert tail(1, 2, 0.5) == pytest.approx(0.75)
    assert tail(2, 2, 0.5) == pytest.approx(0.25)
    assert tail(0, 5, 0.1) == 1.0
    assert tail(6, 5, 0.9) == 0.0


def test_the_tail_at_its_ends() -> None:
    assert tail(1, 5, 0.0) == 0.0
    assert tail(5, 5, 1.0) == 1.0
    assert tail(1, 10, 1e-300) == pytest.approx(1e-299)


def test_all_bad_calls_prove_what_their_number_allows() -> None:
    # All of n are bad with probability p ** n, which is 1 % at the bound.
    assert lower_bound(10, 10, 0.99) == pytest.approx(0.01**0.1)


def test_no_bad_call_proves_nothing() -> None:
    assert lower_bound(0, 1000, 0.99) == 0.0


def test_one_bad_call_of_seven_does_not_prove_what_wilson_claims() -> None:
    exact, claimed = lower_bound(1, 7, 0.99), _wilson(1, 7, 0.99)
    assert tail(1, 7, exact) == pytest.approx(0.01, rel=1e-3)
    assert claimed > 0.017
    assert tail(1, 7, claimed) > 0.11


@pytest.mark.parametrize("total", [3 * EXACT_MAX, 10 * EXACT_MAX, 1000 * EXACT_MAX])
def test_the_two_bounds_agree_where_one_takes_over_from_the_other(total: int) -> None:
    exact, wilson = lower_bound(EXACT_MAX - 1, total, 0.99), _wilson(EXACT_MAX - 1, total, 0.99)
    assert wilson == pytest.approx(exact, rel=0.002)
    assert lower_bound(EXACT_MAX, total, 0.99) == _wilson(EXACT_MAX, total, 0.99)


def test_so_many_calls_are_needed_before_a_line_is_seldom_reached_by_chance() -> None:
    needed = calls_for(0.5, 0.1, 1e-6)
    assert needed == 28
    assert tail(14, 28, 0.1) < 1e-6


def test_no_number_of_calls_keeps_the_normal_below_a_line_under_it() -> None:
    assert calls_for(0.5, 0.5, 1e-6) == inf
    assert calls_for(0.5, 0.0, 1e-6) == 1.0
    assert calls_for(1.0, 0.5, 1e-6) == 20
