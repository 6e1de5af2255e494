"""Samples are the end of the list of everything that came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budao.measure import Samples, nearest_rank

NUMBERS = st.floats(allow_nan=False)
# A step is one value, or many at once.
STEPS = st.lists(st.one_of(NUMBERS, st.lists(NUMBERS, max_size=12)), max_size=20)


@given(st.integers(1, 8), STEPS, st.floats(0.0, 1.0))
def test_samples_are_the_last_values_in_the_order_they_came(
    size: int, steps: list[float | list[float]], share: float
) -> None:
    samples, twin = Samples(size), list[float]()
    for step in steps:
        if isinstance(step, list):
            samples.extend(step)
            twin += step
        else:
            samples.add(step)
            twin.append(step)
        del twin[:-size]
        assert list(samples) == twin
        assert len(samples) == len(twin)
        assert samples.ordered() == tuple(sorted(twin))
        assert samples.quantile(share) == (sorted(twin)[nearest_rank(share, len(twin)) - 1] if twin else None)
