"""A cache of names, stepped by hand."""

from __future__ import annotations

import pytest

from budao.discovery import Address, NamePolicy
from budao.discovery.names import Found, Known, Located, LookUp, LookupFailed, Names, NotThere, Question
from budao.model import BadSettings, Mono

SHOP = Question("shop.example")
OLD = (Located(Address("10.0.0.1", 0)),)
NEW = (Located(Address("10.0.0.2", 0)),)
LOOK = (LookUp(SHOP),)


def at(seconds: float) -> Mono:
    return Mono(seconds)


def with_old(ttl_s: float = 100.0) -> Names:
    names = Names()
    names.ask(SHOP, at(0))
    names.handle(Found(SHOP, OLD, ttl_s), at(0))
    return names


def test_a_name_nobody_asked_for_is_looked_up_once_and_waited_for() -> None:
    names = Names()
    assert names.ask(SHOP, at(0)) == (None, LOOK)
    assert names.ask(SHOP, at(0)) == (None, ())
    names.handle(Found(SHOP, OLD, 100.0), at(1))
    assert names.ask(SHOP, at(1)) == (Known(OLD), ())


def test_an_answer_near_its_end_is_renewed_while_it_is_still_used() -> None:
    names = with_old(100.0)
    assert names.ask(SHOP, at(79)) == (Known(OLD), ())
    assert names.ask(SHOP, at(80)) == (Known(OLD), LOOK)
    assert names.ask(SHOP, at(81)) == (Known(OLD), ())
    names.handle(Found(SHOP, NEW, 100.0), at(82))
    assert names.ask(SHOP, at(83)) == (Known(NEW), ())


@pytest.mark.parametrize(("said_s", "believed_s"), [(0, 30), (1, 30), (100, 100), (86_400, 300)])
def test_a_time_to_live_is_believed_within_bounds(said_s: float, believed_s: float) -> None:
    names = with_old(said_s)
    assert names.ask(SHOP, at(believed_s - 0.001))[0] == Known(OLD)
    known, _ = names.ask(SHOP, at(believed_s))
    assert known is not None
    assert known.is_stale


def test_an_old_answer_is_used_while_nobody_answers_and_says_that_it_is_old() -> None:
    names = with_old()
    assert names.ask(SHOP, at(150))[1] == LOOK
    names.handle(LookupFailed(SHOP, "timed out"), at(155))
    assert names.ask(SHOP, at(156)) == (Known(OLD, is_stale=True, problem="timed out"), ())
    assert names.ask(SHOP, at(157)) == (Known(OLD, is_stale=True, problem="timed out"), LOOK)


def test_an_answer_too_old_is_used_no_more() -> None:
    names = with_old()
    names.ask(SHOP, at(150))
    names.handle(LookupFailed(SHOP, "timed out"), at(150))
    assert names.ask(SHOP, at(100 + 86_400))[0] is None


def test_a_name_that_does_not_exist_is_not_asked_for_again_at_once() -> None:
    names = with_old()
    names.ask(SHOP, at(90))
    names.handle(NotThere(SHOP), at(91))
    assert names.ask(SHOP, at(100)) == (Known((), problem="there is no such name"), ())
    assert names.ask(SHOP, at(101)) == (None, LOOK)


def test_a_lookup_that_failed_is_not_repeated_at_once_and_nobody_waits() -> None:
    names = Names()
    names.ask(SHOP, at(0))
    names.handle(LookupFailed(SHOP, "refused"), at(0))
    assert names.ask(SHOP, at(1)) == (Known((), problem="refused"), ())
    assert names.ask(SHOP, at(2)) == (None, LOOK)


def test_the_name_nobody_asked_for_the_longest_is_forgotten_and_its_late_answer_too() -> None:
    names = Names(NamePolicy(names_max=2))
    for name in ("a", "b", "a", "c"):
        names.ask(Question(name), at(0))
    assert names.forgotten == 1
    names.handle(Found(Question("b"), OLD, 9.0), at(1))
    assert names.ask(Question("b"), at(1)) == (None, (LookUp(Question("b")),))


def test_a_policy_says_every_problem() -> None:
    with pytest.raises(BadSettings) as caught:
        NamePolicy(ttl_min_s=60, ttl_max_s=30, names_max=0)
    assert [path for path, _ in caught.value.problems] == ["names.ttl_max_s", "names.names_max"]
