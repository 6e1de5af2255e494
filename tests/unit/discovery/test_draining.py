from __future__ import annotations

import pytest

from budao.discovery import Drain, DrainPolicy, DrainProof
from budao.discovery.draining import (
    MOVES,
    Asked,
    CloseIdle,
    Counted,
    Cut,
    Effect,
    Fact,
    Finish,
    Move,
    Phase,
    PublishDraining,
    Published,
    Revoke,
    Revoked,
    SayNotReady,
    StopAccepting,
    StoreFailed,
    TellPeersToGo,
    Watched,
)
from budao.model import BadSettings, Mono

POLICY = DrainPolicy.of(100.0, lag_s=2.0)  # accepts 55 s, cuts at 96 s, ends at 98 s, settles 0.25 s


def at(drain: Drain, second: float, *facts: Fact) -> tuple[Effect, ...]:
    effects = drain.wake(Mono(second))
    for fact in facts:
        effects += drain.handle(fact, Mono(second))
    return effects


def proof_in(effects: tuple[Effect, ...]) -> DrainProof:
    (finish,) = [effect for effect in effects if isinstance(effect, Finish)]
    return finish.proof


def accepting(*, watchers: dict[str, int] | None = None, registered: bool = True) -> Drain:
    drain = Drain(POLICY, registered=registered)
    at(drain, 0.0, Asked(), Published(7), Watched({"shop": 3, "web": 3} if watchers is None else watchers))
    return drain


def test_the_order_to_leave_is_published_before_anything_is_closed() -> None:
    drain = Drain(POLICY)
    assert at(drain, 0.0, Asked()) == (PublishDraining(), SayNotReady(), TellPeersToGo())
    assert drain.phase is Phase.ANNOUNCING


def test_it_accepts_until_every_watcher_has_acknowledged_that_revision() -> None:
    drain = accepting()
    assert at(drain, 5.0, Watched({"shop": 7, "web": 6})) == ()
    assert at(drain, 50.0) == ()
    assert at(drain, 51.0, Watched({"shop": 7, "web": 8})) == ()
    assert drain.wake_at() == 51.25
    assert at(drain, 51.25) == (StopAccepting(), CloseIdle(), Revoke())
    assert proof_in(at(drain, 51.5, Revoked())) == DrainProof(
        why="everyone acknowledged",
        revision=7,
        acknowledged=(("shop", 5.0), ("web", 51.0)),
        missing=(),
        calls_finished=0,
        calls_cut=0,
        spans=(("announcing", 0.0), ("accepting", 51.25), ("finishing", 0.0), ("closing", 0.25)),
        took_s=51.5,
        grace_s=100.0,
    )
    assert drain.phase is Phase.GONE


def test_an_acknowledgement_does_not_shorten_the_time_of_those_who_do_not_watch() -> None:
    drain = accepting()
    at(drain, 0.5, Watched({"shop": 7, "web": 7}))
    assert drain.wake_at() == 2.0


def test_where_nobody_watches_only_the_lag_is_waited_for() -> None:
    drain = accepting(watchers={})
    assert at(drain, 1.9) == ()
    assert at(drain, 2.0)[0] == StopAccepting()
    assert proof_in(at(drain, 2.0, Revoked())).why == "nobody watches"


def test_before_the_watchers_are_seen_nobody_is_taken_to_be_there_or_not() -> None:
    drain = Drain(POLICY)
    at(drain, 0.0, Asked(), Published(7))
    assert drain.wake_at() == pytest.approx(55.0)


def test_a_watcher_that_is_gone_is_no_longer_waited_for() -> None:
    drain = accepting()
    at(drain, 4.0, Watched({"shop": 7}))
    assert drain.wake_at() == 4.25


def test_a_watcher_that_comes_late_is_waited_for_as_well() -> None:
    drain = accepting()
    at(drain, 4.0, Watched({"shop": 7, "web": 7}))
    at(drain, 4.1, Watched({"shop": 7, "web": 7, "new": 5}))
    assert drain.wake_at() == pytest.approx(55.0)


def test_one_that_never_acknowledges_is_named_in_the_proof() -> None:
    drain = accepting()
    at(drain, 4.0, Watched({"shop": 7, "web": 3}))
    assert StopAccepting() in at(drain, 55.1)
    proof = proof_in(at(drain, 55.2, Revoked()))
    assert (proof.why, proof.missing, [name for name, _ in proof.acknowledged]) == ("bound passed", ("web",), ["shop"])
    assert not proof.is_clean


def test_a_call_that_still_comes_keeps_the_listener_open() -> None:
    drain = accepting(watchers={})
    at(drain, 1.9, Counted(0, 1, 1))
    assert drain.wake_at() == 2.15
    at(drain, 2.1, Counted(0, 2, 2))
    assert drain.wake_at() == pytest.approx(2.35)


def test_calls_that_never_stop_coming_end_at_the_bound() -> None:
    drain = accepting(watchers={})
    for tenth in range(1, 550):
        assert at(drain, tenth / 10, Counted(0, tenth, tenth)) == ()
    assert StopAccepting() in at(drain, 55.1)
    assert proof_in(at(drain, 55.2, Revoked())).why == "still called: bound passed"


def test_what_is_in_flight_finishes_before_anything_is_closed() -> None:
    drain = accepting(watchers={})
    at(drain, 1.0, Counted(2, 2, 0))
    assert at(drain, 2.0) == (StopAccepting(),)
    assert at(drain, 60.0, Counted(1, 2, 1)) == ()
    assert at(drain, 61.0, Counted(0, 2, 2)) == (CloseIdle(), Revoke())
    proof = proof_in(at(drain, 61.0, Revoked()))
    assert (proof.calls_finished, proof.calls_cut) == (2, 0)
    assert proof.is_clean


def test_what_takes_longer_than_the_grace_is_cut_and_counted() -> None:
    drain = accepting(watchers={})
    at(drain, 1.0, Counted(3, 5, 2))
    at(drain, 2.0)
    assert at(drain, 96.0) == (Cut(3), CloseIdle(), Revoke())
    proof = proof_in(at(drain, 96.1, Counted(0, 5, 5), Revoked()))
    assert (proof.calls_finished, proof.calls_cut) == (2, 3)


def test_calls_from_before_the_order_are_not_counted_as_finished_by_the_drain() -> None:
    drain = Drain(POLICY, registered=False)
    at(drain, 0.0, Counted(1, 100, 99), Asked())
    at(drain, 1.0, Counted(0, 100, 100))
    assert proof_in(at(drain, 2.0)).calls_finished == 1


def test_without_a_store_there_is_nobody_to_tell_and_the_lag_is_waited_for() -> None:
    drain = Drain(POLICY, registered=False)
    assert at(drain, 0.0, Asked()) == (SayNotReady(), TellPeersToGo())
    effects = at(drain, 2.0)
    assert effects[:2] == (StopAccepting(), CloseIdle())
    assert proof_in(effects).revision == 0


def test_a_store_that_is_away_is_asked_again_and_the_drain_ends_without_it() -> None:
    drain = Drain(POLICY)
    at(drain, 0.0, Asked(), StoreFailed("nobody answers"))
    assert at(drain, 2.8) == (PublishDraining(),)
    at(drain, 7.0, StoreFailed("nobody answers"))
    assert StopAccepting() in at(drain, 55.1)
    effects = at(drain, 98.0)
    proof = proof_in(effects)
    assert (proof.revision, proof.why) == (0, "never published: bound passed")
    assert proof.problems == ("nobody answers", "the store did not answer in time")


def test_a_store_that_comes_back_in_time_is_told() -> None:
    drain = Drain(POLICY)
    at(drain, 0.0, Asked(), StoreFailed("nobody answers"))
    at(drain, 3.0, Published(9), Watched({"shop": 9}))
    assert drain.wake_at() == 5.0


def test_each_further_signal_ends_the_phase_it_meets() -> None:
    drain = accepting()
    at(drain, 1.0, Counted(1, 1, 0))
    assert at(drain, 1.5, Asked()) == (StopAccepting(),)
    assert at(drain, 1.6, Asked()) == (Cut(1), CloseIdle(), Revoke())
    proof = proof_in(at(drain, 1.7, Asked()))
    assert (proof.why, proof.hurried, proof.missing) == ("hurried", 3, ("shop", "web"))
    assert at(drain, 1.8, Asked()) == ()


def test_a_signal_that_comes_before_the_publication_hurries_as_well() -> None:
    drain = Drain(POLICY)
    assert at(drain, 0.0, Asked(), Asked())[-3:] == (StopAccepting(), CloseIdle(), Revoke())


@pytest.mark.parametrize("fact", [Published(3), Revoked(), Watched({}), Counted(1, 1, 0), StoreFailed("no")])
def test_a_fact_that_does_not_fit_moves_nothing(fact: Fact) -> None:
    drain = Drain(POLICY)
    assert at(drain, 0.0, fact) == ()
    assert drain.phase is Phase.SERVING
    assert drain.wake_at() is None


def test_a_late_publication_does_not_reopen_what_is_closed() -> None:
    drain = Drain(POLICY)
    at(drain, 0.0, Asked(), Counted(1, 1, 0))
    at(drain, 55.1)
    assert at(drain, 56.0, Published(9)) == ()
    assert drain.phase is Phase.FINISHING


def test_one_late_wake_does_all_that_was_due() -> None:
    drain = accepting()
    at(drain, 0.5, Counted(1, 1, 0))
    effects = at(drain, 1000.0)
    assert [type(effect) for effect in effects] == [StopAccepting, Cut, CloseIdle, Revoke, Finish]


def test_the_table_of_moves_leads_from_serving_to_gone() -> None:
    reached = {Phase.SERVING}
    for _ in Phase:
        reached |= {after for (before, _), after in MOVES.items() if before in reached}
    assert reached == set(Phase)
    assert {move for _, move in MOVES} == set(Move)
    assert not [move for phase, move in MOVES if phase is Phase.GONE]


def test_the_bounds_derive_from_the_grace_and_add_up_to_it() -> None:
    policy = DrainPolicy.of(30.0)
    assert policy.accept_s == pytest.approx(16.5)
    assert policy.linger_s == 5.0
    assert policy.accept_s + policy.finish_s + policy.close_s + policy.exit_s == pytest.approx(30.0)
    assert "finishing  at least 10.5 s" in policy.explain()
    assert "assumed" in policy.explain()
    assert "as told" in DrainPolicy.of(30.0, lag_s=2.0).explain()


def test_a_grace_that_is_too_short_for_the_lag_is_refused_with_one_that_is_enough() -> None:
    with pytest.raises(BadSettings, match=r"a grace of 3\.8 s is enough"):
        DrainPolicy.of(1.0, lag_s=2.0)
    DrainPolicy.of(3.8, lag_s=2.0)


@pytest.mark.parametrize("grace_s", [0.0, -1.0, float("nan"), "30"])
def test_a_grace_that_is_no_span_is_refused(grace_s: float) -> None:
    with pytest.raises(BadSettings):
        DrainPolicy.of(grace_s)


def test_a_proof_is_one_line_whatever_the_names() -> None:
    drain = Drain(POLICY)
    at(drain, 0.0, Asked(), Published(7), Watched({'a b,"c"\n=d': 7}), StoreFailed('it said "no"\nand left'))
    line = str(proof_in(at(drain, 2.0, Revoked())))
    assert "\n" not in line
    assert "acknowledged_by=a_b__c___d@0.000" in line
    assert "problem=\"it said 'no' and left\"" in line
