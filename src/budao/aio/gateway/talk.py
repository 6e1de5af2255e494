"""A connection whose client talks: WebSocket and TCP. Frames go into its session, and what the session asks for is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from budao.aio.gateway.channel import LEFT
from budao.aio.gateway.connection import FULL, OPENING, Connection
from budao.model import RemoteWireError, Wall
from budao.push import (
    Ack,
    Answer,
    End,
    FromClient,
    FromGateway,
    Grant,
    Heard,
    Malformed,
    Open,
    Placed,
    Pong,
    Position,
    Problem,
    Promote,
    Pub,
    Publish,
    Redeem,
    Session,
    SessionEffect,
    Subscribe,
    Unsubscribe,
)
from budao.wire import push_frames

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway


class Opening:
    """Channels that begin together, and what is said once all are known: a welcome, or the `Ack` of a promotion."""

    __slots__ = ("channels", "effect", "pending", "refused")

    def __init__(self, effect: Open | Promote) -> None:
        self.effect = effect
        self.channels: dict[str, Position] = {}
        self.refused: dict[str, Problem] = {}
        self.pending = 0


class Talk(Connection):
    """What WebSocket and TCP share. `codec` reads what comes; `out` gathers what one call sends, so that it is one write."""

    __slots__ = ("codec", "out", "session")

    def __init__(self, gateway: Gateway, grant: Grant | None, codec: push_frames.Codec) -> None:
        super().__init__(gateway)
        self.codec = codec
        self.holds = OPENING
        self.session = Session(grant, gateway.session_policy, gateway.rules, name=gateway.new_name())
        self.out: list[bytes] | None = None

    # ------------------------------------------------------------------------------------------ what came in

    def heard(self, raw: bytes | memoryview) -> None:
        """A frame of the client, still in bytes."""
        try:
            frame = self.codec.decode(raw)
        except push_frames.FrameRefused as refused:
            self.take(Malformed(refused.ref, refused.problem))
        except RemoteWireError as problem:
            self.finish_with("bad-frame", str(problem))
        else:
            self.take(frame)

    def take(self, frame: FromClient | Malformed) -> None:
        """A frame of the client."""
        gateway = self.gateway
        effects = self.session.received(frame, gateway.now(), gateway.wall())
        if type(frame) is Pub and effects and isinstance(refused := effects[0], Answer):
            self._count_refusal(refused.frame)
        self.carry_out(effects)

    def _count_refusal(self, frame: FromGateway) -> None:
        if isinstance(frame, Ack) and frame.problem is not None:
            self.gateway.metrics.count_publish_refusal(frame.problem.why)

    def carry_out(self, effects: Iterable[SessionEffect]) -> None:
        """What the session asks for, in order."""
        for effect in effects:
            if isinstance(effect, Answer):
                self._answer(effect.frame)
            elif isinstance(effect, Open):
                self._open(effect)
            elif isinstance(effect, Publish):
                self._publish(effect)
            elif isinstance(effect, Subscribe):
                self._subscribe(effect)
            elif isinstance(effect, Unsubscribe):
                self.gateway.left(self, effect.channel)
                self.gateway.hub.leave_one(self, effect.channel)
                self.say(Ack(ref=effect.ref))
            elif isinstance(effect, Heard):
                self.gateway.heard(self, effect.number)
            elif isinstance(effect, Promote):
                self._promote(effect)
            elif isinstance(effect, Redeem):
                self._redeem(effect)
            elif isinstance(effect, End):
                self.flush()
                self.finish(effect.bye)

    def _answer(self, frame: FromGateway) -> None:
        if isinstance(frame, Pong):  # whoever asks learns how busy we are
            frame = Pong(number=frame.number, load_share=round(self.gateway.load.share, 2))
        self.say(frame)

    def say(self, frame: FromGateway) -> None:
        """A frame for this client: with what else this call sends, or at once."""
        if self.is_over:
            return
        if self.out is None:
            self.send(frame)
        else:
            self.out.append(self.encoding.frame(frame))

    def raw(self, data: bytes) -> None:
        """Bytes for this client, like `say`."""
        (self.write if self.out is None else self.out.append)(data)

    def flush(self) -> None:
        """Writes what was gathered."""
        out = self.out
        if out:
            self.out = []
            if not self.is_over:
                self.write(out[0] if len(out) == 1 else b"".join(out))
                if self.holds & FULL:
                    self.relieve()

    def data_received(self, data: bytes) -> None:
        self.out = []
        super().data_received(data)
        self.flush()
        self.out = None

    def finish_with(self, why: str, detail: str = "", *, after_s: float = 0.0) -> None:
        """End the session, and the connection with it."""
        self.carry_out(self.session.end(why, after_s=after_s, detail=detail))

    def close(self, why: str, *, after_s: float = 0.0, detail: str = "") -> None:
        """See `Connection.close`; the session hears of it."""
        self.finish_with(why, detail, after_s=after_s)
        super().close(why, after_s=after_s, detail=detail)  # a session that had ended says nothing

    def wake_at(self) -> Wall | None:
        return self.session.wake_at()

    def expire(self, wall: Wall) -> None:
        self.carry_out(self.session.wake(wall))

    # ---------------------------------------------------------------------------------------- what is asked for

    def _open(self, effect: Open) -> None:
        opening = Opening(effect)
        self._join(opening, effect.subscribe, is_standing=effect.is_standby)
        if not opening.pending:
            self._opened(opening)

    def _join(self, opening: Opening, subscribe: Iterable[Subscribe], *, is_standing: bool) -> None:
        join = self.gateway.hub.join
        for each in subscribe:
            done = partial(self._placed, opening, each.channel)
            found = join(self, each.channel, each.after, each.last, done, is_standing=is_standing)
            if found is None:
                opening.pending += 1
            else:
                self._note(opening, each.channel, found)

    def _note(self, opening: Opening, channel: str, found: Position | Problem) -> None:
        if isinstance(found, Problem):
            opening.refused[channel] = found
            if found is not LEFT:  # it may be subscribed again already
                self.session.forget(channel)
        else:
            opening.channels[channel] = found

    def _placed(self, opening: Opening, channel: str, found: Position | Problem) -> None:
        opening.pending -= 1
        if self.is_over:
            return
        self._note(opening, channel, found)
        if not opening.pending:
            is_gathering = self.out is not None  # its last channel was given up by what is being read just now
            if not is_gathering:
                self.out = []
            if isinstance(opening.effect, Open):
                self._opened(opening)
            else:
                self._promoted(opening, opening.effect)
            if not is_gathering:
                self.flush()
                self.out = None

    def _opened(self, opening: Opening) -> None:
        gateway, effect = self.gateway, opening.effect
        assert isinstance(effect, Open), "only a hello opens"
        if opening.refused or effect.refused:
            welcome = effect.welcome(
                gateway.name,
                opening.channels,
                refused=opening.refused,
                peers=gateway.peers,
                frame_bytes_max=self.session.policy.frame_bytes_max,
            )
            self.raw(self.encoding.frame(welcome))
        else:
            self.raw(gateway.greeting.welcome(self.encoding, effect, opening.channels))
        gateway.hub.release(self, OPENING, self.raw)
        gateway.welcomed(self, effect)
        self.carry_out(self.session.opened(gateway.now(), gateway.wall()))

    def _promote(self, effect: Promote) -> None:
        self.gateway.hub.leave(self)
        self.gateway.hub.hold(self, OPENING)
        opening = Opening(effect)
        opening.refused.update(effect.refused)
        self._join(opening, effect.subscribe, is_standing=False)
        if not opening.pending:
            self._promoted(opening, effect)

    def _promoted(self, opening: Opening, effect: Promote) -> None:
        self.gateway.metrics.promotions += 1
        if effect.ref is not None:
            if opening.refused:
                self.say(Ack(ref=effect.ref, channels=opening.channels, refused=opening.refused))
            elif not self.is_over:
                self.raw(self.gateway.greeting.promoted(self.encoding, effect.ref, opening.channels))
        self.gateway.hub.release(self, OPENING, self.raw)
        self.gateway.promoted(self)

    def promote(self) -> None:
        """The gateway promotes a standby that did not ask."""
        self.carry_out(self.session.promoted())

    def _subscribe(self, effect: Subscribe) -> None:
        hub = self.gateway.hub
        done = partial(self._subscribed, effect)
        found = hub.join(self, effect.channel, effect.after, effect.last, done)
        if found is not None:
            self._subscribed(effect, found)

    def _subscribed(self, effect: Subscribe, found: Position | Problem) -> None:
        if self.is_over:
            return
        if isinstance(found, Problem):
            if found is not LEFT:  # it may be subscribed again already
                self.session.forget(effect.channel)
            if effect.ref:
                self.say(Ack(ref=effect.ref, problem=found))
            return
        if effect.ref:
            self.say(Ack(ref=effect.ref, position=found))
        self.gateway.joined(self, effect.channel, presence=effect.presence)
        self.gateway.hub.catch_up(self, self.raw)

    def _publish(self, effect: Publish) -> None:
        problem = self.gateway.publisher.add(effect.draft, partial(self._published, effect.ref))
        if problem is not None:
            self._published(effect.ref, problem)

    def _published(self, ref: int, result: Placed | Problem) -> None:
        self.session.published()
        if self.is_over:
            return
        if isinstance(result, Placed):
            self.say(Ack(ref=ref, position=result.position, is_repeat=result.is_repeat))
        else:
            self.say(Ack(ref=ref, problem=result))

    def _redeem(self, effect: Redeem) -> None:
        gateway = self.gateway
        found = gateway.redeem(effect.ticket, effect.session)
        if isinstance(found, Grant):
            self.carry_out(self.session.redeemed(found, gateway.wall()))
        else:
            self.carry_out(self.session.redeemed(None, gateway.wall(), happened=found))

    def places_now(self) -> Mapping[str, Position]:
        """Where it is in each of its channels: what it was sent last."""
        found = {}
        for channel, lag in self.places.items():
            if lag is not None:
                found[channel.name] = lag.missing or lag.place
            elif channel.ring is not None:
                found[channel.name] = channel.ring.head
        return found
