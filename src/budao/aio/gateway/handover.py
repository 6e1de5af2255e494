"""Live connections go to another process: the old side gives (`give`), the new side takes (`take_over`).

Nobody's connection ends: the kernel's socket stays open all the time, since closing one of its two descriptors says nothing to the
peer. What is decided, and when, is in `push.takeover`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from budao.aio.gateway.fd_link import FdLink
from budao.aio.gateway.movable import House, Listening, Movable
from budao.model import BudaoError, LocalWireError, Mono, RemoteWireError
from budao.push import TakeoverPolicy, TakeoverProof, takeover
from budao.wire import handover as wire

log = logging.getLogger("budao.gateway")

LOOK_EVERY_S: Final = 0.002
"""How often it is looked whether all frozen connections are quiet."""
LINE_BYTES_MAX: Final = 64 * 1024
ADOPT_TOGETHER: Final = 64


class TakeOverFailed(BudaoError):
    """A successor did not take over. The old process goes on, unless it is said that connections were cut."""

    def __init__(self, path: str, happened: str) -> None:
        super().__init__(path, happened)
        self.path = path
        self.happened = happened

    def __str__(self) -> str:
        return f"cannot take over from the gateway at {self.path}: {self.happened}"


async def give(house: House, link: FdLink, policy: TakeoverPolicy) -> TakeoverProof:
    """Gives everything to the successor at the other end, or goes on as before. Closes the link."""
    return await _Giver(house, link, policy).run()


class _Giver:
    """Carries out what `takeover.Giving` decides."""

    def __init__(self, house: House, link: FdLink, policy: TakeoverPolicy) -> None:
        self._house = house
        self._link = link
        self._policy = policy
        self._machine = takeover.Giving(policy, _now())
        self._facts: asyncio.Queue[takeover.Fact] = asyncio.Queue()
        self._frozen: list[Movable] = []
        self._quiet: list[Movable] = []
        self._given: list[Movable] = []

    async def run(self) -> TakeoverProof:
        machine = self._machine
        offer = wire.Offer(self._house.about(), tuple((each.kind, each.is_tls) for each in self._house.listening()))
        listening = asyncio.create_task(self._listen())
        try:
            try:
                await self._link.send(offer, [each.socket.fileno() for each in self._house.listening()])
            except OSError as problem:
                self._facts.put_nowait(takeover.SuccessorLost(str(problem)))
            while not machine.is_over:
                for effect in await self._next():
                    await self._perform(effect)
        except asyncio.CancelledError:
            # This process is told to stop in the middle: whoever is frozen goes on, so that it can be told to go.
            for effect in machine.handle(takeover.SuccessorLost("the gateway was told to stop meanwhile"), _now()):
                await self._perform(effect)
            raise
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
            self._link.close()
        return machine.proof(_now())

    async def _next(self) -> tuple[takeover.Effect, ...]:
        machine = self._machine
        if machine.stage is takeover.Stage.FREEZING:
            busy = sum(not each.is_settled() for each in self._frozen)
            if not busy:
                return machine.handle(takeover.Settled(len(self._frozen), 0), _now())
        due = machine.wake_at()
        wait_s = 3_600.0 if due is None else max(0.0, due - _now())
        if machine.stage is takeover.Stage.FREEZING:
            wait_s = min(wait_s, LOOK_EVERY_S)
        fact: takeover.Fact | None = None
        with suppress(TimeoutError):
            fact = await asyncio.wait_for(self._facts.get(), wait_s)
        now = _now()
        effects = machine.wake(now)
        return effects if fact is None else effects + machine.handle(fact, now)

    async def _listen(self) -> None:
        """What the successor says, as facts."""
        fact: takeover.Fact
        try:
            while (came := await self._link.receive()) is not None:
                said, descriptors = came
                for each in descriptors:
                    os.close(each)
                match said:
                    case wire.Ready():
                        fact = takeover.SuccessorReady()
                    case wire.Held():
                        fact = takeover.BatchHeld(said.number)
                    case wire.Serving():
                        fact = takeover.Took(said.served, said.failed)
                    case _:
                        raise RemoteWireError(f"a successor does not say {type(said).__name__}")
                self._facts.put_nowait(fact)
            fact = takeover.SuccessorLost("the successor ended, or closed its connection")
        except (OSError, BudaoError) as problem:
            fact = takeover.SuccessorLost(str(problem))
        self._facts.put_nowait(fact)

    async def _perform(self, effect: takeover.Effect) -> None:
        house, machine = self._house, self._machine
        match effect:
            case takeover.Freeze():
                house.pause_accepting()
                everybody = house.connections()
                self._frozen = [each for each in everybody if each.freeze()]
                machine.stayed = len(everybody) - len(self._frozen)
            case takeover.SendAll():
                self._quiet = [each for each in self._frozen if each.is_settled()]
                machine.stayed += len(self._frozen) - len(self._quiet)
                count = -(-len(self._quiet) // self._policy.batch_count)
                for more in machine.handle(takeover.Batched(count, len(self._quiet)), _now()):
                    await self._perform(more)
            case takeover.SendBatch():
                await self._send(effect.number)
            case takeover.SayYours():
                try:
                    await self._link.send(wire.Yours())
                except OSError as problem:
                    for more in machine.handle(takeover.NotHeard(str(problem)), _now()):
                        await self._perform(more)
            case takeover.Forget():
                self._forget()
            case takeover.SendAway():
                given = set(map(id, self._given))
                self._thaw([each for each in self._frozen if id(each) not in given])
                house.send_away(effect.within_s)
            case takeover.Resume():
                self._thaw(self._frozen)
                await house.resume_accepting()
                await self._say_kept(effect.problem)
            case takeover.Abandon():
                self._forget()
                given = set(map(id, self._given))
                self._thaw([each for each in self._frozen if id(each) not in given])
                await house.resume_accepting()
                await self._say_kept(effect.problem)

    async def _send(self, number: int) -> None:
        start = number * self._policy.batch_count
        states: list[Mapping[str, Any]] = []
        descriptors: list[int] = []
        for each in self._quiet[start : start + self._policy.batch_count]:
            try:
                descriptor, state = each.export()
            except (OSError, BudaoError) as problem:  # its peer has gone meanwhile
                log.info("a connection stays behind: %s", problem)
                continue
            descriptors.append(descriptor)
            states.append(state)
            self._given.append(each)
        try:
            await self._link.send(wire.Parcels(number, tuple(states)), descriptors)
        except (OSError, LocalWireError) as problem:
            self._facts.put_nowait(takeover.SuccessorLost(f"sending failed: {problem}"))

    def _forget(self) -> None:
        for each in self._given:
            each.forget()

    def _thaw(self, connections: Sequence[Movable]) -> None:
        for each in connections:
            each.thaw()

    async def _say_kept(self, problem: str) -> None:
        log.warning("the take-over came to nothing: %s", problem)
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._link.send(wire.Kept(problem)), 1.0)


class Adopter(Protocol):
    """The part of `House` that the successor needs."""

    async def until_ready(self) -> None:
        """Comes back once it could serve: its log is reached."""

    async def adopt(self, connection: socket.socket, state: Mapping[str, Any]) -> None: ...

    async def resume_accepting(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Taken:
    """How a take-over went, on the new side."""

    served: int
    failed: int
    took_s: float
    """From "ready" until everybody was served."""


class Taking:
    """The new side of one take-over, as a context manager: begun by `take_over`, finished by `receive`."""

    def __init__(
        self, path: str, link: FdLink, offer: wire.Offer, listeners: Sequence[int], policy: TakeoverPolicy
    ) -> None:
        self.about = offer.about
        """What the old one was called, and what it remembers; see `House.about`."""
        self.listening = tuple(
            Listening(kind, _socket(descriptor), is_tls)
            for (kind, is_tls), descriptor in zip(offer.listeners, listeners, strict=True)
        )
        """Its listeners, to be served from `receive` on. They are the caller's now."""
        self._path = path
        self._link = link
        self._policy = policy
        self._held: list[tuple[int, Mapping[str, Any]]] = []

    def close(self) -> None:
        """Lets go of everything that is not anybody else's yet. The clients do not notice."""
        self._link.close()
        while self._held:
            os.close(self._held.pop()[0])

    async def receive(self, house: Adopter) -> Taken:
        """Receives all connections, and serves them.

        Raises:  TakeOverFailed if the old process keeps them.
        """
        began = time.monotonic()
        policy = self._policy
        bound_s = policy.settle_s + policy.send_s + policy.take_s
        try:
            try:
                async with asyncio.timeout(policy.ready_s):
                    await house.until_ready()
            except TimeoutError:
                raise TakeOverFailed(self._path, f"our own log was not reached within {policy.ready_s:g} s") from None
            try:
                async with asyncio.timeout(bound_s):
                    await self._link.send(wire.Ready())
                    await self._hold()
            except TimeoutError:
                raise TakeOverFailed(self._path, f"it did not give everything within {bound_s:g} s") from None
            except (OSError, RemoteWireError) as problem:
                raise TakeOverFailed(self._path, str(problem)) from problem
            served, failed = await self._adopt(house)
            await house.resume_accepting()
            with suppress(OSError):  # it is ours, whether the old one hears of it or not
                await self._link.send(wire.Serving(served, failed))
            return Taken(served, failed, time.monotonic() - began)
        finally:
            self.close()

    async def _hold(self) -> None:
        while (came := await self._link.receive()) is not None:
            said, descriptors = came
            match said:
                case wire.Parcels():
                    self._held += zip(descriptors, said.states, strict=True)
                    await self._link.send(wire.Held(said.number))
                case wire.Yours():
                    return
                case wire.Kept():
                    raise TakeOverFailed(self._path, f"it goes on by itself: {said.problem}")
                case _:
                    for each in descriptors:
                        os.close(each)
                    raise TakeOverFailed(self._path, f"it said {type(said).__name__}, which does not fit here")
        raise TakeOverFailed(self._path, "it ended before it gave anything; clients come back to whoever listens")

    async def _adopt(self, house: Adopter) -> tuple[int, int]:
        served = failed = 0
        held, self._held = self._held, []
        for start in range(0, len(held), ADOPT_TOGETHER):
            some = held[start : start + ADOPT_TOGETHER]
            ends = await asyncio.gather(
                *(self._adopt_one(house, descriptor, state) for descriptor, state in some), return_exceptions=True
            )
            for end in ends:
                if isinstance(end, BaseException):
                    failed += 1
                    log.warning("a connection could not be taken over, and is closed: %s", end)
                else:
                    served += 1
        return served, failed

    async def _adopt_one(self, house: Adopter, descriptor: int, state: Mapping[str, Any]) -> None:
        connection = _socket(descriptor)
        try:
            await house.adopt(connection, state)
        except BaseException:
            connection.close()
            raise


async def take_over(path: Path, policy: TakeoverPolicy | None = None) -> Taking:
    """Asks the gateway with this control socket to give everything; answers once it has offered its listeners.

    Raises:  TakeOverFailed, and the old process goes on.
    """
    policy = TakeoverPolicy() if policy is None else policy
    loop = asyncio.get_running_loop()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    link = FdLink(connection)
    try:
        async with asyncio.timeout(policy.ready_s):
            await loop.sock_connect(connection, str(path))
            await loop.sock_sendall(connection, b'{"do":"take-over"}\n')
            line = b""
            while not line.endswith(b"\n"):  # byte by byte, so that nothing of the frames behind it is read here
                byte = await loop.sock_recv(connection, 1)
                if not byte or len(line) > LINE_BYTES_MAX:
                    raise TakeOverFailed(
                        str(path), "it closed the connection; is this the control socket of a gateway?"
                    )
                line += byte
            answer = json.loads(line)
            if not isinstance(answer, dict) or answer.get("ok") is not True:
                error = answer.get("error") if isinstance(answer, dict) else None
                raise TakeOverFailed(str(path), str((error or {}).get("happened", "it refused")))
            came = await link.receive()
        if came is None or not isinstance(came[0], wire.Offer):
            raise TakeOverFailed(str(path), "it offered nothing")
        return Taking(str(path), link, came[0], came[1], policy)
    except TimeoutError:
        link.close()
        raise TakeOverFailed(str(path), f"it did not answer within {policy.ready_s:g} s") from None
    except (OSError, ValueError, RemoteWireError) as problem:
        link.close()
        raise TakeOverFailed(str(path), str(problem)) from problem
    except BaseException:
        link.close()
        raise


def _socket(descriptor: int) -> socket.socket:
    made = socket.socket(fileno=descriptor)
    made.setblocking(False)
    return made


def _now() -> Mono:
    return Mono(time.monotonic())
