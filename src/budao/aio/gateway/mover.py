"""Moves the clients of a gateway: to another gateway when it leaves, to a standby, to a successor process.

Plugs into a `Gateway` as a `Watcher`, as what redeems tickets, and as the controls `drain`, `promote`, `advise` and `status`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from budao.aio.gateway import carrying
from budao.aio.gateway.connection import Connection
from budao.aio.gateway.fd_link import FdLink
from budao.aio.gateway.gateway import Gateway
from budao.aio.gateway.handover import give
from budao.aio.gateway.movable import Listening
from budao.aio.gateway.sse import SseConnection
from budao.aio.gateway.talk import Talk
from budao.aio.gateway.tickets import TicketOffice
from budao.model import Wall
from budao.push import (
    Leaving,
    LeavingPolicy,
    LeavingProof,
    Stage,
    Standby,
    StandbyPolicy,
    Standbys,
    TakeoverPolicy,
    TakeoverProof,
    Target,
    TicketPolicy,
    leaving,
    standby,
    takeover,
)
from budao.wire import TicketKeys

log = logging.getLogger("budao.gateway")

PROMOTE_WITHIN_S: Final = 5.0
READY_LOOK_S: Final = 0.01
QUIET: Final = frozenset({Stage.STANDBY, Stage.OPENING_STANDBY})


class Mover:
    """Everything that moves clients of one gateway. Attach it before the gateway is entered; use it within."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        keys: TicketKeys | None = None,
        targets: Sequence[Target] = (),
        leaving_policy: LeavingPolicy | None = None,
        standby_policy: StandbyPolicy | None = None,
        takeover_policy: TakeoverPolicy | None = None,
        ticket_policy: TicketPolicy | None = None,
        about: Mapping[str, Any] | None = None,
        log_is_shared: bool = True,
    ) -> None:
        """`about` is what a predecessor handed over; `log_is_shared` says whether another process can open the log as well."""
        self.gateway = gateway
        self.targets = tuple(targets)
        self.log_is_shared = log_is_shared
        self.takeover_policy = TakeoverPolicy() if takeover_policy is None else takeover_policy
        about = {} if about is None else about
        since = Wall(float(about.get("since", gateway.started_at)))
        self.office = TicketOffice(
            gateway.name, keys, since=since, policy=ticket_policy, count=gateway.metrics.count_ticket
        )
        self.office.gate.remember((float(until), bytes(nonce)) for until, nonce in about.get("used", ()))
        self.leaving = Leaving(LeavingPolicy() if leaving_policy is None else leaving_policy)
        self.standbys = Standbys(standby_policy)
        self.proof: LeavingProof | None = None
        self.takeover_proof: TakeoverProof | None = None
        self.over = asyncio.Event()
        """The leave is over, or everything is with a successor: the process may end."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_giving = False
        gateway.watchers.append(self)
        gateway.redeem = self.office.redeem
        gateway.controls.update(
            drain=self.control_drain,
            promote=self.control_promote,
            advise=self.control_advise,
            status=self.control_status,
        )

    # --------------------------------------------------------------------------------------- what a gateway tells

    def opened(self, connection: Connection) -> None:
        """Nothing yet: it has not said who it is."""

    def welcomed(self, connection: Connection) -> None:
        """A session is open here."""
        if isinstance(connection, Talk):
            session = connection.session
            if self._comes_too_late(connection):
                return
            self._carry_out_standby(
                connection,
                self.standbys.opened(
                    connection, session.id, _subject(connection), is_standby=connection.session.stage in QUIET
                ),
            )
        if self.leaving.stage is not leaving.LeavingStage.SERVING and not connection.is_over:
            self._carry_out(self.leaving.handle(leaving.Came(connection), self.gateway.now()))

    def joined(self, connection: Connection, channel: str, *, presence: bool) -> None:
        """Nothing to us."""

    def left(self, connection: Connection, channel: str) -> None:
        """Nothing to us."""

    def heard(self, connection: Connection, number: int) -> None:
        """Nothing to us."""

    def promoted(self, connection: Connection) -> None:
        """The client has made a standby its home."""
        if isinstance(connection, Talk) and not self._comes_too_late(connection):
            effects = self.standbys.promoted(connection, connection.session.id, _subject(connection))
            self._carry_out_standby(connection, effects)

    def _comes_too_late(self, connection: Talk) -> bool:
        """Whether it would take the place of a home, and its client has hung up.

        It gave this one up while we were frozen, and that home is what it opened afterwards.
        """
        home = self.standbys.home(connection.session.id, _subject(connection))
        if home is None or home is connection or not _has_hung_up(connection):
            return False
        connection.cut("cut")
        return True

    def ended(self, connection: Connection) -> None:
        """It is gone."""
        if isinstance(connection, Talk):
            self.standbys.gone(connection, connection.session.id, _subject(connection))
        if self.leaving.stage is not leaving.LeavingStage.SERVING:
            self._carry_out(self.leaving.handle(leaving.Went(connection), self.gateway.now()))

    # ---------------------------------------------------------------------------------------------------- leaving

    def drain(self) -> None:
        """Begins to leave. Said again, it means hurry."""
        now = self.gateway.now()
        if self.leaving.stage is leaving.LeavingStage.SERVING:
            for connection in self.gateway.connections:
                self.leaving.handle(leaving.Came(connection), now)
            self.leaving.handle(leaving.Targets(self.targets), now)
        self._carry_out(self.leaving.handle(leaving.Asked(), now))

    def set_targets(self, targets: Sequence[Target]) -> None:
        """These are the other gateways from now on."""
        self.targets = tuple(targets)
        self.leaving.handle(leaving.Targets(self.targets), self.gateway.now())

    def _wake(self) -> None:
        self._timer = None
        self._carry_out(self.leaving.wake(self.gateway.now()))

    def _carry_out(self, effects: Sequence[leaving.Effect]) -> None:
        for effect in effects:
            match effect:
                case leaving.SayNotReady():
                    self.gateway.is_draining = True
                case leaving.TellToMove(connection, target, within_s):
                    assert isinstance(connection, Connection), "keys are connections"
                    self._tell(connection, target, within_s)
                case leaving.TellToReturn(connection, after_s):
                    assert isinstance(connection, Connection), "keys are connections"
                    connection.close("paced", after_s=after_s, detail="this gateway is leaving, and there is no other")
                case leaving.LetGo(connection):
                    assert isinstance(connection, Connection), "keys are connections"
                    connection.close("moved", detail="its time to move is over")
                case leaving.CutAll():
                    self.gateway.send_away(self.leaving.policy.end_s - self.leaving.policy.move_s)
                case leaving.Finish(proof):
                    self.proof = proof
                    log.info("%s has left: %s", self.gateway.name, proof)
                    self.over.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.leaving.wake_at()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self._wake)

    def _tell(self, connection: Connection, target: Target, within_s: float) -> None:
        ticket = None
        if isinstance(connection, Talk):
            grant = connection.session.grant
            if grant is not None:
                ticket = self.office.write(target.name, connection.session.id, grant)
        connection.move(target.url, ticket, within_s=within_s)
        if isinstance(connection, SseConnection):
            # It has one connection only, and opens the next when this one ends.
            # Where its URL leads here, it comes back here: not at once, and not all together.
            connection.close(
                "moved", after_s=self.gateway.come_back_s(), detail="its messages go on at the other gateway"
            )

    # --------------------------------------------------------------------------------------------------- standbys

    def promote(self, session: str) -> standby.NotKept | int:
        """Tells the client of a session to go on at its standby: how many connections were told."""
        effects = self.standbys.promote(session)
        if isinstance(effects, standby.NotKept):
            return effects
        self._carry_out_standby(None, effects)
        return len(effects)

    def advise(self, session: str, target: str | None = None) -> standby.NotKept | Target:
        """Tells the client of a session to keep its standby at a target, by name, or at the one with the most room."""
        targets = [each for each in self.targets if target is None or each.name == target]
        effects = self.standbys.advise(session, targets)
        if isinstance(effects, standby.NotKept):
            return effects
        self._carry_out_standby(None, effects)
        return next(effect.target for effect in effects if isinstance(effect, standby.Advise))

    def _carry_out_standby(
        self, newcomer: Connection | None, effects: tuple[standby.Effect, ...] | standby.NotKept
    ) -> None:
        if isinstance(effects, standby.NotKept):
            assert newcomer is not None, "only a newcomer finds no room"
            newcomer.close("full", after_s=self.gateway.come_back_s(), detail=effects.happened)
            return
        for effect in effects:
            connection = effect.key
            assert isinstance(connection, Talk), "keys are connections that talk"
            match effect:
                case standby.Replace():
                    connection.close("replaced", detail="its session goes on over another connection")
                case standby.AskToPromote(_, standby.Kept.STANDBY):
                    connection.send(Standby())
                case standby.AskToPromote():
                    connection.move("", None, within_s=PROMOTE_WITHIN_S, why="promote")
                case standby.Advise(_, target):
                    grant = connection.session.grant
                    assert grant is not None, "it was welcomed"
                    ticket = self.office.write(target.name, connection.session.id, grant)
                    connection.send(Standby(url=target.url, ticket=ticket))

    # -------------------------------------------------------------------------------------------------- take-over

    async def give(self, link: FdLink) -> TakeoverProof:
        """Gives everything to the successor behind the link, or goes on as before."""
        assert not self._is_giving, "one successor at a time"
        self._is_giving = True
        try:
            proof = self.takeover_proof = await give(self, link, self.takeover_policy)
        finally:
            self._is_giving = False
        log.info("%s was taken over: %s", self.gateway.name, proof)
        if proof.stage is takeover.Stage.DONE:
            asyncio.get_running_loop().call_later(self._rest_s(), self.over.set)
        return proof

    def _rest_s(self) -> float:
        return self.takeover_policy.rest_s if self.gateway.connections or self.gateway.doors else 0.0

    def take_over_problem(self) -> str:
        """See `House`."""
        if self._is_giving:
            return "another successor is taking over already"
        if not self.log_is_shared:
            return "its log lives in this process; run the log as its own process (`budao log serve`), or drain instead"
        if self.gateway.is_leaving or self.leaving.stage is not leaving.LeavingStage.SERVING:
            return "it is leaving already"
        return ""

    def listening(self) -> Sequence[Listening]:
        """See `House`."""
        return self.gateway.listening()

    def about(self) -> Mapping[str, Any]:
        """See `House`."""
        used = [list(each) for each in self.office.gate.used()]
        return {**self.gateway.about(), "since": float(self.office.gate.since), "used": used, "pid": os.getpid()}

    def pause_accepting(self) -> None:
        """See `House`."""
        self.gateway.pause_accepting()

    async def resume_accepting(self) -> None:
        """See `House`."""
        await self.gateway.resume_accepting()

    def connections(self) -> Sequence[carrying.Seat]:
        """See `House`."""
        return [carrying.Seat(each) for each in self.gateway.connections]

    async def until_ready(self) -> None:
        """See `Adopter`: a successor without its log would serve nobody."""
        while self.gateway.feeding.problem:  # noqa: ASYNC110 - once in the life of a process, and for a moment
            await asyncio.sleep(READY_LOOK_S)

    async def adopt(self, connection: socket.socket, state: Mapping[str, Any]) -> None:
        """See `House`."""
        await carrying.adopt(self.gateway, connection, state)

    def send_away(self, within_s: float) -> None:
        """See `House`."""
        self.gateway.send_away(within_s)

    # --------------------------------------------------------------------------------------------------- controls

    def control_drain(self, _: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """`POST /v1/control/drain`."""
        self.drain()
        return 202, self.status()["leaving"]

    def control_promote(self, said: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """`POST /v1/control/promote` {"session": …}."""
        session = said.get("session")
        if not isinstance(session, str):
            return 400, _error("bad-request", 'say which one: {"session": "…"}')
        found = self.promote(session)
        if isinstance(found, standby.NotKept):
            return 404, _error(found.why, found.happened)
        return 202, {"session": session, "told": found}

    def control_advise(self, said: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """`POST /v1/control/advise` {"session": …, "target"?: the name of one of the targets}."""
        session, target = said.get("session"), said.get("target")
        if not isinstance(session, str) or not isinstance(target, str | None):
            return 400, _error("bad-request", 'say which one, and where if you like: {"session": "…", "target": "…"}')
        found = self.advise(session, target)
        if isinstance(found, standby.NotKept):
            return 404, _error(found.why, found.happened)
        return 202, {"session": session, "target": found.name, "url": found.url}

    def control_status(self, _: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """How things stand."""
        return 200, self.status()

    def status(self) -> Mapping[str, Any]:
        """How things stand, as plain values."""
        gateway, counts, gate = self.gateway, self.standbys.counts(), self.office.gate
        proof = self.leaving.proof(gateway.now()) if self.proof is None else self.proof
        return {
            "gateway": gateway.name,
            "process": os.getpid(),
            "url": gateway.url,
            "ready": not gateway.unready(),
            "problems": gateway.unready(),
            "connections": len(gateway.connections),
            "requests": len(gateway.doors),
            "channels": len(gateway.hub.channels),
            "tasks": len(asyncio.all_tasks()),
            "standbys": {name: getattr(counts, name) for name in type(counts).__slots__},
            "tickets": {
                "written": self.office.written,
                "taken": gate.taken,
                "refused": {flaw.value: count for flaw, count in gate.refused.items() if count},
            },
            "targets": [{"name": each.name, "url": each.url, "weight": each.weight} for each in self.targets],
            "leaving": {
                name: proof.stage.value if name == "stage" else getattr(proof, name) for name in type(proof).__slots__
            },
            "take_over": self._said_of_takeover(),
        }

    def _said_of_takeover(self) -> str:
        if self._is_giving:
            return "under way"
        return "" if self.takeover_proof is None else str(self.takeover_proof)

    def close(self) -> None:
        """No timer is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _has_hung_up(connection: Connection) -> bool:
    end = connection.socket
    if end is None:
        return False
    with socket.socket(fileno=os.dup(end.fileno())) as peeked:  # what a loop shows of its sockets cannot be read from
        try:
            return peeked.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def _subject(connection: Talk) -> str:
    grant = connection.session.grant
    return "" if grant is None else grant.subject


def _error(why: str, happened: str) -> Mapping[str, Any]:
    return {"error": {"why": why, "happened": happened}}
