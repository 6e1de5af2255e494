"""The demo of the guard: an inventory service that falls ill, two shops that need it, and the same customers for both."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from budao.apps.asking import ask
from budao.apps.child import child
from budao.apps.load import Customers, visit_all
from budao.apps.recording import Recording, Remark, Visits, state_spans
from budao.apps.screen import View
from budao.apps.script import Phase, phase_at, phases
from budao.apps.terms import BY_HAND_SAID, CALLS_PER_S, OBJECTIVE

LOOK_EVERY_S = 0.25
WARM_UP_CALLS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the three servers listen."""

    inventory: int
    bare: int
    guarded: int


@dataclass(slots=True, kw_only=True)
class Stage:
    """What has happened so far."""

    script: tuple[Phase, ...]
    seconds: int
    start: float
    """An instant of time.perf_counter; all times count from here."""
    bare: Visits = field(default_factory=lambda: Visits(OBJECTIVE.under_s))
    guarded: Visits = field(default_factory=lambda: Visits(OBJECTIVE.under_s))
    state: str = "closed"
    moves: list[tuple[float, str, str]] = field(default_factory=list)
    """Instant, state entered, and why."""
    changes: list[Remark] = field(default_factory=list)

    def now_s(self) -> float:
        return time.perf_counter() - self.start

    def remarks(self) -> tuple[Remark, ...]:
        moved = [Remark(at_s=at_s, text=f"breaker {state}: {why}") for at_s, state, why in self.moves]
        return tuple(sorted([*self.changes, *moved], key=lambda remark: remark.at_s))

    def view(self) -> View:
        now_s = self.now_s()
        return View(
            at_s=now_s,
            seconds=self.seconds,
            phase=phase_at(self.script, now_s),
            share=OBJECTIVE.share,
            under_s=OBJECTIVE.under_s,
            bare=self.bare.lately(now_s),
            guarded=self.guarded.lately(now_s),
            state=self.state,
            rungs=self.guarded.rungs(),
            remarks=self.remarks(),
            settings=BY_HAND_SAID,
        )


async def play(
    seconds: int, seed: int, *, show: Callable[[View], None], every_s: float, stopping: asyncio.Event
) -> Recording:
    """Runs the demo, to its end or until `stopping` is set; `show` sees it every `every_s`.

    When it returns, or raises, its processes have ended and its ports are closed.
    """
    async with _servers(seed) as ports:
        await _warm_up(ports)
        stage = Stage(script=phases(seconds), seconds=seconds, start=time.perf_counter() + 0.1)
        interrupted = await _until_done(stage, ports, Random(seed), show, every_s, stopping)
        await _look(stage, ports)
        explain = (await ask(ports.guarded, "GET", "/guard/explain"))["explain"]
        return _recorded(stage, seed, explain, interrupted=interrupted)


@contextlib.asynccontextmanager
async def _servers(seed: int) -> AsyncIterator[Ports]:
    async with contextlib.AsyncExitStack() as running:
        inventory = await running.enter_async_context(child("inventory", "--seed", str(seed)))
        where = ("--inventory-port", str(inventory))
        bare = await running.enter_async_context(child("shop", *where))
        guarded = await running.enter_async_context(child("shop", *where, "--guarded"))
        yield Ports(inventory=inventory, bare=bare, guarded=guarded)


async def _warm_up(ports: Ports) -> None:
    """The first call of a process pays for imports and connections, which is nobody's latency."""
    for number in range(WARM_UP_CALLS):
        await asyncio.gather(*(ask(port, "GET", f"/product/sku-{number}") for port in (ports.bare, ports.guarded)))


async def _until_done(
    stage: Stage,
    ports: Ports,
    rng: Random,
    show: Callable[[View], None],
    every_s: float,
    stopping: asyncio.Event,
) -> bool:
    """True if it was interrupted."""
    shops = (Customers(ports.bare, stage.bare, stage.start), Customers(ports.guarded, stage.guarded, stage.start))
    visiting = asyncio.create_task(
        visit_all(shops, start=stage.start, seconds=stage.seconds, calls_per_s=CALLS_PER_S, rng=rng)
    )
    stopped = asyncio.create_task(stopping.wait())
    beside = [
        asyncio.create_task(_direct(stage, ports)),
        asyncio.create_task(_every(LOOK_EVERY_S, lambda: _look(stage, ports))),
        asyncio.create_task(_every(every_s, lambda: _show(stage, show))),
    ]
    try:
        await asyncio.wait([visiting, stopped, *beside], return_when=asyncio.FIRST_COMPLETED)
        # The director leaves the stage after the last phase has begun; everybody else stays to the end.
        await asyncio.wait([visiting, stopped], return_when=asyncio.FIRST_COMPLETED)
        return not visiting.done()
    finally:
        for task in (visiting, stopped, *beside):
            task.cancel()
        await asyncio.gather(visiting, stopped, *beside, return_exceptions=True)
        for shop in shops:
            shop.close()


async def _direct(stage: Stage, ports: Ports) -> None:
    for phase in stage.script:
        await asyncio.sleep(max(0.0, phase.start_s - stage.now_s()))
        await ask(ports.inventory, "POST", f"/manner/{phase.manner.value}")
        stage.changes.append(Remark(at_s=float(phase.start_s), text=f"inventory {phase.name}: {phase.says}"))


async def _look(stage: Stage, ports: Ports) -> None:
    seen: dict[str, Any] = await ask(ports.guarded, "GET", "/guard")
    now_s = stage.now_s()
    stage.state = seen["state"]
    stage.moves = [(max(0.0, now_s - move["age_s"]), move["state"], move["why"]) for move in seen["moves"]]


async def _show(stage: Stage, show: Callable[[View], None]) -> None:
    show(stage.view())


async def _every(pause_s: float, look: Callable[[], Any]) -> None:
    while True:
        await asyncio.sleep(pause_s)
        await look()


def _recorded(stage: Stage, seed: int, explain: str, *, interrupted: bool) -> Recording:
    now_s = stage.now_s()
    seconds = min(stage.seconds, int(now_s)) if interrupted else stage.seconds
    return Recording(
        seconds_planned=stage.seconds,
        calls_per_s=CALLS_PER_S,
        seed=seed,
        under_s=OBJECTIVE.under_s,
        share=OBJECTIVE.share,
        phases=stage.script,
        bare=stage.bare.by_second(seconds, now_s),
        guarded=stage.guarded.by_second(seconds, now_s),
        states=state_spans([(at_s, state) for at_s, state, _ in stage.moves], "closed", float(seconds)),
        remarks=tuple(remark for remark in stage.remarks() if remark.at_s <= seconds),
        settings=BY_HAND_SAID,
        explain=explain,
        interrupted=interrupted,
    )
