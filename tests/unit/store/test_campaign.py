"""A candidate, stepped by hand: when it leads, when it renews, and when it must stop."""

from __future__ import annotations

import pytest

from budao.model import BadSettings, Mono
from budao.store import (
    Campaign,
    CampaignPolicy,
    Candidate,
    Commit,
    Condition,
    Delete,
    Depose,
    Entry,
    Field,
    Grant,
    Keeper,
    Lead,
    LeaseEnded,
    Page,
    Polled,
    Put,
    Read,
    Relation,
    Renew,
    RenewalFailed,
    Renewed,
    Revoke,
    Span,
    Standing,
    StoreRefused,
    Txn,
    absent,
    candidates,
    enrolment,
)

POLICY = CampaignPolicy(ttl_s=10.0, renew_share=0.3, drift_share=0.02)
ME = Candidate("boss/7", 20)
OWN = Entry("boss/7", b"", 20, 20, 1, 7)
OLDER = Entry("boss/6", b"", 15, 15, 1, 6)


def machine(now: float = 0.0) -> Campaign:
    return Campaign(ME, Mono(now), 10.0, POLICY)


def leading() -> Campaign:
    made = machine()
    assert made.handle(Polled(OWN, OWN), Mono(0.1)) == (Lead(),)
    return made


def test_the_first_of_all_candidates_leads() -> None:
    made = machine()
    assert made.handle(Polled(OWN, OLDER), Mono(1.0)) == ()
    assert made.standing is Standing.CANDIDATE
    assert made.handle(Polled(OWN, OWN), Mono(2.0)) == (Lead(),)
    assert made.handle(Polled(OWN, OWN), Mono(2.1)) == ()
    assert made.standing is Standing.LEADING


def test_a_candidate_whose_key_is_gone_or_of_another_life_is_deposed() -> None:
    for own in (None, Entry("boss/7", b"", 21, 21, 1, 7)):
        made = leading()
        assert made.handle(Polled(own, own), Mono(1.0)) == (Depose("its key is gone"),)
        assert made.handle(Polled(OWN, OWN), Mono(1.1)) == ()
        assert made.standing is Standing.DEPOSED
        assert made.wake_at() is None
        assert made.wake(Mono(99.0)) == ()


def test_a_lease_is_renewed_in_good_time_and_counted_from_before_the_request() -> None:
    made = leading()
    assert made.wake_at() == 3.0
    assert made.wake(Mono(2.9)) == ()
    assert made.wake(Mono(3.0)) == (Renew(),)
    assert made.wake_at() == 9.8
    assert made.wake(Mono(3.1)) == ()
    assert made.handle(Renewed(Mono(3.0)), Mono(4.5)) == ()
    assert (made.until, made.wake_at()) == (12.8, 6.0)


def test_a_renewal_that_fails_is_tried_again_until_the_lease_is_not_certain() -> None:
    made = leading()
    now, tries = 3.0, 0
    while made.wake(Mono(now)) == (Renew(),):
        tries += 1
        assert made.handle(RenewalFailed(), Mono(now + 0.1)) == ()
        now = made.wake_at() or 0.0
    assert (tries, now) == (7, 9.8)
    assert made.standing is Standing.DEPOSED


def test_a_leader_is_deposed_when_its_lease_may_have_run_out_whatever_it_waits_for() -> None:
    made = leading()
    made.wake(Mono(3.0))
    (deposed,) = made.handle(Renewed(Mono(3.0)), Mono(9.8))
    assert isinstance(deposed, Depose)
    assert "run out" in deposed.why


def test_a_leader_whose_lease_the_store_calls_gone_is_deposed() -> None:
    made = leading()
    made.wake(Mono(3.0))
    assert made.handle(LeaseEnded(), Mono(3.1)) == (Depose("its lease is gone"),)


def test_news_that_comes_when_a_renewal_is_due_does_not_delay_it() -> None:
    assert machine().handle(Polled(OWN, OWN), Mono(3.5)) == (Renew(), Lead())


def test_the_store_keeps_a_key_longer_than_its_leader_trusts_it() -> None:
    keeper = Keeper()
    sent, arrived = Mono(100.0), Mono(100.0)  # at the very least at the same instant
    lease = keeper.apply(Grant(0, 10.0), arrived)
    made = Campaign(ME, sent, lease.ttl_s, POLICY)
    assert made.until < (keeper.wake_at() or 0.0)


def test_candidates_stand_in_line_and_a_guarded_commit_needs_the_first_ones_key() -> None:
    keeper, now = Keeper(), Mono(0.0)
    standing = []
    for _ in range(2):
        lease = keeper.apply(Grant(0, 10.0), now)
        key, txn = enrolment("boss", b"me", lease.id)
        standing.append(Candidate(key, keeper.apply(Commit(txn), now).revision))
    entries = {entry.key: entry for entry in keeper.read(candidates("boss")).entries}
    assert Polled.of(standing[1].key, entries) == Polled(entries["boss/2"], entries["boss/1"])
    assert Polled.of("boss/3", {}) == Polled(None, None)
    work = standing[0].guarded(Txn(then=(Put("work", b"1"),)))
    assert keeper.apply(Commit(work), now).held
    keeper.apply(Revoke(1), now)
    refused = keeper.apply(Commit(work), now)
    assert not refused.held
    assert refused.results == (Page(5, ()),)
    assert not standing[0].is_own(Page(5, ()))
    assert standing[1].is_own(keeper.read(Span.one("boss/2")))


def test_a_guarded_transaction_has_no_other_branch_that_writes() -> None:
    with pytest.raises(StoreRefused):
        ME.guarded(Txn((absent("a"),), then=(), otherwise=(Delete(Span.one("a")),)))
    guarded = ME.guarded(Txn((absent("a"),), then=(Put("a", b""),), otherwise=(Read(Span.one("a")),)))
    assert guarded.when[0] == Condition("boss/7", Field.CREATED, Relation.EQUAL, 20)
    assert guarded.otherwise == (Read(Span.one("a")), Read(Span.one("boss/7")))


def test_a_policy_says_what_cannot_work() -> None:
    with pytest.raises(BadSettings, match="ttl_s"):
        CampaignPolicy(ttl_s=0.0)
    with pytest.raises(BadSettings, match="given it up"):
        CampaignPolicy(renew_share=0.8, drift_share=0.3)
