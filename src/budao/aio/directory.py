"""A service's roster, kept level with a source, for callers that never wait for it."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from types import TracebackType
from typing import Final, Self

from budao.aio.latest import Latest
from budao.aio.memory_store import monotonic
from budao.aio.source import Source
from budao.aio.store_source import heard
from budao.discovery import DirectoryMachine, DirectoryPolicy, Roster, Sighting, WentAway, new_id
from budao.discovery import directory as deciding
from budao.model import Clock, Mono
from budao.store import Patience, PatiencePolicy, StoreAway

logger = logging.getLogger("budao.discovery")

LEAVE_MAX_S: Final = 2.0
"""How long taking an acknowledgement back may take; the lease of the watcher ends it anyway."""


class Directory:
    """Follows one service while its block is open.

    `roster` is a plain attribute, replaced whole: read it from any thread as often as you like. Everything else belongs
    to the event loop the block was entered on. Instances of `roster.doubted` may be dead; a balancer still picks them.

    Units:   `watcher` names this directory to whoever drains an instance; made up if empty.
    """

    def __init__(
        self,
        source: Source,
        service: str,
        *,
        policy: DirectoryPolicy | None = None,
        watcher: str = "",
        clock: Clock = monotonic,
        rng: Random | None = None,
    ) -> None:
        self._rng = Random() if rng is None else rng
        self.source = source
        self.service = service
        self.watcher = watcher or new_id(f"{platform.node()}-{os.getpid()}", self._rng)
        self.machine = DirectoryMachine(service, DirectoryPolicy() if policy is None else policy)
        self.roster: Roster = self.machine.roster
        """Who is there. Never waits, never fails; empty until the source has said something."""
        self.latest: Latest[Roster] = Latest(self.roster)
        """The same, to be watched."""
        self._clock = clock
        self._known = asyncio.Event()
        self._acknowledged: Latest[int] = Latest(0)
        self._anew = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def problem(self) -> str | None:
        """Why the source is away, or a part of it, while it is."""
        return self.machine.problem

    async def ready(self) -> Roster:
        """The roster, as soon as the source has listed the service once.

        Raises:  StoreAway if it has not within the policy's `ready_max_s`.
        """
        ready_max_s = self.machine.policy.ready_max_s
        try:
            async with asyncio.timeout(ready_max_s):
                await self._known.wait()
        except TimeoutError as error:
            because = f": {self.problem}" if self.problem else ""
            happened = f"no list of service {self.service} within {ready_max_s:.3g} s{because}"
            raise StoreAway(self.source.name, happened) from error
        return self.roster

    async def __aenter__(self) -> Self:
        assert not self._tasks, "a directory is entered once"
        self._tasks = (
            asyncio.create_task(self._follow(), name=f"budao directory {self.service}"),
            asyncio.create_task(self._acknowledge(), name=f"budao acknowledgements {self.service}"),
        )
        for task in self._tasks:
            task.add_done_callback(heard)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        if self._acknowledged.value:
            try:
                async with asyncio.timeout(LEAVE_MAX_S):
                    await self.source.acknowledge(self.service, self.watcher, 0)
            except Exception as problem:  # noqa: BLE001 - whatever a source does, leaving goes well
                logger.info("watcher %s of %s is left to run out: %s", self.watcher, self.service, problem)

    # -------------------------------------------------------------------------------------------------- following

    async def _follow(self) -> None:
        patience = Patience()
        while True:
            self._anew.clear()
            try:
                async with _following(self.source, self.service) as sightings:
                    async for sighting in sightings:
                        patience.went_well(self._clock())
                        self._handle(sighting)
                        if self._anew.is_set():
                            break
                    else:
                        self._handle(WentAway(f"{self.source.name} ended its list of {self.service}"))
            except Exception as error:
                # A directory outlives whatever a source of somebody else's does; the last roster goes on being served.
                logger.exception("following %s on %s failed, trying again", self.service, self.source.name)
                self._handle(WentAway(f"{type(error).__name__}: {error}"))
            if not self._anew.is_set():
                await asyncio.sleep(patience.pause_s(self._clock(), self._rng))

    def _handle(self, sighting: Sighting) -> None:
        before = self.machine.problem
        now = self._clock()
        self._perform(self.machine.handle(sighting, now))
        if self.machine.problem != before:
            if self.machine.problem is None:
                logger.info("%s answers again, %s is up to date", self.source.name, self.service)
            else:
                logger.warning("%s is served as it was: %s", self.service, self.machine.problem)

    def _perform(self, effects: tuple[deciding.Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, deciding.Publish):
                self.roster = effect.roster
                self.latest.publish(effect.roster)
            elif isinstance(effect, deciding.Acknowledge):
                self._acknowledged.publish(effect.revision)
            elif isinstance(effect, deciding.FollowAnew):
                self._anew.set()
        if self.machine.is_known:
            self._known.set()
        self._arm()

    def _arm(self) -> None:
        """Sets the timer to when the machine wants to be woken."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_at = self.machine.wake_at()
        if wake_at is not None:
            # A loop refuses spans no clock can hold; a timer that rings early is set again.
            pause_s = min(max(0.0, wake_at - self._clock()), 3_600.0)
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        # The loop's clock and ours may differ by a hair.
        self._perform(self.machine.wake(Mono(self._clock() + 0.001)))

    # ---------------------------------------------------------------------------------------------- acknowledging

    async def _acknowledge(self) -> None:
        patience = Patience(PatiencePolicy(pause_first_s=0.1, pause_max_s=2.0))
        said = 0
        while True:
            said = await self._acknowledged.changed(said)
            while True:
                try:
                    if not await self.source.acknowledge(self.service, self.watcher, said):
                        return
                    patience.went_well(self._clock())
                    break
                except Exception as error:  # noqa: BLE001 - whatever a source does, the roster is what counts
                    logger.info("%s: revision %d is not acknowledged yet: %s", self.service, said, error)
                    await asyncio.sleep(patience.pause_s(self._clock(), self._rng))
                    said = self._acknowledged.value


@asynccontextmanager
async def _following(source: Source, service: str) -> AsyncIterator[AsyncIterator[Sighting]]:
    sightings = source.follow(service)
    try:
        yield sightings
    finally:
        if isinstance(sightings, AsyncGenerator):
            await sightings.aclose()
