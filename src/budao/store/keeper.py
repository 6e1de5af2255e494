"""The store itself, as a machine: revisioned keys, transactions, leases, and enough of the past to follow it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self, overload

from budao.model import Mono
from budao.store.commands import Answer, Command, Commit, Compact, Grant, Revoke
from budao.store.errors import Compacted, LeaseGone, StoreRefused
from budao.store.history import History
from budao.store.leases import Leases
from budao.store.policy import NUMBER_MAX, StorePolicy, check_number, check_span, check_ttl, check_txn
from budao.store.shelf import Shelf, size_of
from budao.store.values import (
    Batch,
    Change,
    Committed,
    Condition,
    Delete,
    Entry,
    Field,
    Lease,
    LeaseView,
    Operation,
    Page,
    Put,
    Relation,
    Result,
    Span,
)

REVOKES_MAX: Final = 256
"""Leases that end in one go."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a command will do and answer, before it is done. Good until the keeper carries anything out."""

    command: Command
    answer: Answer
    is_change: bool
    """Whether it changes anything: if not, it need not be kept in a journal."""
    changes: tuple[Change, ...] = ()
    before: tuple[Entry | None, ...] = ()
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a keeper holds but the past, as plain values. The time that leases have left is not part of it."""

    revision: int
    entries: tuple[Entry, ...]
    leases: tuple[Lease, ...]
    lease_next: int


class Keeper:
    """Holds entries and leases, and carries out commands, one after the other.

    The same commands from the same snapshot give the same entries, revisions, lease ids and answers, whatever the time:
    a journal of the commands that changed something is a copy of the store. Only what the clock does is not in it: after
    a replay every lease has its whole span again, and a lease that runs out ends by a `Revoke` that `wake` asks for.

    A command that breaks a rule raises a `StoreError` from `prepare`, which changes nothing; what was prepared is then
    carried out without fail. A keeper begins at revision 1, as etcd does, and `lease_next` is the first id it grants.
    """

    def __init__(self, policy: StorePolicy | None = None, *, lease_next: int = 1) -> None:
        self.policy = StorePolicy() if policy is None else policy
        self.revision = 1
        self._lease_next = lease_next
        self._shelf = Shelf()
        self._leases = Leases()
        self._history = History(1, 0, self.policy)
        self._turn = 0

    @classmethod
    def restored(cls, snapshot: Snapshot, now: Mono, policy: StorePolicy | None = None) -> Self:
        """A keeper as it was, without its past, and with the whole span left for every lease.

        Raises:  StoreRefused for a snapshot that does not fit together, such as an entry of a later revision.
        """
        keeper = cls(policy, lease_next=snapshot.lease_next)
        keeper.revision = snapshot.revision
        keeper._shelf = Shelf(snapshot.entries)
        keeper._history = History(snapshot.revision, snapshot.revision, keeper.policy)
        for lease in snapshot.leases:
            keeper._leases.add(lease, now)
        for entry in snapshot.entries:
            if entry.modified > snapshot.revision or (entry.lease and entry.lease not in keeper._leases):
                raise StoreRefused("restore a snapshot", f"{entry.key!a} is of a revision or lease that is not in it")
            keeper._leases.move(entry.key, 0, entry.lease)
        return keeper

    def snapshot(self) -> Snapshot:
        """What `restored` needs."""
        return Snapshot(self.revision, self._shelf.all(), self._leases.all(), self._lease_next)

    # ------------------------------------------------------------------------------------------------ commands

    @overload
    def apply(self, command: Commit, now: Mono) -> Committed: ...
    @overload
    def apply(self, command: Grant, now: Mono) -> Lease: ...
    @overload
    def apply(self, command: Revoke | Compact, now: Mono) -> None: ...
    @overload
    def apply(self, command: Command, now: Mono) -> Answer: ...
    def apply(self, command: Command, now: Mono) -> Answer:
        """Prepares a command and carries it out.

        Raises:  StoreRefused, LeaseGone, Compacted; nothing has changed then.
        """
        return self.carry_out(self.prepare(command), now)

    def replay(self, command: Command, now: Mono) -> None:
        """Carries out a command that has been acknowledged before, whatever today's bounds say.

        Raises:  StoreError if it cannot have been: the journal is not of this store.
        """
        with suppress(Compacted):  # the bounds of the history may be narrower today, and have forgotten more already
            self.carry_out(self.prepare(command, is_bounded=False), now)

    def prepare(self, command: Command, *, is_bounded: bool = True) -> Prepared:
        """Checks a command and works out what it does, without doing it.

        Raises:  StoreRefused, LeaseGone, Compacted.
        """
        if isinstance(command, Commit):
            return self._prepare_commit(command, is_bounded)
        if isinstance(command, Grant):
            return self._prepare_grant(command, is_bounded)
        if isinstance(command, Revoke):
            changes = tuple(Change(key, None) for key in self._leases.keys_of(command.lease))
            before = tuple(self._shelf.get(change.key) for change in changes)
            return Prepared(command, None, True, changes, before, self._turn)
        if command.revision > self.revision:
            raise StoreRefused("compact", f"revision {command.revision} is still to come, now is {self.revision}")
        if command.revision <= self._history.compacted:
            raise Compacted(command.revision, self._history.compacted)
        return Prepared(command, None, True, turn=self._turn)

    def carry_out(self, prepared: Prepared, now: Mono) -> Answer:
        """Does what was prepared, and gives its answer."""
        assert prepared.turn == self._turn, "something else was carried out in between"
        if not prepared.is_change:
            return prepared.answer
        self._turn += 1
        command, answer = prepared.command, prepared.answer
        if prepared.changes:
            self._change(prepared.changes, prepared.before)
        if isinstance(answer, Lease):
            self._leases.add(answer, now)
            if isinstance(command, Grant) and not command.lease:
                self._lease_next = answer.id % NUMBER_MAX + 1
        elif isinstance(command, Revoke):
            self._leases.drop(command.lease)
        elif isinstance(command, Compact):
            self._history.forget(command.revision)
        return answer

    # ----------------------------------------------------------------------------------------------- questions

    @property
    def compacted(self) -> int:
        """The oldest revision that can be read and watched from."""
        return self._history.compacted

    @property
    def bytes(self) -> int:
        """Keys and values held now."""
        return self._shelf.bytes

    def __len__(self) -> int:
        return len(self._shelf)

    @property
    def leases(self) -> int:
        """How many are alive."""
        return len(self._leases)

    def read(self, span: Span, revision: int = 0, limit: int = 0) -> Page:
        """What a span holds, now (0) or at an earlier revision.

        Raises:  Compacted; StoreRefused for a revision to come, or a span that cannot be.
        """
        check_span(span, "read")
        check_number(limit, "limit", "read")
        if not 0 <= revision <= self.revision:
            raise StoreRefused("read", f"revision {revision} is still to come, now is {self.revision}")
        if revision and revision < self.revision:
            entries = merged(self._shelf, span, self._history.undone(span, revision))
            more = 0 < limit < len(entries)
            return Page(self.revision, tuple(entries[:limit] if more else entries), more)
        entries_now, more = self._shelf.entries(span, limit)
        return Page(self.revision, entries_now, more)

    def changes(self, span: Span, after: int, limit: int = 0) -> tuple[Batch, ...]:
        """What changed within a span above revision `after`, oldest first; at most `limit` batches, unless it is 0.

        A watcher keeps nothing here but the revision it has seen: with fewer batches than its limit it has seen
        everything up to `revision`, otherwise up to the last batch.

        Raises:  Compacted if it has fallen behind what is remembered.
        """
        check_span(span, "watch")
        check_number(after, "revision", "watch")
        return self._history.since(span, after, limit)

    # -------------------------------------------------------------------------------------------------- leases

    def renew(self, lease: int, now: Mono) -> Lease:
        """Gives a lease its whole span again.

        Raises:  LeaseGone.
        """
        return self._leases.renew(lease, now)

    def renew_all(self, now: Mono) -> None:
        """Gives every lease its whole span again: after a replay, or when nobody could renew through our own fault."""
        self._leases.renew_all(now)

    def look_up(self, lease: int, now: Mono) -> LeaseView:
        """How a lease stands.

        Raises:  LeaseGone.
        """
        return self._leases.view(lease, now)

    def wake_at(self) -> Mono | None:
        """When the next lease runs out."""
        return self._leases.next_end()

    def wake(self, now: Mono) -> tuple[Revoke, ...]:
        """The commands that time asks for: leases that have run out, the earliest first. Asked again until applied.

        So many at a time at most, so that a crowd that ends at once does not hold up everybody else.
        """
        return tuple(map(Revoke, self._leases.overdue(now, REVOKES_MAX)))

    # ------------------------------------------------------------------------------------------------- helpers

    def _prepare_commit(self, command: Commit, is_bounded: bool) -> Prepared:
        txn = command.txn
        if is_bounded:
            check_txn(txn, self.policy)
        held = all(_holds(condition, self._shelf.get(condition.key)) for condition in txn.when)
        draft = _Draft(self._shelf, self._leases, self.revision)
        results = tuple(map(draft.do, txn.then if held else txn.otherwise))
        made = draft.made
        if not made:
            return Prepared(command, Committed(self.revision, held, results), False, turn=self._turn)
        before = tuple(map(self._shelf.get, made))
        if is_bounded:
            self._check_room(made, before)
        changes = tuple(Change(key, entry) for key, entry in made.items())
        return Prepared(command, Committed(self.revision + 1, held, results), True, changes, before, self._turn)

    def _check_room(self, made: dict[str, Entry | None], before: tuple[Entry | None, ...]) -> None:
        more = more_bytes = 0
        for entry, old in zip(made.values(), before, strict=True):
            more += (entry is not None) - (old is not None)
            more_bytes += (size_of(entry) if entry is not None else 0) - (size_of(old) if old is not None else 0)
        # A commit that takes away is welcome, however full it is.
        if more > 0 and len(self._shelf) + more > self.policy.entries_max:
            bound = self.policy.entries_max
            raise StoreRefused("commit", f"the store would hold {len(self._shelf) + more} keys, its bound is {bound}")
        if more_bytes > 0 and self._shelf.bytes + more_bytes > self.policy.bytes_max:
            bound = self.policy.bytes_max
            raise StoreRefused(
                "commit", f"the store would hold {self._shelf.bytes + more_bytes} bytes, its bound is {bound}"
            )

    def _prepare_grant(self, command: Grant, is_bounded: bool) -> Prepared:
        lease = command.lease
        check_number(lease, "lease", "grant a lease")
        if is_bounded:
            check_ttl(command.ttl_s, self.policy)
            if len(self._leases) >= self.policy.leases_max:
                raise StoreRefused("grant a lease", f"{len(self._leases)} are alive, and that is the bound")
        if lease in self._leases:
            raise StoreRefused("grant a lease", f"the id {lease:x} is taken")
        if not lease:
            lease = self._lease_next
            while lease in self._leases:
                lease = lease % NUMBER_MAX + 1
        granted = Lease(lease, max(float(command.ttl_s), self.policy.ttl_min_s))
        return Prepared(command, granted, True, turn=self._turn)

    def _change(self, changes: tuple[Change, ...], before: tuple[Entry | None, ...]) -> None:
        self.revision += 1
        self._shelf.place(changes)
        for change, old in zip(changes, before, strict=True):
            entry = change.entry
            self._leases.move(change.key, 0 if old is None else old.lease, 0 if entry is None else entry.lease)
        self._history.add(Batch(self.revision, changes), before)


class _Draft:
    """One branch of a transaction being worked out: what it has made so far lies over what is there."""

    def __init__(self, shelf: Shelf, leases: Leases, revision: int) -> None:
        self.made: dict[str, Entry | None] = {}
        self._shelf = shelf
        self._leases = leases
        self._revision = revision

    def do(self, operation: Operation) -> Result:
        if isinstance(operation, Put):
            self._put(operation)
            return None
        if isinstance(operation, Delete):
            found = merged(self._shelf, operation.span, self.made)
            self.made.update((entry.key, None) for entry in found)
            return len(found)
        found = merged(self._shelf, operation.span, self.made)
        more = 0 < operation.limit < len(found)
        revision = self._revision + 1 if self.made else self._revision
        return Page(revision, tuple(found[: operation.limit] if more else found), more)

    def _put(self, put: Put) -> None:
        if put.lease and put.lease not in self._leases:
            raise LeaseGone(put.lease)
        # What is there is what was there before the transaction: no branch puts a key that it has put or deleted.
        old = self._shelf.get(put.key)
        revision = self._revision + 1
        created, version = (revision, 1) if old is None else (old.created, old.version + 1)
        self.made[put.key] = Entry(put.key, put.value, created, revision, version, put.lease)


def merged(shelf: Shelf, span: Span, over: dict[str, Entry | None]) -> list[Entry]:
    """The entries of a span by key, where those in `over` stand instead of those on the shelf."""
    keys = shelf.keys(span)
    if over:
        added = [key for key in over if key in span]
        if added:
            keys = sorted({*keys, *added})
    found = (over[key] if key in over else shelf.get(key) for key in keys)
    return [entry for entry in found if entry is not None]


def _holds(condition: Condition, entry: Entry | None) -> bool:
    if condition.field is Field.VALUE:
        if entry is None:
            return False
        return _compares(entry.value, condition.relation, condition.against)
    number = 0 if entry is None else _number(condition.field, entry)
    return _compares(number, condition.relation, condition.against)


def _number(field: Field, entry: Entry) -> int:
    if field is Field.MODIFIED:
        return entry.modified
    if field is Field.VERSION:
        return entry.version
    return entry.created if field is Field.CREATED else entry.lease


def _compares(found: int | bytes, relation: Relation, against: int | bytes) -> bool:
    if relation is Relation.EQUAL:
        return found == against
    if relation is Relation.NOT_EQUAL:
        return found != against
    # Both are numbers or both are bytes: `check_txn` has seen to it.
    return found > against if relation is Relation.GREATER else found < against  # type: ignore[operator]
