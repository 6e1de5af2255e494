from __future__ import annotations

import pytest

from budao.model import RemoteWireError, Wall
from budao.push import Grant


def test_a_grant_allows_what_its_patterns_hold_and_nothing_else() -> None:
    grant = Grant.of(subject="anna", subscribe=["room:*"], publish=["room:1"], presence=["room:2"])
    assert grant.may_subscribe("room:1")
    assert not grant.may_subscribe("news")
    assert grant.may_publish("room:1")
    assert not grant.may_publish("room:2")
    assert grant.may_see_presence("room:2")
    assert not grant.may_see_presence("room:1")
    assert not grant.operate


def test_nothing_allows_nothing_and_anonymous_what_is_said() -> None:
    assert not Grant.nothing().may_subscribe("a")
    anonymous = Grant.anonymous(subscribe=["news"])
    assert anonymous.may_subscribe("news")
    assert not anonymous.may_publish("news")
    assert anonymous.subject == "anonymous"


def test_a_grant_ends_at_its_instant_and_not_before() -> None:
    grant = Grant.of(until=Wall(10.0))
    assert not grant.has_expired(Wall(9.9))
    assert grant.has_expired(Wall(10.0))
    assert not Grant.nothing().has_expired(Wall(1e12))


def test_a_pattern_that_is_none_makes_no_grant() -> None:
    with pytest.raises(RemoteWireError, match="before the end"):
        Grant.of(publish=["a*b"])
