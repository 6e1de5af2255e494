"""Who asks for what."""

from __future__ import annotations

from collections import Counter
from random import Random

from budao.apps.load import SKUS, some_sku


def test_a_few_things_are_asked_for_often_and_many_seldom() -> None:
    rng = Random(7)
    asked = Counter(some_sku(rng) for _ in range(10_000))
    assert set(asked) <= set(range(SKUS))
    popular = sum(asked[sku] for sku in range(SKUS // 10))
    assert 5_000 < popular < 6_200
