"""An instance that is registered while its block is open."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import Self

from budao.aio.follow import Followed, follow
from budao.aio.memory_store import monotonic
from budao.aio.store import Store
from budao.aio.store_source import answered, heard
from budao.discovery import DuplicateInstance, Instance, RegistrarPolicy, Registration, new_incarnation
from budao.discovery import registration as deciding
from budao.model import Clock, RemoteWireError, Stage
from budao.store import Condition, Entry, Field, LeaseGone, Page, Put, Read, Relation, Span, StoreError, Txn
from budao.wire import format_instance, instance_key, parse_instance

logger = logging.getLogger("budao.discovery")


class Registrar:
    """Registers an instance on entering, keeps it registered, and takes it out on leaving.

    Entering waits until the instance is published. A store that is away does not keep a service from starting: after
    the policy's `enter_max_s` it goes on trying in the background. An id whose holder may have died is waited for, at
    most about the span of its lease.

    Raises:  DuplicateInstance on entering, if another living process holds the id. LocalWireError for names too long.
    """

    def __init__(
        self,
        store: Store,
        instance: Instance,
        *,
        policy: RegistrarPolicy | None = None,
        namespace: str = "budao",
        clock: Clock = monotonic,
        rng: Random | None = None,
    ) -> None:
        rng = Random() if rng is None else rng
        if not instance.incarnation:
            instance = replace(instance, incarnation=new_incarnation(rng))
        self.store = store
        self.key = instance_key(namespace, instance.service, instance.id)
        self.policy = RegistrarPolicy() if policy is None else policy
        self.machine = Registration(instance, self.policy, rng, clock())
        self._clock = clock
        self._orders: deque[deciding.Effect] = deque()
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        """Set once it is clear whether it could be registered."""
        self._duplicate: DuplicateInstance | None = None
        self._waiting: list[asyncio.Future[int]] = []
        """Who waits until the stage announced last is published."""
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self.ordered = asyncio.Event()
        """Set once somebody else, such as `budao drain`, decided that this instance drains."""

    @property
    def instance(self) -> Instance:
        """The instance as it shall be listed."""
        return self.machine.instance

    @property
    def problem(self) -> str | None:
        """Why it may not be listed as it should be; None while all is well."""
        return self.machine.problem

    async def announce(self, stage: Stage) -> int:
        """Publishes a stage, and answers the revision since which it stands there.

        Waits for as long as the store is away; put a time limit around it if there is one. Announced again meanwhile, it
        answers the revision of the later stage.
        """
        assert self._task is not None and not self._task.done(), "announce inside the block"
        published: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(published)
        self._feed(deciding.AskedFor(stage))
        try:
            return await published
        finally:
            if published in self._waiting:
                self._waiting.remove(published)

    async def __aenter__(self) -> Self:
        assert self._task is None, "a registrar is entered once"
        self._task = asyncio.create_task(self._run(), name=f"budao registrar {self.instance.id}")
        self._looking = asyncio.create_task(self._look_on(), name=f"budao registrar {self.instance.id} looks on")
        self._task.add_done_callback(heard)
        try:
            await self._enter()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def _enter(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self.policy.enter_max_s):
                    await self._settled.wait()
                break
            except TimeoutError:
                if not self.machine.is_waiting_for_id:
                    logger.warning("%s is not registered yet, and starts without: %s", self.instance.id, self.problem)
                    break
        if self._duplicate is not None:
            raise self._duplicate

    async def _leave(self) -> None:
        assert self._task is not None
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._feed(deciding.AskedToLeave())
        try:
            await asyncio.wait({self._task}, timeout=self.policy.leave_max_s)
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            for each in self._waiting:
                each.cancel()

    # ---------------------------------------------------------------------------------------------------- driving

    def _feed(self, fact: deciding.Fact) -> None:
        self._orders.extend(self.machine.handle(fact, self._clock()))
        self._news.set()

    async def _look_on(self) -> None:
        """Watches the own key: others may drain the instance, or its lease may have ended without its knowing."""
        while True:
            try:
                await self._look()
            except Exception:
                # As in `_carry_out`: or nobody could drain this instance from elsewhere again.
                logger.exception("watching %s failed, trying again", self.key)
            await asyncio.sleep(self.policy.pause_max_s)

    async def _look(self) -> None:
        async with aclosing(follow(self.store, Span.one(self.key))) as seen:
            async for fact in seen:
                if not isinstance(fact, Followed):
                    continue
                entry = fact.entries.get(self.key)
                if entry is None:
                    self._feed(deciding.KeyGone(fact.revision))
                    continue
                try:
                    self._feed(deciding.SetByOthers(parse_instance(entry.value), entry.modified))
                except RemoteWireError as error:
                    logger.warning("%s: somebody wrote over the entry of %s: %s", self.key, self.instance.id, error)

    async def _run(self) -> None:
        while True:
            self._orders.extend(self.machine.wake(self._clock()))
            while self._orders:
                effect = self._orders.popleft()
                if isinstance(effect, deciding.TellLeft):
                    return
                if isinstance(effect, deciding.Order):
                    self._feed(await self._carry_out(effect))
                else:
                    self._tell(effect)
            self._news.clear()
            wake_at = self.machine.wake_at()
            pause_s = None if wake_at is None else max(0.0, wake_at - self._clock())
            try:
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _tell(
        self, effect: deciding.TellPublished | deciding.TellOrdered | deciding.TellTrouble | deciding.TellDuplicate
    ) -> None:
        instance = self.instance
        if isinstance(effect, deciding.TellPublished):
            if effect.instance.stage is instance.stage:
                for each in self._waiting:
                    if not each.done():
                        each.set_result(effect.revision)
            logger.info(
                "%s of %s is %s since revision %d",
                instance.id,
                instance.service,
                effect.instance.stage.value,
                effect.revision,
            )
            self._settled.set()
        elif isinstance(effect, deciding.TellOrdered):
            logger.info("%s of %s was told to drain, at revision %d", instance.id, instance.service, effect.revision)
            self.ordered.set()
        elif isinstance(effect, deciding.TellDuplicate):
            self._duplicate = effect.error
            logger.error("%s", effect.error)
            self._settled.set()
        elif effect.problem is None:
            logger.info("%s of %s is listed again as it should be", instance.id, instance.service)
        else:
            logger.warning("%s of %s may not be listed: %s", instance.id, instance.service, effect.problem)

    async def _carry_out(self, order: deciding.Order) -> deciding.Answer:
        try:
            return await answered(self.store.name, self._ask(order), self.policy.answer_max_s)
        except LeaseGone:
            return deciding.LeaseLost()
        except StoreError as error:
            return deciding.Away(str(error))
        except Exception as error:
            # A store of somebody else's that raises what it should not must not take the service off the list for good.
            logger.exception("registering %s failed, trying again", self.instance.id)
            return deciding.Away(f"{type(error).__name__}: {error}")

    async def _ask(self, order: deciding.Order) -> deciding.Answer:
        if isinstance(order, deciding.Grant):
            lease = await self.store.grant(order.ttl_s)
            return deciding.Granted(lease.id, lease.ttl_s)
        if isinstance(order, deciding.KeepAlive):
            await self.store.keep_alive(order.lease)
            return deciding.KeptAlive()
        if isinstance(order, deciding.Revoke):
            await self.store.revoke(order.lease)
            return deciding.Revoked()
        put = Put(self.key, format_instance(order.instance), order.lease)
        as_supposed = Condition(self.key, Field.MODIFIED, Relation.EQUAL, order.after)
        committed = await self.store.commit(Txn((as_supposed,), (put,), (Read(Span.one(self.key)),)))
        if committed.held:
            return deciding.WasPut(committed.revision)
        page = committed.results[0]
        assert isinstance(page, Page), "the result of a read is a page"
        return deciding.WasRefused(None if page.first is None else await self._look_at(page.first))

    async def _look_at(self, entry: Entry) -> deciding.Holder:
        try:
            instance = parse_instance(entry.value)
        except RemoteWireError:
            instance = None
        left_s = ttl_s = 0.0
        if entry.lease:
            try:
                view = await self.store.look_up(entry.lease)
                left_s, ttl_s = view.left_s, view.ttl_s
            except LeaseGone:
                pass  # it ended between the two questions; the next try will find the key free
        return deciding.Holder(instance, entry.modified, entry.lease, left_s, ttl_s)
