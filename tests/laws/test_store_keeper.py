"""The keeper does what a list of whole states does, one state a revision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from budao.model import Mono
from budao.store import (
    Batch,
    Change,
    Command,
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
    Result,
    Revoke,
    Span,
    StoreError,
    StorePolicy,
    StoreRefused,
    Txn,
)

KEYS = ["a", "aa", "ab", "b", "é", "\U0001f600"]
ALL = Span.prefix("")
SPANS = [ALL, *map(Span.prefix, "ab"), *map(Span.one, KEYS), Span("aa", "b"), Span("ab", None), Span("b", "\U0001f600")]

keys, spans, small = st.sampled_from(KEYS), st.sampled_from(SPANS), st.integers(0, 6)
leases = st.one_of(st.just(0), st.integers(1, 4))
operations = st.one_of(
    st.builds(Put, keys, st.binary(max_size=2), leases),
    st.builds(Put, keys, st.binary(max_size=2)),
    st.builds(Delete, spans),
    st.builds(Read, spans, st.integers(0, 3)),
)
relations = st.sampled_from(list(Relation))
numbers = st.sampled_from([field for field in Field if field is not Field.VALUE])
conditions = st.one_of(
    st.builds(Condition, keys, numbers, relations, small),
    st.builds(Condition, keys, st.just(Field.VALUE), relations, st.binary(max_size=2)),
)
branches = st.lists(operations, max_size=4).map(tuple)
txns = st.builds(Txn, st.lists(conditions, max_size=2).map(tuple), branches, branches)
commands = st.one_of(
    st.builds(Commit, txns),
    st.builds(Commit, st.builds(Txn, then=branches)),
    st.builds(Grant, leases, st.sampled_from([0.5, 3.0, 10.0])),
    st.builds(Revoke, leases),
    st.builds(Compact, st.integers(1, 12)),
)
"""What is done; most of it can be."""
step = st.tuples(commands, st.sampled_from([0.0, 0.0, 1.0, 4.0]))
steps = st.one_of(st.lists(step, max_size=8), st.lists(step, min_size=15, max_size=30))


class Twin:
    """Keeps every state there ever was, looks through all of it for every question, and copies it for every commit."""

    def __init__(self) -> None:
        self.states: list[dict[str, Entry]] = [{}, {}]
        self.leases: dict[int, Lease] = {}
        self.until: dict[int, float] = {}
        self.lease_next = 1
        self.compacted = 0

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def apply(self, command: Command, now: float) -> Any:
        if isinstance(command, Commit):
            return self.commit(command.txn)
        if isinstance(command, Grant):
            return self.grant(command, now)
        if isinstance(command, Revoke):
            return self.revoke(command.lease)
        if command.revision > self.revision:
            raise StoreRefused("", "")
        if command.revision <= self.compacted:
            raise Compacted(command.revision, self.compacted)
        self.compacted = command.revision
        return None

    def commit(self, txn: Txn) -> Committed:
        for branch in (txn.then, txn.otherwise):
            put = [each.key for each in branch if isinstance(each, Put)]
            deleted = [each.span for each in branch if isinstance(each, Delete)]
            if len(set(put)) < len(put) or any(key in span for key in put for span in deleted):
                raise StoreRefused("", "")
        held = all(self.holds(condition) for condition in txn.when)
        state = dict(self.states[-1])
        results = tuple(self.do(each, state) for each in (txn.then if held else txn.otherwise))
        if state != self.states[-1]:
            self.states.append(state)
        return Committed(self.revision, held, results)

    def holds(self, condition: Condition) -> bool:
        entry = self.states[-1].get(condition.key)
        if entry is None and condition.field is Field.VALUE:
            return False
        found: Any = 0 if entry is None else getattr(entry, condition.field.value)
        return {
            Relation.EQUAL: lambda: found == condition.against,
            Relation.NOT_EQUAL: lambda: found != condition.against,
            Relation.GREATER: lambda: found > condition.against,
            Relation.LESS: lambda: found < condition.against,
        }[condition.relation]()

    def do(self, operation: Operation, state: dict[str, Entry]) -> Result:
        revision = self.revision + 1
        if isinstance(operation, Put):
            if operation.lease and operation.lease not in self.leases:
                raise LeaseGone(operation.lease)
            old = state.get(operation.key) or Entry(operation.key, b"", revision, revision, 0)
            state[operation.key] = replace(
                old, value=operation.value, modified=revision, version=old.version + 1, lease=operation.lease
            )
            return None
        if isinstance(operation, Delete):
            doomed = [key for key in state if key in operation.span]
            for key in doomed:
                del state[key]
            return len(doomed)
        return self.page(
            state, operation.span, operation.limit, revision if state != self.states[-1] else self.revision
        )

    def page(self, state: dict[str, Entry], span: Span, limit: int, revision: int) -> Page:
        found = [state[key] for key in sorted(state, key=str.encode) if key in span]
        return Page(revision, tuple(found[: limit or None]), more=0 < limit < len(found))

    def grant(self, command: Grant, now: float) -> Lease:
        number = command.lease
        if number in self.leases:
            raise StoreRefused("", "")
        if not number:
            number = self.lease_next
            while number in self.leases:
                number += 1
            self.lease_next = number + 1
        granted = self.leases[number] = Lease(number, max(command.ttl_s, 1.0))
        self.until[number] = now + granted.ttl_s
        return granted

    def revoke(self, lease: int) -> None:
        if lease not in self.leases:
            raise LeaseGone(lease)
        del self.leases[lease], self.until[lease]
        state = {key: entry for key, entry in self.states[-1].items() if entry.lease != lease}
        if state != self.states[-1]:
            self.states.append(state)

    def wake(self, now: float) -> list[int]:
        due = [number for number, until in self.until.items() if until <= now]
        return sorted(due, key=lambda number: (self.until[number], number))

    def changes(self, span: Span, after: int) -> list[Batch]:
        found = []
        for revision in range(after + 1, len(self.states)):
            old, new = self.states[revision - 1], self.states[revision]
            changed = [key for key in sorted({*old, *new}) if key in span and old.get(key) != new.get(key)]
            if changed:
                found.append(Batch(revision, tuple(Change(key, new.get(key)) for key in changed)))
        return found


def told(work: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return work(*arguments)
    except StoreError as error:
        return type(error)


def in_order(batches: tuple[Batch, ...]) -> list[Batch]:
    return [Batch(each.revision, tuple(sorted(each.changes, key=lambda change: change.key))) for each in batches]


def compare(keeper: Keeper, twin: Twin, now: float) -> None:
    assert (keeper.revision, keeper.compacted) == (twin.revision, twin.compacted)
    for span in SPANS:
        for limit in (0, 1, 2):
            assert keeper.read(span, limit=limit) == twin.page(twin.states[-1], span, limit, twin.revision)
    for number, lease in twin.leases.items():
        view = keeper.look_up(number, Mono(now))
        assert (view.ttl_s, view.left_s) == (lease.ttl_s, max(0.0, twin.until[number] - now))
        assert list(view.keys) == sorted(key for key, entry in twin.states[-1].items() if entry.lease == number)
    assert keeper.wake_at() == min(twin.until.values(), default=None)
    assert keeper.bytes == sum(len(key.encode()) + len(entry.value) for key, entry in twin.states[-1].items())
    assert (len(keeper), keeper.leases) == (len(twin.states[-1]), len(twin.leases))


def compare_the_past(keeper: Keeper, twin: Twin) -> None:
    for revision in range(1, twin.revision + 1):
        for span in SPANS:
            page = told(keeper.read, span, revision, 2)
            batches = told(keeper.changes, span, revision)
            if revision < twin.compacted:
                assert page is batches is Compacted
            else:
                assert page == twin.page(twin.states[revision], span, 2, twin.revision)
                assert in_order(batches) == twin.changes(span, revision)


def live(keeper: Keeper, twin: Twin, history: list[tuple[Command, float]]) -> tuple[float, list[Command]]:
    """Goes through a history, lets leases run out on the way, and answers the commands that changed something."""
    now, journal = 0.0, []
    for command, later_s in history:
        now += later_s
        due = keeper.wake(Mono(now))
        assert [revoke.lease for revoke in due] == twin.wake(now)
        for each in (*due, command):
            turn = keeper.snapshot(), keeper.compacted
            prepared = told(keeper.prepare, each)
            assert (keeper.snapshot(), keeper.compacted) == turn, "preparing changes nothing"
            expected = told(twin.apply, each, now)
            if isinstance(prepared, type):
                assert prepared is expected
                continue
            assert keeper.carry_out(prepared, Mono(now)) == expected
            assert prepared.is_change == ((keeper.snapshot(), keeper.compacted) != turn)
            if prepared.is_change:
                journal.append(each)
            compare(keeper, twin, now)
    return now, journal


@given(steps)
def test_a_keeper_does_what_a_list_of_states_does(history: list[tuple[Command, float]]) -> None:
    keeper, twin = Keeper(), Twin()
    live(keeper, twin, history)
    compare_the_past(keeper, twin)


@given(steps, st.integers(1, 12))
def test_a_bounded_history_still_tells_the_truth_or_says_that_it_forgot(
    history: list[tuple[Command, float]], revisions_max: int
) -> None:
    keeper, twin = Keeper(StorePolicy(history_revisions_max=revisions_max)), Keeper()
    now = 0.0
    for command, later_s in history:
        now += later_s
        if isinstance(command, Compact):
            continue
        assert told(keeper.apply, command, Mono(now)) == told(twin.apply, command, Mono(now))
        assert keeper.revision - max(1, keeper.compacted) <= revisions_max
        assert keeper.compacted <= keeper.revision
        for revision in range(max(1, keeper.compacted), keeper.revision + 1):
            assert keeper.read(ALL, revision) == twin.read(ALL, revision)
            assert keeper.changes(ALL, revision) == twin.changes(ALL, revision)
        if keeper.compacted > 1:
            assert told(keeper.changes, ALL, keeper.compacted - 1) is Compacted


@given(steps, st.integers(0, 25))
def test_a_snapshot_and_the_journal_after_it_are_the_store(history: list[tuple[Command, float]], at: int) -> None:
    keeper, twin = Keeper(), Twin()
    now, journal = live(keeper, twin, history)
    early, restored = Keeper(), Keeper()
    for number, command in enumerate(journal):
        if number == at:
            restored = Keeper.restored(early.snapshot(), Mono(now))
        early.replay(command, Mono(now))
        restored.replay(command, Mono(now))
    assert early.snapshot() == restored.snapshot() == keeper.snapshot()
    for number, lease in twin.leases.items():
        assert restored.look_up(number, Mono(now)).left_s == lease.ttl_s
    assert early.changes(ALL, early.compacted) == keeper.changes(ALL, keeper.compacted)


@given(steps, st.integers(1, 3))
def test_a_watcher_with_a_limit_sees_the_same(history: list[tuple[Command, float]], limit: int) -> None:
    keeper, twin = Keeper(), Twin()
    live(keeper, twin, history)
    for span in SPANS:
        seen: list[Batch] = []
        after = keeper.compacted
        while batches := keeper.changes(span, after, limit):
            seen += batches
            after = batches[-1].revision
        assert in_order(tuple(seen)) == twin.changes(span, max(1, keeper.compacted))
