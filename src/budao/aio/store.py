"""What every store can do, whichever backend keeps it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from budao.store import Batch, Committed, Lease, LeaseView, Page, Span, Txn


class Store(Protocol):
    """Revisioned keys with leases and watches.

    Raises:  StoreAway if no answer came in time; whether a commit took effect is then in the error. StoreRefused for what
             breaks a rule or a bound. StoreDenied if the store does not let this client.
    """

    @property
    def name(self) -> str:
        """What to call it in a message: kind and address, no secret."""

    async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Page:
        """What a span holds, now or at an earlier revision; 0 means now, and no limit.

        Raises:  Compacted if that revision has been forgotten; StoreRefused if it is still to come.
        """

    async def commit(self, txn: Txn) -> Committed:
        """One transaction, acknowledged once it is durable.

        Raises:  LeaseGone if it puts a key with a lease that is gone.
        """

    def watch(self, span: Span, *, after: int) -> AsyncIterator[Batch]:
        """Every revision above `after` that changed the span, once and in order, for ever.

        Resumes by itself where a connection broke. Close the iterator (`aclosing`) when done.

        Raises:  Compacted once revisions not yet seen are forgotten; StoreAway once the store has been away for longer
                 than the client bears.
        """

    async def grant(self, ttl_s: float, *, lease: int = 0) -> Lease:
        """A new lease, with an id of the store's choice unless one is given.

        Raises:  StoreRefused if that id is taken.
        """

    async def keep_alive(self, lease: int) -> Lease:
        """Renews a lease for its whole span.

        Raises:  LeaseGone.
        """

    async def revoke(self, lease: int) -> None:
        """Ends a lease, and its keys with it, at one revision.

        Raises:  LeaseGone.
        """

    async def look_up(self, lease: int) -> LeaseView:
        """How long a lease has left, and which keys live by it.

        Raises:  LeaseGone.
        """

    async def compact(self, revision: int) -> None:
        """Forgets what was before `revision`, which itself can still be read.

        Raises:  Compacted if it is forgotten already; StoreRefused if it is still to come.
        """

    async def aclose(self) -> None:
        """Lets go of connections and tasks. Leases granted here live on until they run out."""
