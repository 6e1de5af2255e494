from __future__ import annotations

import budao.slo


def test_the_front_door_names_what_it_opens() -> None:
    assert sorted(budao.slo.__all__) == sorted(set(budao.slo.__all__))
    assert all(hasattr(budao.slo, name) for name in budao.slo.__all__)
