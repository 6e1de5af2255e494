"""How fast each may publish over HTTP, stepped by hand."""

from __future__ import annotations

from budao.aio.gateway.rates import Rates
from budao.model import Mono


def test_each_has_a_burst_and_then_a_rate_and_is_told_when_to_come_back() -> None:
    rates = Rates(rate_per_s=2.0, burst=3.0)
    assert [rates.take("ann", Mono(0.0)) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert rates.take("bob", Mono(0.0)) == 0.0
    assert rates.take("ann", Mono(0.5)) == 0.0
    assert rates.take("ann", Mono(0.5)) == 0.5


def test_no_more_are_remembered_than_there_is_room_for_and_the_most_recent_stay() -> None:
    rates = Rates(rate_per_s=0.1, burst=1.0, kept_max=2)
    for name in ("ann", "bob", "ann", "cid"):
        rates.take(name, Mono(0.0))
    assert len(rates) == 2
    assert rates.take("ann", Mono(0.0)) > 0.0
    assert rates.take("bob", Mono(0.0)) == 0.0
