from __future__ import annotations

import pytest

from budao.measure import nearest_rank


@pytest.mark.parametrize(
    ("share", "count", "rank"),
    [
        (0.0, 10, 1),
        (0.1, 10, 1),
        (0.11, 10, 2),
        (0.5, 3, 2),
        (0.5, 4, 2),
        (0.99, 300, 297),
        (0.999, 300, 300),
        (1.0, 7, 7),
    ],
)
def test_the_quantile_is_the_least_value_that_its_share_does_not_exceed(share: float, count: int, rank: int) -> None:
    assert nearest_rank(share, count) == rank


def test_rounding_never_moves_a_whole_rank_one_further() -> None:
    assert 0.07 * 100 > 7.0
    assert nearest_rank(0.07, 100) == 7


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_zero_to_one_is_our_own_mistake(share: float) -> None:
    with pytest.raises(AssertionError):
        nearest_rank(share, 10)


def test_nothing_has_no_quantile() -> None:
    with pytest.raises(AssertionError):
        nearest_rank(0.5, 0)
