"""The one definition of a quantile that every measure here uses."""

from __future__ import annotations

from math import ceil


def nearest_rank(share: float, count: int) -> int:
    """Which of `count` ordered values is the quantile: the least one that `share` of them do not exceed.

    Units:  `share` from 0 to 1; the answer is a rank from 1 to `count`; share 0 gives the least value.
    Source: Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996), definition 1, the inverse of the
            empirical distribution.
    """
    assert 0.0 <= share <= 1.0, "the share of a quantile is from 0 to 1"
    assert count > 0, "no values, no quantile"
    # 0.07 * 100 is 7.000000000000001, and its ceiling would be one rank too far: give back two rounding errors.
    return max(1, ceil(share * count * (1.0 - 2.0**-51)))
