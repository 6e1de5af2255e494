"""Carries out a drain: signals and the store bring facts, a server obeys effects.

drainer = Drainer(DrainPolicy.of(30.0), port=port, announcer=announcer)
task = asyncio.create_task(drainer.run())
...
drainer.ask()
proof = await task
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from time import monotonic
from typing import Protocol

from budao.discovery import Drain, DrainPolicy, DrainProof, draining
from budao.model import BudaoError, Clock, Mono

LOG = logging.getLogger("budao.drain")

WATCH_AGAIN_S = 0.1
"""The pause before the watchers are watched again after that failed."""


class Port(Protocol):
    """What a server can be told. Each order is given once, and the next only when it has been carried out."""

    async def tell_peers_to_go(self) -> None:
        """From now on, ask callers not to use their connection again."""

    async def stop_accepting(self) -> None:
        """Close the listener."""

    async def cut(self) -> None:
        """End the calls that still run."""

    async def close_idle(self) -> None:
        """Close the connections that are left."""


class NoPort:
    """For a program that has no listener, or none that can be told."""

    async def tell_peers_to_go(self) -> None: ...
    async def stop_accepting(self) -> None: ...
    async def cut(self) -> None: ...
    async def close_idle(self) -> None: ...


class Announcer(Protocol):
    """How others learn of it."""

    @property
    def name(self) -> str:
        """Who leaves, for a log line."""

    async def publish_draining(self) -> int:
        """Puts it into the store; the revision at which it is there."""

    def watched(self) -> AsyncGenerator[Mapping[str, int], None]:
        """All live watchers, with the revision each has acknowledged, whenever that changes."""

    async def revoke(self) -> None:
        """Takes the instance off the store."""


class Traffic:
    """Counts calls, and tells one listener of each change."""

    __slots__ = ("ended", "on_change", "started")

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0
        self.on_change: Callable[[], None] | None = None

    @property
    def in_flight(self) -> int:
        return self.started - self.ended

    def enter(self) -> None:
        self.started += 1
        if self.on_change is not None:
            self.on_change()

    def leave(self) -> None:
        self.ended += 1
        if self.on_change is not None:
            self.on_change()

    @contextmanager
    def call(self) -> Iterator[None]:
        """One call, or one piece of work, from its start to its end."""
        self.enter()
        try:
            yield
        finally:
            self.leave()


class Drainer:
    """Waits for the order to leave, and leaves.

    `announcer` is None where nobody is told through a store; it may be given later, until the order comes.
    """

    def __init__(
        self,
        policy: DrainPolicy | None = None,
        *,
        port: Port | None = None,
        announcer: Announcer | None = None,
        traffic: Traffic | None = None,
        clock: Clock = lambda: Mono(monotonic()),
    ) -> None:
        self.policy = DrainPolicy() if policy is None else policy
        self.port: Port = NoPort() if port is None else port
        self.announcer = announcer
        self.traffic = Traffic() if traffic is None else traffic
        self.is_draining = False
        """Whether readiness probes are to be told no."""
        self.is_going = False
        """Whether peers are to be told to use another connection."""
        self.is_closing = False
        """Whether nothing new is accepted."""
        self.proof: DrainProof | None = None
        self._clock = clock
        self._asked = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._facts: list[draining.Fact] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._orders: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._machine: Drain | None = None

    @property
    def phase(self) -> draining.Phase:
        return draining.Phase.SERVING if self._machine is None else self._machine.phase

    def ask(self) -> None:
        """Leave. Each further time ends the phase it meets. Safe from a signal handler and from another thread."""
        self._asked += 1
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    @property
    def was_asked(self) -> bool:
        return self._asked > 0

    async def run(self) -> DrainProof:
        """Returns once it is over; cancelling it before the order leaves nothing behind."""
        self._loop = asyncio.get_running_loop()
        while not self._asked:
            await self._news.wait()
            self._news.clear()
        machine = self._machine = Drain(self.policy, registered=self.announcer is not None)
        self.traffic.on_change = self._news.set
        self._spawn(self._obey())
        handled = 0
        proof: DrainProof | None = None
        try:
            while proof is None:
                facts = self._facts
                self._facts = []
                while handled < self._asked:
                    handled += 1
                    facts.append(draining.Asked())
                now = self._clock()
                effects = machine.wake(now)
                traffic = self.traffic
                for fact in (draining.Counted(traffic.in_flight, traffic.started, traffic.ended), *facts):
                    effects += machine.handle(fact, now)
                for effect in effects:
                    if isinstance(effect, draining.Finish):
                        proof = effect.proof
                    else:
                        self._perform(effect)
                if proof is None:
                    await self._wait(machine.wake_at())
            await self._obeyed()
        finally:
            self.traffic.on_change = None
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self.proof = proof
        self._log(proof)
        return proof

    async def _wait(self, until: Mono | None) -> None:
        left_s = None if until is None else max(0.0, until - self._clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await self._news.wait()
        self._news.clear()

    def _perform(self, effect: draining.Effect) -> None:
        match effect:
            case draining.SayNotReady():
                self.is_draining = True
            case draining.TellPeersToGo():
                self.is_going = True
                self._orders.put_nowait(self.port.tell_peers_to_go)
            case draining.StopAccepting():
                self.is_closing = True
                self._orders.put_nowait(self.port.stop_accepting)
            case draining.Cut():
                self._orders.put_nowait(self.port.cut)
            case draining.CloseIdle():
                self._orders.put_nowait(self.port.close_idle)
            case draining.PublishDraining() if self.announcer is not None:
                if not any(task.get_name() == "watch" for task in self._tasks):
                    self._spawn(self._watch(self.announcer), "watch")
                self._spawn(self._publish(self.announcer))
            case draining.Revoke() if self.announcer is not None:
                self._spawn(self._revoke(self.announcer))

    def _spawn(self, work: Awaitable[None], name: str = "drain") -> None:
        task = asyncio.ensure_future(work)
        task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, fact: draining.Fact) -> None:
        self._facts.append(fact)
        self._news.set()

    async def _publish(self, announcer: Announcer) -> None:
        try:
            self._tell(draining.Published(await announcer.publish_draining()))
        except (BudaoError, OSError) as problem:
            self._tell(draining.StoreFailed(str(problem)))

    async def _watch(self, announcer: Announcer) -> None:
        while True:
            try:
                async with aclosing(announcer.watched()) as seen:
                    async for revisions in seen:
                        self._tell(draining.Watched(revisions))
            except (BudaoError, OSError) as problem:
                self._tell(draining.StoreFailed(str(problem)))
            await asyncio.sleep(WATCH_AGAIN_S)

    async def _revoke(self, announcer: Announcer) -> None:
        # Others must not see it go while the listener still answers.
        await self._orders.join()
        try:
            await announcer.revoke()
        except (BudaoError, OSError) as problem:
            self._tell(draining.Revoked(str(problem)))
        else:
            self._tell(draining.Revoked())

    async def _obey(self) -> None:
        """Gives the server its orders, one after the other."""
        while True:
            order = await self._orders.get()
            try:
                await order()
            except Exception:
                LOG.exception("a server did not obey while it drained; the drain goes on")
            finally:
                self._orders.task_done()

    async def _obeyed(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.policy.close_s):
                await self._orders.join()

    def _log(self, proof: DrainProof) -> None:
        who = self.announcer.name if self.announcer is not None else "-"
        LOG.log(logging.INFO if proof.is_clean else logging.WARNING, "drained %s %s", who, proof)
