"""Homes and standbys of sessions: who is replaced, who is promoted, and what has no room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budao.push import StandbyPolicy, Standbys, Target
from budao.push.standby import Advise, AskToPromote, Kept, NotKept, Replace

B, C = Target("b", "http://b:1"), Target("c", "http://c:1", 2.0)


def test_a_session_that_comes_again_replaces_its_old_connection() -> None:
    machine = Standbys()
    assert machine.opened(1, "s") == ()
    assert machine.opened(2, "s") == (Replace(1),)
    machine.gone(1, "s")
    assert machine.home("s") == 2


def test_who_knows_the_session_of_somebody_else_does_not_take_its_place() -> None:
    machine = Standbys()
    assert machine.opened(1, "s", "ada") == ()
    assert machine.opened(2, "s", "mallory") == ()
    assert machine.home("s", "ada") == 1


def test_a_promoted_standby_replaces_the_home_that_is_here() -> None:
    machine = Standbys()
    machine.opened(1, "s")
    assert machine.opened(2, "s", is_standby=True) == ()
    assert machine.standbys("s") == (2,)
    assert machine.promoted(2, "s") == (Replace(1),)
    assert machine.promoted(2, "s") == (), "said again, it changes nothing"
    assert (machine.home("s"), machine.standbys("s")) == (2, ())
    counts = machine.counts()
    assert (counts.homes, counts.standbys, counts.promoted, counts.replaced) == (1, 0, 1, 1)


def test_a_standby_whose_home_is_elsewhere_is_promoted_alone() -> None:
    machine = Standbys()
    machine.opened(1, "s", is_standby=True)
    assert machine.promoted(1, "s") == ()
    assert machine.home("s") == 1


def test_standbys_are_bounded_and_the_oldest_of_a_session_gives_way() -> None:
    machine = Standbys(StandbyPolicy(standbys_max=2, per_session_max=1))
    assert machine.opened(1, "s", is_standby=True) == ()
    assert machine.opened(2, "s", is_standby=True) == (Replace(1),)
    assert machine.opened(3, "t", is_standby=True) == ()
    refused = machine.opened(4, "u", is_standby=True)
    assert isinstance(refused, NotKept)
    assert refused.why == "full"
    machine.gone(4, "u")
    machine.gone(3, "t")
    assert machine.opened(5, "u", is_standby=True) == ()


def test_an_order_to_promote_is_told_over_the_quiet_connection_if_there_is_one() -> None:
    machine = Standbys()
    assert isinstance(machine.promote("s"), NotKept)
    machine.opened(1, "s", "ada")
    assert machine.promote("s") == (AskToPromote(1, Kept.HOME),)
    machine.opened(2, "s", "ada", is_standby=True)
    assert machine.promote("s") == (AskToPromote(2, Kept.STANDBY),)


def test_advice_is_shared_out_by_weight_and_only_for_homes() -> None:
    machine = Standbys()
    machine.opened(1, "s")
    given_to = []
    for _ in range(6):
        (advice,) = machine.advise("s", (B, C))  # type: ignore[misc]
        assert isinstance(advice, Advise)
        given_to.append(advice.target.name)
    assert sorted(given_to) == ["b", "b", "c", "c", "c", "c"]
    machine.opened(2, "t", is_standby=True)
    for session, targets, why in (("t", (B,), "no-home"), ("s", (), "no-peers")):
        answer = machine.advise(session, targets)
        assert isinstance(answer, NotKept)
        assert answer.why == why
    assert machine.counts().advised == 6


@given(st.lists(st.tuples(st.sampled_from(["open", "quiet", "gone", "promote"]), st.integers(0, 5), st.integers(0, 2))))
def test_whatever_happens_a_session_has_one_home_and_counts_are_what_is_there(  # noqa: C901 - the twin is written out
    happens: list[tuple[str, int, int]],
) -> None:
    machine = Standbys(StandbyPolicy(standbys_max=3, per_session_max=2))
    homes: dict[str, int] = {}
    quiet: dict[str, list[int]] = {}
    of: dict[int, str] = {}
    key = 0
    for what, which, session_number in happens:
        session = f"s{session_number}"
        if what in {"open", "quiet"}:
            key += 1
            answer = machine.opened(key, session, is_standby=what == "quiet")
            if isinstance(answer, NotKept):
                assert sum(map(len, quiet.values())) == 3
                continue
            of[key] = session
            for effect in answer:
                assert isinstance(effect, Replace)
                assert isinstance(effect.key, int)
                if what == "open":
                    assert homes[session] == effect.key
                else:
                    quiet[session].remove(effect.key)
            if what == "open":
                homes[session] = key
            else:
                quiet.setdefault(session, []).append(key)
        elif of:
            chosen = sorted(of)[which % len(of)]
            session = of[chosen]
            if what == "gone":
                machine.gone(chosen, session)
                del of[chosen]
                if homes.get(session) == chosen:
                    del homes[session]
                if chosen in quiet.get(session, []):
                    quiet[session].remove(chosen)
            elif chosen in quiet.get(session, []):
                machine.promoted(chosen, session)
                quiet[session].remove(chosen)
                homes[session] = chosen
        counts = machine.counts()
        assert counts.homes == len(homes)
        assert counts.standbys == sum(map(len, quiet.values()))
        for each in {*homes, *quiet}:
            assert machine.home(each) == homes.get(each)
            assert list(machine.standbys(each)) == quiet.get(each, [])
