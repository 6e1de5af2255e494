"""Connections are looked at in turn, each as often as the others, whoever comes and goes meanwhile."""

from __future__ import annotations

import errno
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from budao.aio.gateway.vital import Ring, Vital, Watched, why_of


def vital() -> Vital:
    return Vital(cast("Watched", None), 1, "-", is_mute=False)


def test_a_round_looks_at_each_once() -> None:
    ring = Ring()
    for _ in range(7):
        ring.add(vital())
    seen = [each for _ in range(7) for each in ring.take(3)]
    assert all(seen.count(each) == 3 for each in ring.members)
    assert ring.take(100) == ring.members


@given(st.lists(st.one_of(st.just("add"), st.integers(0, 50)), max_size=100), st.integers(1, 9))
def test_whoever_goes_is_not_looked_at_and_who_stays_is(acts: list[str | int], count: int) -> None:
    ring, inside = Ring(), list[Vital]()
    for act in acts:
        if act == "add":
            inside.append(vital())
            ring.add(inside[-1])
        elif inside:
            gone = inside.pop(int(act) % len(inside))
            ring.remove(gone)
            assert gone.ring is None
        taken = ring.take(count)
        assert len(taken) == len(set(taken)) == min(count, len(inside))
        assert set(ring.members) == set(inside)
        assert all(ring.members[each.index] is each for each in inside)
    seen = {each for _ in range(len(inside) + 1) for each in ring.take(count)}
    assert seen == set(inside)


def test_what_the_transport_says_becomes_a_word() -> None:
    assert why_of(None) == ""
    assert why_of(ConnectionResetError(errno.ECONNRESET, "")) == why_of(BrokenPipeError(errno.EPIPE, "")) == "reset"
    assert why_of(TimeoutError(errno.ETIMEDOUT, "")) == "timed-out"
    assert why_of(OSError(errno.EHOSTUNREACH, "")) == "unreachable"
    assert why_of(RuntimeError()) == "reset"
