"""The keeper, stepped by hand: what a commit does, what it refuses, what leases and compaction take away."""

from __future__ import annotations

import pytest

from budao.model import BadSettings, Mono
from budao.store import (
    Batch,
    Change,
    Commit,
    Committed,
    Compact,
    Compacted,
    Condition,
    Delete,
    Entry,
    Field,
    Grant,
    Keeper,
    Lease,
    LeaseGone,
    Operation,
    Page,
    Put,
    Read,
    Relation,
    Revoke,
    Snapshot,
    Span,
    StorePolicy,
    StoreRefused,
    Txn,
    absent,
    present,
    unchanged,
)

T0 = Mono(100.0)
ALL = Span.prefix("")


def commit(keeper: Keeper, *operations: Operation, when: tuple[Condition, ...] = ()) -> Committed:
    return keeper.apply(Commit(Txn(when, operations)), T0)


def state(keeper: Keeper) -> tuple[Snapshot, int]:
    return keeper.snapshot(), keeper.compacted


def test_a_keeper_begins_empty_at_revision_one() -> None:
    assert Keeper().read(ALL) == Page(1, ())


def test_a_put_makes_a_key_and_counts_its_versions() -> None:
    keeper = Keeper()
    assert commit(keeper, Put("a", b"1")) == Committed(2, True, (None,))
    assert commit(keeper, Put("a", b"2")) == Committed(3, True, (None,))
    assert keeper.read(Span.one("a")).entries == (Entry("a", b"2", created=2, modified=3, version=2),)


def test_a_key_that_was_deleted_is_created_anew() -> None:
    keeper = Keeper()
    commit(keeper, Put("a", b"1"))
    assert commit(keeper, Delete(Span.one("a"))) == Committed(3, True, (1,))
    commit(keeper, Put("a", b"2"))
    assert keeper.read(Span.one("a")).first == Entry("a", b"2", created=4, modified=4, version=1)


def test_what_changes_nothing_has_no_revision() -> None:
    keeper = Keeper()
    commit(keeper, Put("a", b"1"))
    answer = commit(keeper, Delete(Span.prefix("b")), Read(ALL))
    assert answer == Committed(2, True, (0, Page(2, (Entry("a", b"1", 2, 2, 1),))))
    assert keeper.changes(ALL, 2) == ()
    assert not keeper.prepare(Commit(Txn(then=(Read(ALL),)))).is_change


def test_operations_see_the_ones_before_them() -> None:
    keeper = Keeper()
    commit(keeper, Put("a", b"1"), Put("b", b"1"))
    answer = commit(keeper, Read(ALL, 1), Put("c", b"2"), Delete(Span.prefix("a")), Delete(Span("a", "b")), Read(ALL))
    a, b, c = Entry("a", b"1", 2, 2, 1), Entry("b", b"1", 2, 2, 1), Entry("c", b"2", 3, 3, 1)
    assert answer == Committed(3, True, (Page(2, (a,), more=True), None, 1, 0, Page(3, (b, c))))
    assert keeper.changes(ALL, 2) == (Batch(3, (Change("c", c), Change("a", None))),)


def test_if_one_condition_fails_the_other_branch_is_done() -> None:
    keeper = Keeper()
    txn = Txn((absent("a"), present("b")), then=(Put("c", b""),), otherwise=(Put("d", b""),))
    assert keeper.apply(Commit(txn), T0) == Committed(2, False, (None,))
    assert [entry.key for entry in keeper.read(ALL).entries] == ["d"]


@pytest.mark.parametrize(
    ("field", "number"), [(Field.VERSION, 2), (Field.CREATED, 2), (Field.MODIFIED, 3), (Field.LEASE, 7)]
)
def test_a_number_is_held_against_another(field: Field, number: int) -> None:
    keeper = Keeper()
    keeper.apply(Grant(7, 10.0), T0)
    commit(keeper, Put("a", b"1"))
    commit(keeper, Put("a", b"2", lease=7))
    for against, holding in (
        (number - 1, {Relation.GREATER, Relation.NOT_EQUAL}),
        (number, {Relation.EQUAL}),
        (number + 1, {Relation.LESS, Relation.NOT_EQUAL}),
    ):
        for relation in Relation:
            held = commit(keeper, when=(Condition("a", field, relation, against),)).held
            assert held == (relation in holding), (relation, against)


@pytest.mark.parametrize("relation", Relation)
def test_a_claim_about_the_value_of_an_absent_key_is_false(relation: Relation) -> None:
    assert not commit(Keeper(), when=(Condition("a", Field.VALUE, relation, b""),)).held


def test_values_compare_as_bytes() -> None:
    keeper = Keeper()
    commit(keeper, Put("a", b"b\xff"))
    for relation, against, held in (
        (Relation.EQUAL, b"b\xff", True),
        (Relation.GREATER, b"b", True),
        (Relation.LESS, b"c", True),
        (Relation.LESS, b"b\xfe\xff", False),
        (Relation.NOT_EQUAL, b"b\xff", False),
    ):
        assert commit(keeper, when=(Condition("a", Field.VALUE, relation, against),)).held == held


def test_an_absent_key_has_zero_in_every_number() -> None:
    for field in (Field.VERSION, Field.CREATED, Field.MODIFIED, Field.LEASE):
        assert commit(Keeper(), when=(Condition("a", field, Relation.EQUAL, 0),)).held


def test_compare_and_set_fails_once_the_entry_has_moved() -> None:
    keeper = Keeper()
    commit(keeper, Put("a", b"1"))
    seen = keeper.read(Span.one("a")).first
    assert seen is not None
    assert commit(keeper, Put("a", b"2"), when=(unchanged(seen),)).held
    assert not commit(keeper, Put("a", b"3"), when=(unchanged(seen),)).held


LONG = "k" * 1025
REFUSED: dict[str, Txn] = {
    "a key put twice": Txn(then=(Put("b", b""), Put("a", b""), Put("b", b""))),
    "a key put and deleted": Txn(then=(Put("a", b""), Delete(Span.prefix("")))),
    "a key deleted and put": Txn(then=(Delete(Span.one("a")), Put("a", b""))),
    "a bad branch that would not be done": Txn(then=(), otherwise=(Put("a", b""), Put("a", b""))),
    "an empty key": Txn(then=(Put("", b""),)),
    "a long key": Txn(then=(Put(LONG, b""),)),
    "a key that is long as bytes": Txn(then=(Put("é" * 600, b""),)),
    "half a surrogate pair": Txn(then=(Put("a\ud800", b""),)),
    "a condition on a long key": Txn((absent(LONG),)),
    "a long value": Txn(then=(Put("a", bytes(1024 * 1024 + 1)),)),
    "many operations": Txn(then=tuple(Put(f"{n}", b"") for n in range(129))),
    "many conditions": Txn(tuple(absent(f"{n}") for n in range(129))),
    "many bytes": Txn(then=(Put("a", bytes(900_000)), Put("b", bytes(900_000)))),
    "a value held against a number": Txn((Condition("a", Field.VALUE, Relation.EQUAL, 1),)),
    "a number held against a value": Txn((Condition("a", Field.LEASE, Relation.EQUAL, b""),)),
    "a number beyond 63 bits": Txn((Condition("a", Field.LEASE, Relation.EQUAL, 2**63),)),
    "a lease below 0": Txn(then=(Put("a", b"", lease=-1),)),
    "a limit below 0": Txn(then=(Read(ALL, -1),)),
    "a span that starts with nothing": Txn(then=(Delete(Span("", None)),)),
    "a span that stops where it starts": Txn(then=(Read(Span("a", "a")),)),
    "a span with a long stop": Txn(then=(Read(Span("a", "b" * 1028)),)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_txn_that_breaks_a_rule_is_refused_and_changes_nothing(name: str) -> None:
    keeper = Keeper()
    commit(keeper, Put("a", b"1"))
    before = state(keeper)
    with pytest.raises(StoreRefused):
        keeper.apply(Commit(REFUSED[name]), T0)
    assert state(keeper) == before


def test_the_longest_key_can_be_put_read_and_deleted() -> None:
    keeper = Keeper()
    key = "é" * 512
    commit(keeper, Put(key, b""))
    assert commit(keeper, Read(Span.one(key)), Delete(Span.prefix(key))).results[1] == 1


def test_a_put_with_a_lease_that_is_gone_changes_nothing() -> None:
    keeper = Keeper()
    before = state(keeper)
    with pytest.raises(LeaseGone):
        commit(keeper, Put("a", b""), Put("b", b"", lease=9))
    assert state(keeper) == before
    # The branch that is not done may name any lease.
    assert keeper.apply(Commit(Txn(otherwise=(Put("a", b"", lease=9),))), T0).held


def test_a_full_store_refuses_more_and_still_takes_away() -> None:
    keeper = Keeper(StorePolicy(entries_max=2, value_bytes_max=10, txn_bytes_max=4096, bytes_max=14))
    commit(keeper, Put("a", b"12345"), Put("b", b"1234567"))
    before = state(keeper)
    with pytest.raises(StoreRefused, match="3 keys"):
        commit(keeper, Put("c", b""))
    with pytest.raises(StoreRefused, match="15 bytes"):
        commit(keeper, Put("a", b"123456"))
    assert state(keeper) == before
    commit(keeper, Delete(Span.one("b")), Put("c", b"1234567"))
    assert keeper.bytes == 14
    assert len(keeper) == 2


def test_a_store_above_its_bounds_lets_go_of_some_and_keeps_the_rest_changing() -> None:
    keeper = Keeper(StorePolicy(entries_max=1, value_bytes_max=4, txn_bytes_max=4096, bytes_max=3))
    keeper.replay(Commit(Txn(then=tuple(Put(key, b"1234") for key in "abc"))), T0)
    commit(keeper, Put("a", b"4321"))
    commit(keeper, Delete(Span.one("b")))
    commit(keeper, Delete(Span.one("c")), Put("d", b"12"))
    with pytest.raises(StoreRefused, match="3 keys"):
        commit(keeper, Put("e", b""))


def test_a_lease_that_is_not_renewed_takes_its_keys_along_at_one_revision() -> None:
    keeper = Keeper()
    lease = keeper.apply(Grant(0, 5.0), T0)
    commit(keeper, Put("b", b"", lease.id), Put("a", b"", lease.id), Put("c", b""))
    assert keeper.wake_at() == 105.0
    assert keeper.wake(Mono(104.9)) == ()
    assert keeper.wake(Mono(105.0)) == (Revoke(lease.id),)
    keeper.apply(Revoke(lease.id), Mono(105.0))
    assert keeper.changes(ALL, 2) == (Batch(3, (Change("a", None), Change("b", None))),)
    assert keeper.wake_at() is None


def test_a_renewed_lease_lives_its_whole_span_again() -> None:
    keeper = Keeper()
    lease = keeper.apply(Grant(0, 5.0), T0)
    assert keeper.renew(lease.id, Mono(104.0)) == lease
    assert keeper.wake_at() == 109.0
    assert keeper.look_up(lease.id, Mono(105.0)).left_s == 4.0


def test_a_lease_that_has_run_out_cannot_be_renewed() -> None:
    keeper = Keeper()
    lease = keeper.apply(Grant(0, 5.0), T0)
    with pytest.raises(LeaseGone):
        keeper.renew(lease.id, Mono(105.0))


def test_leases_run_out_the_earliest_first() -> None:
    keeper = Keeper()
    for number, ttl_s in ((1, 9.0), (2, 3.0), (3, 6.0)):
        keeper.apply(Grant(number, ttl_s), T0)
    keeper.renew(2, Mono(102.0))
    assert keeper.wake(Mono(106.0)) == (Revoke(2), Revoke(3))
    assert keeper.wake(Mono(200.0)) == (Revoke(2), Revoke(3), Revoke(1))


def test_a_crowd_of_leases_ends_in_parts() -> None:
    keeper = Keeper()
    for _ in range(600):
        keeper.apply(Grant(0, 5.0), T0)
    ended = []
    while due := keeper.wake(Mono(200.0)):
        ended.append(len(due))
        assert keeper.wake_at() == 105.0
        for revoke in due:
            keeper.apply(revoke, Mono(200.0))
    assert ended == [256, 256, 88]
    assert keeper.wake_at() is None


def test_a_key_put_with_another_lease_moves_and_without_one_is_free() -> None:
    keeper = Keeper()
    keeper.apply(Grant(1, 5.0), T0)
    keeper.apply(Grant(2, 5.0), T0)
    commit(keeper, Put("a", b"", 1), Put("b", b"", 1))
    commit(keeper, Put("a", b"", 2))
    commit(keeper, Put("b", b""))
    keeper.apply(Revoke(1), T0)
    assert [entry.key for entry in keeper.read(ALL).entries] == ["a", "b"]
    assert keeper.look_up(2, T0).keys == ("a",)
    assert keeper.revision == 4


def test_a_deleted_key_leaves_its_lease() -> None:
    keeper = Keeper()
    keeper.apply(Grant(1, 5.0), T0)
    commit(keeper, Put("a", b"", 1))
    commit(keeper, Delete(ALL))
    assert keeper.look_up(1, T0).keys == ()
    keeper.apply(Revoke(1), T0)
    assert keeper.revision == 3


def test_a_lease_is_gone_for_every_question_once_it_is_revoked() -> None:
    keeper = Keeper()
    keeper.apply(Grant(1, 5.0), T0)
    keeper.apply(Revoke(1), T0)
    with pytest.raises(LeaseGone):
        keeper.apply(Revoke(1), T0)
    with pytest.raises(LeaseGone):
        keeper.renew(1, T0)
    with pytest.raises(LeaseGone):
        keeper.look_up(1, T0)


def test_a_lease_id_is_chosen_or_given_and_never_taken_twice() -> None:
    keeper = Keeper(StorePolicy(leases_max=3, ttl_min_s=2.0), lease_next=2**63 - 1)
    assert keeper.apply(Grant(1, 0.5), T0) == Lease(1, 2.0)
    assert keeper.apply(Grant(0, 3), T0) == Lease(2**63 - 1, 3.0)
    with pytest.raises(StoreRefused, match="taken"):
        keeper.apply(Grant(1, 5.0), T0)
    assert keeper.apply(Grant(0, 3), T0).id == 2
    with pytest.raises(StoreRefused, match="bound"):
        keeper.apply(Grant(0, 3), T0)
    keeper.apply(Revoke(2), T0)
    assert keeper.apply(Grant(0, 3), T0).id == 3


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, float("nan"), float("inf"), 86_401.0])
def test_a_lease_of_no_possible_length_is_refused(ttl_s: float) -> None:
    with pytest.raises(StoreRefused):
        Keeper().apply(Grant(0, ttl_s), T0)


def test_the_past_can_be_read_back_to_the_last_compaction() -> None:
    keeper = Keeper()
    commit(keeper, Put("a", b"1"), Put("b", b"1"))
    commit(keeper, Delete(Span.one("a")), Put("c", b"1"))
    commit(keeper, Put("a", b"2"), Put("b", b"2"))
    a, b = Entry("a", b"1", 2, 2, 1), Entry("b", b"1", 2, 2, 1)
    assert keeper.read(ALL, 1) == Page(4, ())
    assert keeper.read(ALL, 2) == Page(4, (a, b))
    assert keeper.read(ALL, 2, limit=1) == Page(4, (a,), more=True)
    assert keeper.read(Span.prefix("a"), 3) == Page(4, ())
    keeper.apply(Compact(3), T0)
    assert keeper.read(ALL, 3) == Page(4, (b, Entry("c", b"1", 3, 3, 1)))
    with pytest.raises(Compacted) as caught:
        keeper.read(ALL, 2)
    assert (caught.value.asked, caught.value.oldest) == (2, 3)


def test_a_revision_to_come_cannot_be_read_or_compacted_but_watched_for() -> None:
    keeper = Keeper()
    with pytest.raises(StoreRefused, match="still to come"):
        keeper.read(ALL, 2)
    with pytest.raises(StoreRefused, match="still to come"):
        keeper.apply(Compact(2), T0)
    commit(keeper, Put("a", b""))
    commit(keeper, Put("a", b""))
    assert keeper.changes(ALL, 9) == ()


def test_changes_begin_above_a_revision_and_stop_at_a_limit() -> None:
    keeper = Keeper()
    for n in range(5):
        commit(keeper, Put("a", b"%d" % n), Put(f"b{n}", b""))
    assert [batch.revision for batch in keeper.changes(ALL, 0)] == [2, 3, 4, 5, 6]
    assert [batch.revision for batch in keeper.changes(ALL, 3, 2)] == [4, 5]
    assert keeper.changes(Span.one("b3"), 2) == (Batch(5, (Change("b3", Entry("b3", b"", 5, 5, 1)),)),)
    keeper.apply(Compact(4), T0)
    assert [batch.revision for batch in keeper.changes(ALL, 4)] == [5, 6]
    with pytest.raises(Compacted):
        keeper.changes(ALL, 3)
    with pytest.raises(Compacted):
        keeper.apply(Compact(4), T0)


def test_beyond_its_bound_the_oldest_history_is_forgotten() -> None:
    keeper = Keeper(StorePolicy(history_revisions_max=16))
    for n in range(100):
        commit(keeper, Put("a", b"%d" % n))
        assert keeper.revision - keeper.compacted <= 16 or keeper.compacted == 0
        assert keeper.changes(ALL, max(keeper.compacted, n + 1))[-1].revision == n + 2
    assert keeper.compacted >= 101 - 16


def test_history_is_bounded_in_bytes_too() -> None:
    keeper = Keeper(StorePolicy(history_bytes_max=10_000))
    for _ in range(100):
        commit(keeper, Put("a", bytes(1_000)))
        assert keeper.revision - max(1, keeper.compacted) <= 10
    commit(keeper, Put("a", bytes(20_000)))
    commit(keeper, Delete(ALL))
    assert keeper.compacted == keeper.revision


def test_a_snapshot_is_a_keeper_without_its_past() -> None:
    keeper = Keeper()
    keeper.apply(Grant(0, 5.0), T0)
    commit(keeper, Put("a", b"1", 1), Put("b", b"2"))
    commit(keeper, Put("b", b"3"))
    restored = Keeper.restored(keeper.snapshot(), Mono(1.0))
    assert restored.snapshot() == keeper.snapshot()
    assert restored.read(ALL) == keeper.read(ALL)
    assert restored.compacted == restored.revision == 3
    assert restored.wake_at() == 6.0
    assert restored.apply(Grant(0, 5.0), T0).id == 2
    restored.apply(Revoke(1), T0)
    assert [entry.key for entry in restored.read(ALL).entries] == ["b"]


def test_a_snapshot_that_does_not_fit_together_is_refused() -> None:
    for entry in (Entry("a", b"", 2, 9, 1), Entry("a", b"", 2, 2, 1, lease=5)):
        with pytest.raises(StoreRefused):
            Keeper.restored(Snapshot(5, (entry,), (), 1), T0)


def test_a_replay_is_not_refused_by_bounds_that_came_later() -> None:
    commands = (
        Grant(0, 500.0),
        Commit(Txn(then=(Put("a", bytes(5_000), 1), Put("b", b"")))),
        Commit(Txn(then=(Put("c", b""),))),
        Compact(2),
    )
    keeper, narrow = (
        Keeper(),
        Keeper(
            StorePolicy(
                entries_max=1,
                value_bytes_max=1,
                bytes_max=1,
                ttl_max_s=10.0,
                history_bytes_max=1,
                history_revisions_max=1,
            )
        ),
    )
    for command in commands:
        keeper.apply(command, T0)
        narrow.replay(command, T0)
    assert narrow.snapshot() == keeper.snapshot()


def test_after_a_replay_every_lease_can_be_given_its_whole_span() -> None:
    keeper = Keeper()
    keeper.apply(Grant(0, 5.0), T0)
    keeper.renew_all(Mono(103.0))
    assert keeper.wake_at() == 108.0


def test_what_was_prepared_is_stale_once_something_else_was_done() -> None:
    keeper = Keeper()
    prepared = keeper.prepare(Commit(Txn(then=(Put("a", b""),))))
    assert prepared.is_change
    commit(keeper, Put("b", b""))
    with pytest.raises(AssertionError):
        keeper.carry_out(prepared, T0)


def test_a_policy_says_every_problem_at_once() -> None:
    with pytest.raises(BadSettings) as caught:
        StorePolicy(ttl_min_s=0.0, entries_max=0)
    assert [path for path, _ in caught.value.problems] == ["store.entries_max", "store.ttl_min_s"]
    with pytest.raises(BadSettings, match="ttl_max_s"):
        StorePolicy(ttl_min_s=5.0, ttl_max_s=4.0)
    with pytest.raises(BadSettings, match="do not hold"):
        StorePolicy(txn_bytes_max=1024)
