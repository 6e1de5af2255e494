"""The line of leases: who is next, after renewals, ends and ids that come again."""

from __future__ import annotations

from random import Random

import pytest

from budao.model import Mono
from budao.store.errors import LeaseGone
from budao.store.leases import Leases
from budao.store.values import Lease


def test_the_next_end_follows_renewals_and_ends() -> None:
    leases = Leases()
    assert leases.next_end() is None
    leases.add(Lease(1, 5.0), Mono(0.0))
    leases.add(Lease(2, 7.0), Mono(0.0))
    assert leases.next_end() == 5.0
    leases.renew(1, Mono(4.0))
    assert leases.next_end() == 7.0
    leases.drop(2)
    assert leases.next_end() == 9.0
    leases.drop(1)
    assert leases.next_end() is None


def test_a_renewal_never_shortens() -> None:
    leases = Leases()
    leases.add(Lease(1, 5.0), Mono(10.0))
    leases.renew(1, Mono(3.0))
    assert leases.next_end() == 15.0
    leases.renew_all(Mono(3.0))
    assert leases.next_end() == 15.0


def test_an_id_that_comes_again_has_a_life_of_its_own() -> None:
    leases = Leases()
    leases.add(Lease(1, 5.0), Mono(0.0))
    leases.drop(1)
    leases.add(Lease(1, 50.0), Mono(0.0))
    assert leases.overdue(Mono(10.0), 9) == ()
    assert leases.overdue(Mono(50.0), 9) == (1,)
    assert leases.overdue(Mono(50.0), 9) == (1,)


def test_renewals_and_ends_leave_nothing_behind() -> None:
    leases, rng, alive = Leases(), Random(5), set[int]()
    for number in range(1, 5_000):
        now = Mono(number / 100)
        leases.add(Lease(number, rng.choice((100.0, 1_000.0))), now)
        alive.add(number)
        for each in rng.sample(sorted(alive), min(2, len(alive))):
            leases.renew(each, now)
        if len(alive) > 20:
            ended = rng.choice(sorted(alive))
            alive.remove(ended)
            leases.drop(ended)
    assert len(leases) == 20
    assert {lease.id for lease in leases.all()} == alive
    assert len(leases._line) <= 65


def test_what_is_gone_is_gone_for_every_question() -> None:
    leases = Leases()
    leases.add(Lease(1, 5.0), Mono(0.0))
    assert 1 in leases
    leases.drop(1)
    assert 1 not in leases
    for ask in (
        leases.keys_of,
        lambda lease: leases.view(lease, Mono(0.0)),
        lambda lease: leases.renew(lease, Mono(0.0)),
    ):
        with pytest.raises(LeaseGone):
            ask(1)


def test_a_key_lives_by_one_lease_at_a_time() -> None:
    leases = Leases()
    leases.add(Lease(1, 5.0), Mono(0.0))
    leases.add(Lease(2, 5.0), Mono(0.0))
    leases.move("b", 0, 1)
    leases.move("a", 0, 1)
    leases.move("a", 1, 1)
    assert leases.keys_of(1) == ("a", "b")
    leases.move("a", 1, 2)
    leases.move("b", 1, 0)
    assert (leases.keys_of(1), leases.keys_of(2)) == ((), ("a",))
