"""Leader election on any store: an `async with` block that is entered once this candidate leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from random import Random

from budao.aio.follow import Followed, follow
from budao.aio.memory_store import monotonic
from budao.aio.store import Store
from budao.model import Clock
from budao.store import (
    Campaign,
    CampaignEffect,
    CampaignFact,
    CampaignPolicy,
    Candidate,
    Committed,
    Depose,
    Deposed,
    Lead,
    LeaseEnded,
    LeaseGone,
    Page,
    Patience,
    PatiencePolicy,
    Polled,
    Renew,
    RenewalFailed,
    Renewed,
    StoreAway,
    StoreError,
    Txn,
    candidates,
    enrolment,
)

FACTS_MAX = 8
"""Facts that wait to be read; who brings more waits too."""


class Leadership:
    """What a leader holds. Whatever it changes elsewhere should carry `fencing`, and be refused below the highest seen."""

    def __init__(self, store: Store, machine: Campaign, clock: Clock) -> None:
        self._store, self._machine, self._clock = store, machine, clock
        self.candidate = machine.candidate
        self.lost = asyncio.Event()
        """Set once this candidate leads no more: no later than its lease ends by its own clock. Stop the work then."""
        self.why: str | None = None
        """Why it was lost."""

    @property
    def key(self) -> str:
        """This candidate's key."""
        return self.candidate.key

    @property
    def fencing(self) -> int:
        """Higher than that of every leader before."""
        return self.candidate.fencing

    @property
    def is_certain(self) -> bool:
        """Whether it leads at this instant, by its own clock: also right after a loop that stood still for long."""
        return not self.lost.is_set() and self._clock() < self._machine.until

    def guarded(self, txn: Txn) -> Txn:
        """The transaction, done only while this candidate leads.

        Raises:  StoreRefused if it has another branch that writes, which would be done by one who does not lead.
        """
        return self.candidate.guarded(txn)

    async def commit(self, txn: Txn) -> Committed:
        """Commits a transaction while leading: the store itself checks that.

        Raises:  Deposed if another may lead by now; what `Store.commit` raises.
        """
        done = await self._store.commit(self.guarded(txn))
        if done.held:
            return done
        own = done.results[-1]
        assert isinstance(own, Page), "a guarded transaction ends with a read"
        if not self.candidate.is_own(own):
            raise Deposed(self.key)
        return replace(done, results=done.results[:-1])


@asynccontextmanager
async def campaign(
    store: Store,
    name: str,
    value: bytes = b"",
    *,
    policy: CampaignPolicy | None = None,
    clock: Clock = monotonic,
    rng: Random | None = None,
) -> AsyncIterator[Leadership]:
    """Stands for `name`, waits until this candidate leads, and resigns at the end of the block.

    `value` says who it is, to whoever reads the candidates' keys. A store that is away while it waits is borne; a
    candidate that loses its lease then stands anew, behind the others. A leader that loses it is told by
    `Leadership.lost`, and the block goes on until it ends by itself.

    Raises:  StoreDenied, StoreRefused if the store does not let it stand.
    """
    runner = _Runner(store, name, value, CampaignPolicy() if policy is None else policy, clock, rng or Random())
    task = asyncio.ensure_future(runner.run())
    elected = asyncio.ensure_future(runner.elected.wait())
    try:
        await asyncio.wait({task, elected}, return_when=asyncio.FIRST_COMPLETED)
        if runner.leadership is None:
            task.result()  # it ended before it was elected: with an error, which is raised here
        assert runner.leadership is not None, "who is elected leads"
        yield runner.leadership
    finally:
        elected.cancel()
        task.cancel()
        await asyncio.wait({task, elected})
        await runner.resign()


class _Runner:
    """Carries out what the machine asks for, one candidacy after the other, until one has led."""

    def __init__(
        self, store: Store, name: str, value: bytes, policy: CampaignPolicy, clock: Clock, rng: Random
    ) -> None:
        self.store, self.name, self.value = store, name, value
        self.policy, self.clock, self.rng = policy, clock, rng
        self.leadership: Leadership | None = None
        self.elected = asyncio.Event()
        self._lease = 0
        self._facts: asyncio.Queue[CampaignFact] = asyncio.Queue(FACTS_MAX)

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            self._end("its campaign has ended")

    def _end(self, why: str) -> None:
        if self.leadership is not None and not self.leadership.lost.is_set():
            self.leadership.why = why
            self.leadership.lost.set()

    async def _run(self) -> None:
        patience = Patience(PatiencePolicy(pause_max_s=max(0.05, min(2.0, self.policy.ttl_s / 2))))
        while self.leadership is None:
            try:
                machine = await self._enrol()
            except (StoreAway, LeaseGone):
                machine = None
            if machine is not None:
                await self._stand(machine)
            if self.leadership is None:
                await self.resign()
                await asyncio.sleep(patience.pause_s(self.clock(), self.rng))

    async def resign(self) -> None:
        """Gives the lease back, and the key with it. If the store is away, it runs out by itself."""
        lease, self._lease = self._lease, 0
        if lease:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(self.policy.ttl_s):
                    await self.store.revoke(lease)

    async def _enrol(self) -> Campaign:
        asked_at = self.clock()
        lease = await self.store.grant(self.policy.ttl_s)
        self._lease = lease.id
        key, txn = enrolment(self.name, self.value, lease.id)
        done = await self.store.commit(txn)
        if not done.held:
            raise LeaseGone(lease.id)  # a key of a lease that has just begun: of a store that was restored, say
        return Campaign(Candidate(key, done.revision), asked_at, lease.ttl_s, self.policy)

    async def _stand(self, machine: Campaign) -> None:
        self._facts = asyncio.Queue(FACTS_MAX)
        async with asyncio.TaskGroup() as tasks:
            polling = tasks.create_task(self._poll(machine.candidate.key))
            renewing: set[asyncio.Task[None]] = set()
            while (wake_at := machine.wake_at()) is not None:
                fact = await self._next_fact(wake_at - self.clock())
                now = self.clock()
                for effect in machine.wake(now) if fact is None else machine.handle(fact, now):
                    if isinstance(effect, Renew):
                        renewing = {tasks.create_task(self._renew(machine))}
                    else:
                        self._tell(effect, machine)
            for task in (polling, *renewing):
                task.cancel()

    async def _next_fact(self, wait_s: float) -> CampaignFact | None:
        try:
            async with asyncio.timeout(max(0.0, wait_s)):
                return await self._facts.get()
        except TimeoutError:
            return None

    def _tell(self, effect: CampaignEffect, machine: Campaign) -> None:
        if isinstance(effect, Lead):
            self.leadership = Leadership(self.store, machine, self.clock)
            self.elected.set()
        elif isinstance(effect, Depose) and self.leadership is not None:
            self._end(effect.why)

    async def _poll(self, key: str) -> None:
        async with aclosing(follow(self.store, candidates(self.name), clock=self.clock, rng=self.rng)) as told:
            async for each in told:
                if isinstance(each, Followed):
                    await self._facts.put(Polled.of(key, each.entries))

    async def _renew(self, machine: Campaign) -> None:
        asked_at = self.clock()
        fact: CampaignFact
        try:
            # An answer that takes longer than this is not worth waiting for: there is time to ask again.
            async with asyncio.timeout(machine.ttl_s / 5):
                await self.store.keep_alive(self._lease)
            fact = Renewed(asked_at)
        except LeaseGone:
            fact = LeaseEnded()
        except (StoreError, TimeoutError):
            fact = RenewalFailed()
        await self._facts.put(fact)
