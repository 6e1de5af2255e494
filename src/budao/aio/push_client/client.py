"""A client of the push gateways: reads channels, publishes, and keeps both going while gateways come and go."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import Random
from types import TracebackType
from typing import Literal, Self
from uuid import UUID

from budao.aio.background import Background
from budao.aio.push_client.address import Address, parse_address
from budao.aio.push_client.errors import ChannelRefused, Closed, Forbidden, GivenUp, PushError, Unauthorized
from budao.aio.push_client.link import CLOSE_S, Link, Owner
from budao.aio.push_client.metrics import ClientMetrics
from budao.aio.push_client.publishing import AGAIN_S, PASSING, Publishing
from budao.aio.push_client.spares import Spares
from budao.aio.push_client.subscription import Reading, Subscription
from budao.aio.push_client.tokens import Token
from budao.aio.security import check_sending, client_tls, explain_tls
from budao.model import BadSettings, LocalWireError, Mono
from budao.push import (
    Ack,
    BrokenPromise,
    ClientPolicy,
    Draft,
    FromGateway,
    Hello,
    Kind,
    Missing,
    Move,
    Msg,
    Position,
    Present,
    Problem,
    Seen,
    Standby,
    Sub,
    Unsub,
    Welcome,
    check_channel,
    reunion,
)
from budao.wire import push_frames

ACK_S = 1.0
"""Between acknowledgements; in between, the latest of each channel counts."""
ACKS_MAX = 20
"""Channels that are acknowledged at a time: gateways take so many frames a second, and there is more to say."""
STRIKES_MAX = 3
"""Times in a row that a gateway may leave something out before the reader hears of it."""


class PushClient:
    """One session with the gateways behind `urls`, as an async context manager.

    Each reader gets every message once and in order, or a `Gap` that names what is missing, whichever gateway tells it. What is
    published is sent again under the same id until it is durable or its time is up. With `standby`, a second, quiet connection at
    another gateway takes over when the first one falls silent.

    Shapes:  `urls` are `https://`, `wss://` (or without TLS `http://`, `ws://`), or `tcps://`, `tcp://` for plain frames.
             `token` is one, or a function or coroutine function that gives one; it is asked again when one was refused.
    Raises:  BadSettings for URLs that make no sense, and for a token that would travel in the clear beyond this machine.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        token: str | Callable[[], str | Awaitable[str]] | None = None,
        standby: bool = False,
        codec: Literal["json", "msgpack"] = "json",
        policy: ClientPolicy | None = None,
        tls: ssl.SSLContext | None = None,
        name: str = "budao-python",
    ) -> None:
        self.policy = ClientPolicy() if policy is None else policy
        self.metrics = ClientMetrics()
        """What it counted."""
        self.session: str | None = None
        """The session's name, once a gateway has said it."""
        self.name = name
        self._token = Token(token)
        self._tls = tls
        if isinstance(urls, str) or not urls:
            raise BadSettings([("urls", "needs a list of the URLs of one or more gateways")])
        if codec not in {"json", "msgpack"}:
            raise BadSettings([("codec", f"{codec!r} is neither json nor msgpack")])
        self._codec = push_frames.JSON if codec == "json" else push_frames.MSGPACK
        self._addresses = {address.url: address for address in map(parse_address, urls)}
        for address in self._addresses.values():
            check_sending([address.host], tls=address.is_tls, token=self._token.is_there)
        # Chance that other processes cannot share: a fork, or two starts in one instant, must not make the same ids.
        self._rng = Random(int.from_bytes(ssl.RAND_bytes(16), "big"))
        self._reunion = reunion.Reunion(
            list(self._addresses),
            self._rng,
            self.policy,
            has_standby=standby,
            can_refresh=self._token.can_refresh,
        )
        self._links: dict[int, Link] = {}
        self._readings: dict[str, Reading] = {}
        self._asked: dict[tuple[int, int], Reading | None] = {}
        """By link and ref: subscriptions that wait for an answer; None for a promotion."""
        self._acks: dict[str, Position] = {}
        """What readers have dealt with and no gateway was told yet."""
        self._ack_timer: asyncio.TimerHandle | None = None
        self._ref = 0
        self._error: Exception | None = None
        self._current: Link | None = None
        self._lost_at: float | None = None
        self._open: set[Link] = set()
        """Connections that are not closed yet, those included that are used no more."""

    def __repr__(self) -> str:
        return f"<PushClient {self.name} {self.state}>"

    # ------------------------------------------------------------------------------------------------ what is

    @property
    def state(self) -> str:
        """`connecting`, `online`, `given-up` or `closed`."""
        return self._reunion.shape.value

    @property
    def has_standby(self) -> bool:
        """Whether a second connection stands by."""
        return self._reunion.standby is not None

    @property
    def gateway(self) -> str | None:
        """The URL of the gateway in use."""
        link = self._active()
        return None if link is None else link.address.url

    @property
    def urls(self) -> tuple[str, ...]:
        """The gateways it knows, those included that others named."""
        return self._reunion.urls()

    @property
    def problem(self) -> str:
        """The latest thing that went wrong with a connection, for people; empty if nothing did."""
        return self._reunion.problem

    @property
    def gateway_load_share(self) -> float:
        """How busy the gateways it publishes to said they are, of one core each. 0 while nobody asks: see `policy.pool`."""
        return self._publishing.load_share

    def position(self, channel: str) -> Position | None:
        """After the last item of a channel that was handed out; None if it is not read, or has not begun."""
        reading = self._readings.get(channel)
        return None if reading is None else reading.place

    # --------------------------------------------------------------------------------------------- in and out

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._changed = asyncio.Event()
        self._tasks = Background(self._crashed)
        self._dials: dict[int, asyncio.Task[None]] = {}
        self._publishing = Publishing(self.policy, self.metrics, self._next_ref, lambda: self.problem)
        self._spares = Spares(self, self._tasks, self._publishing, self._rng)
        self._perform(self._reunion.start(self._now()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends every subscription, publish, connection and task."""
        self._stop(Closed("go on"))
        self._spares.close()
        self._perform(self._reunion.close())
        for timer in (self._timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        await self._tasks.close()
        if self._open:
            await asyncio.wait([link.lost for link in self._open], timeout=CLOSE_S)
        for link in [*self._open]:
            link.cut()
            await link.lost

    async def connected(self) -> None:
        """Waits for a connection.

        Raises:  Unauthorized, GivenUp or Closed if there will be none.
        """
        while self._reunion.active is None:
            if self._error is not None:
                raise self._error
            await self._changed.wait()

    # ------------------------------------------------------------------------------------------------ reading

    def subscribe(
        self, channel: str, *, after: Position | None = None, last: int = 0, presence: bool = False
    ) -> Subscription:
        """Reads a channel: after a place, or up to `last` of its latest messages first, or what comes next.

        One subscription a channel. Its queue is bounded: a reader that is slow makes its channel rest at the gateway, which costs
        the others nothing; it goes on from its place, and what the gateway does not keep for so long is named by a gap. With
        `presence`, it tells as well who else reads the channel (see `Subscription.presence`), which the channel has to allow.

        Raises:  RemoteWireError for what is no channel's name; PushError if the channel is read already; what ended the client.
        """
        check_channel(channel)
        if self._error is not None:
            raise self._error
        if channel in self._readings:
            raise PushError(f"{channel} is being read already; share that subscription, or open another client")
        reading = self._readings[channel] = Reading(channel, after, last if after is None else 0, has_presence=presence)
        if (link := self._active()) is not None:
            self._ask(link, reading)
        return Subscription(reading, self._taken, self._left, self._acknowledge)

    def _active(self) -> Link | None:
        number = self._reunion.active
        return None if number is None else self._links.get(number)

    def _ask(self, link: Link, reading: Reading) -> None:
        """Asks a gateway for a channel, from the place of its reader."""
        follower = reading.follower
        ref = self._next_ref()
        self._asked[link.number, ref] = reading
        reading.is_asked = True
        reading.told_by = None
        last = reading.last if follower.place is None else 0
        presence = reading.has_presence
        link.send(Sub(ref=ref, channel=reading.channel, after=follower.place, last=last, presence=presence))

    def _rest(self, link: Link, reading: Reading) -> None:
        """Its reader is slow: the gateway stops, and nothing more is taken until there is room."""
        self.metrics.rests += 1
        reading.is_resting = True
        for each in self._links.values():
            each.listening.pop(reading.channel, None)
        link.send(Unsub(ref=self._next_ref(), channel=reading.channel))

    def _taken(self, reading: Reading) -> None:
        """The reader of a channel that rests has taken something."""
        policy = self.policy
        if (
            len(reading.queue) * 2 <= policy.queue_count_max
            and reading.bytes_waiting * 2 <= policy.queue_bytes_max
            and not reading.is_over
        ):
            reading.is_resting = False
            if (link := self._active()) is not None:
                self._ask(link, reading)

    def _acknowledge(self, reading: Reading) -> None:
        """Its reader has dealt with what it was given."""
        if reading.place is not None:
            self._acks[reading.channel] = reading.place
            if self._ack_timer is None:
                self._send_acks()

    def _send_acks(self) -> None:
        self._ack_timer = self._loop.call_later(ACK_S, self._send_acks) if self._acks else None
        link = self._active()
        if link is not None:
            for channel in [*self._acks][:ACKS_MAX]:
                link.send(Seen(channel=channel, position=self._acks.pop(channel)))

    def _left(self, reading: Reading) -> None:
        """Its reader is gone."""
        reading.end()
        if self._readings.get(reading.channel) is not reading:
            return
        del self._readings[reading.channel]
        self._acks.pop(reading.channel, None)
        for link in self._links.values():
            link.listening.pop(reading.channel, None)
        if (link_ := self._active()) is not None and not reading.is_resting:
            link_.send(Unsub(ref=self._next_ref(), channel=reading.channel))

    def _refuse(self, reading: Reading, problem: Problem) -> None:
        """A gateway does not give a channel."""
        reading.is_asked = False
        if problem.why in PASSING or problem.after_s > 0.0:
            self._loop.call_later(problem.after_s or AGAIN_S, self._again, reading)
            return
        kind = Forbidden if problem.why == "forbidden" else ChannelRefused
        reading.end(kind(f"read {reading.channel}", problem.why, problem.happened))
        self._readings.pop(reading.channel, None)

    def _again(self, reading: Reading) -> None:
        link = self._active()
        if link is None or reading.is_over or reading.is_resting or reading.is_asked:
            return
        if reading.channel not in link.listening:
            self._ask(link, reading)

    # --------------------------------------------------------------------------------------------- publishing

    async def publish(
        self,
        channel: str,
        data: object,
        *,
        id: str | None = None,  # noqa: A002 - what frames and drafts call it
        trace: str | None = None,
        within_s: float | None = None,
    ) -> Position:
        """Publishes bytes, or anything else as JSON, and answers with its place once it is durable.

        Publishing again with the same `id` is the same message; without one, an id is made, so that a message that is sent twice
        for a lost connection is still one.

        Raises:  PublishTimedOut, which says whether it may have been published and under which id; Forbidden; ChannelRefused;
                 LocalWireError for what JSON cannot say; what ended the client.
        """
        check_channel(channel)
        kind, raw = (Kind.BYTES, bytes(data)) if isinstance(data, bytes | bytearray | memoryview) else _json(data)
        draft = Draft(channel, raw, kind, id or self._new_id(), trace)
        within_s = self.policy.publish_s if within_s is None else within_s
        self._spares.look()
        return await self._publishing.publish(draft, within_s)

    async def publish_many(self, channel: str, values: Iterable[object]) -> list[Position]:
        """Publishes several messages to one channel without waiting for each.

        They keep their order, also over a connection that is lost; not where a gateway refuses some of them for a while, as
        beyond a rate. Who needs the order whatever happens awaits each publish.

        Raises:  what `publish` raises, for the first that failed; those before it are durable, those behind it may be.
        """
        tasks = [asyncio.create_task(self.publish(channel, value)) for value in values]
        try:
            return [await task for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _new_id(self) -> str:
        return UUID(int=self._rng.getrandbits(128), version=4).hex

    def _next_ref(self) -> int:
        self._ref += 1
        return self._ref

    # ------------------------------------------------------------------------- what connections tell: `Owner`

    def welcomed(self, link: Link, welcome: Welcome) -> None:
        """A connection was welcomed."""
        metrics, now = self.metrics, self._now()
        metrics.connects += 1
        metrics.resumes += welcome.resumed
        self.session = self.session or welcome.session
        hello = link.hello
        is_standby = hello is not None and hello.is_standby
        peers = tuple(url for peer in welcome.peers if (url := self._trusted(peer, link.address)) is not None)
        if not is_standby:
            for channel, position in welcome.channels.items():
                self._begin(link, channel, position)
            for channel, problem in welcome.refused.items():
                if (refused := self._readings.get(channel)) is not None:
                    self._refuse(refused, problem)
        self._perform(self._reunion.handle(reunion.Welcomed(link=link.number, beat_s=welcome.beat_s, peers=peers), now))
        link.liveness = self._reunion.liveness(link.number)
        if not is_standby:
            self._delivers(link)

    def received(self, link: Link, frame: FromGateway) -> None:
        """A connection said something."""
        if isinstance(frame, Msg | Missing):
            self._take(link, frame)
        elif isinstance(frame, Ack):
            if not self._publishing.answered(link, frame):
                self._answered(link, frame)
        elif isinstance(frame, Move):
            self._move(link, frame)
        elif isinstance(frame, Standby):
            self._advised(link, frame)
        elif isinstance(frame, Present) and (reading := link.listening.get(frame.channel)) is not None:
            reading.tell(link, frame)

    def ended(self, link: Link, fact: reunion.Ended) -> None:
        """A connection ended, or could not be opened."""
        self.metrics.failures += 1
        if fact.code in reunion.TOKEN_CODES:
            self._token.refuse()
        self._release(link)
        self._tell(fact)

    # --------------------------------------------------------------------------------------- what gateways say

    def _take(self, link: Link, frame: Msg | Missing) -> None:
        item = frame.message if isinstance(frame, Msg) else frame.gap
        reading: Reading | None = link.listening.get(item.channel)
        if reading is None:
            return
        policy = self.policy
        if len(reading.queue) >= policy.queue_count_max or reading.bytes_waiting >= policy.queue_bytes_max:
            self._rest(link, reading)
            return
        missed = reading.follower.missed
        try:
            taken = reading.follower.take(item)
        except BrokenPromise as broken:
            self._broken(link, reading, broken)
            return
        if taken is None:
            self.metrics.duplicates += 1
            return
        reading.strikes = 0
        if isinstance(frame, Msg):
            self.metrics.messages += 1
        else:
            self.metrics.gaps += 1
            self.metrics.missed += reading.follower.missed - missed
        reading.put(taken)

    def _move(self, link: Link, frame: Move) -> None:
        if not frame.url:  # to the standby that it has
            self._tell(reunion.AskedToPromote(link=link.number, within_s=frame.within_s))
            return
        self.metrics.moves += 1
        url = self._trusted(frame.url, link.address)
        ticket = frame.ticket if url is not None else None
        self._tell(reunion.Offered(link=link.number, url=url, ticket=ticket, within_s=frame.within_s))

    def _advised(self, link: Link, frame: Standby) -> None:
        """Where to keep the standby; or, on the quiet connection itself, that it is to be promoted."""
        if frame.url is None:
            if link.hello is not None and link.hello.is_standby:
                self._tell(reunion.AskedToPromote(link=link.number))
        elif (url := self._trusted(frame.url, link.address)) is not None:
            self._tell(reunion.Offered(link=link.number, url=url, ticket=frame.ticket, is_move=False))

    def _begin(self, link: Link, channel: str, position: Position) -> None:
        """A connection begins to tell of a channel."""
        reading = self._readings.get(channel)
        if reading is None or reading.is_resting:  # it was wanted when the connection was opened
            link.send(Unsub(ref=self._next_ref(), channel=channel))
        else:
            reading.begin(position)
            link.listening[channel] = reading

    def _delivers(self, link: Link) -> None:
        """A connection tells of every channel, but for those that it was not asked for yet."""
        if self._lost_at is not None:
            self.metrics.recovery_s.record_s(self._loop.time() - self._lost_at)
            self._lost_at = None
        for reading in [*self._readings.values()]:
            if reading.channel not in link.listening and not (reading.is_resting or reading.is_asked):
                self._ask(link, reading)

    def _answered(self, link: Link, ack: Ack) -> None:
        key = (link.number, ack.ref)
        if key not in self._asked:
            return
        reading = self._asked.pop(key)
        if reading is None:
            if ack.problem is not None:
                link.cut()
                problem = f"it does not promote its standby: {ack.problem.happened}"
                self.ended(link, reunion.Ended(link=link.number, problem=problem))
                return
            for channel, position in ack.channels.items():
                self._begin(link, channel, position)
            for channel, refused in ack.refused.items():
                if (found := self._readings.get(channel)) is not None:
                    self._refuse(found, refused)
            self._tell(reunion.Delivers(link=link.number))
            self._delivers(link)
            return
        reading.is_asked = False
        if reading.is_over:
            return
        if ack.problem is not None:
            self._refuse(reading, ack.problem)
        elif ack.position is not None and not reading.is_resting:
            reading.begin(ack.position)
            link.listening[reading.channel] = reading

    def _broken(self, link: Link, reading: Reading, broken: BrokenPromise) -> None:
        """A gateway left something out: it is asked for it again, a few times."""
        self.metrics.broken_promises += 1
        reading.strikes += 1
        link.listening.pop(reading.channel, None)
        link.send(Unsub(ref=self._next_ref(), channel=reading.channel))
        if reading.strikes >= STRIKES_MAX:
            reading.end(broken)
            self._readings.pop(reading.channel, None)
        else:
            self._ask(link, reading)

    def _trusted(self, url: str, source: Address) -> str | None:
        """The URL of a gateway that another one named, if we may go there: as safe as where we are, or nowhere."""
        if not url:
            return None
        try:
            address = parse_address(url)
            check_sending([address.host], tls=address.is_tls, token=self._token.is_there)
        except BadSettings:
            return None
        if address.url not in self._addresses:
            if address.is_tls != source.is_tls or self.policy.peers_max == 0:
                return None
            if len(self._addresses) >= 4 * (self.policy.peers_max + len(self._reunion.urls())):
                return None
            self._addresses[address.url] = address
        return address.url

    # ------------------------------------------------------------------------------------------------ effects

    def _now(self) -> Mono:
        return Mono(self._loop.time())

    def _tell(self, fact: reunion.Fact) -> None:
        self._perform(self._reunion.handle(fact, self._now()))

    def _perform(self, effects: Iterable[reunion.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, reunion.Dial):
                self._dials[effect.link] = self._tasks.spawn(self._dial(effect), f"dial {effect.url}")
            elif isinstance(effect, reunion.Adopt):
                self._adopt(effect)
            elif isinstance(effect, reunion.Promote):
                self._promote(self._links[effect.link])
            elif isinstance(effect, reunion.HangUp):
                self._hang_up(effect)
            else:
                kind = Unauthorized(effect.problem) if effect.code in reunion.TOKEN_CODES else None
                self._stop(kind or GivenUp(effect.code, effect.problem))
        self._changed.set()
        self._changed = asyncio.Event()
        self._arm()

    def _arm(self) -> None:
        at = self._reunion.wake_at()
        timer = self._timer
        if at == float("inf") or (timer is not None and self._timer_at <= at):
            return  # it rings early, and looks again
        if timer is not None:
            timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        effects = self._reunion.wake(self._now())
        if effects:
            self._perform(effects)
        else:
            self._arm()

    async def _dial(self, effect: reunion.Dial) -> None:
        try:
            await self.open(effect.link, effect.url, lambda: self._hello(effect), self)
        except (OSError, ValueError, PushError) as problem:
            self._tell_failed(effect.link, problem)
        finally:
            self._dials.pop(effect.link, None)

    def _tell_failed(self, number: int, problem: Exception) -> None:
        self.metrics.failures += 1
        said = explain_tls(problem) if isinstance(problem, ssl.SSLError) else str(problem) or type(problem).__name__
        self._tell(reunion.Ended(link=number, problem=said))

    def _hello(self, effect: reunion.Dial) -> Hello:
        """What a new connection says, with the places of now."""
        channels = {
            channel: reading.follower.place
            for channel, reading in self._readings.items()
            # What a hello cannot say, a number of messages or presence, is asked for once it is welcomed.
            if not (reading.is_resting or reading.has_presence)
            and (reading.follower.place is not None or not reading.last)
        }
        return Hello(
            session=self.session,
            ticket=effect.ticket,
            channels=channels,
            is_standby=effect.role is reunion.Role.STANDBY,
            beat_s=effect.beat_s,
            client=self.name,
        )

    async def open(self, number: int, url: str, hello: Callable[[], Hello], owner: Owner) -> Link:
        """Opens a connection; it then tells its owner.

        Raises:  OSError, ssl.SSLError, or PushError if there is no token.
        """
        address = self._addresses[url]
        try:
            token = await self._token.get()
        except Exception as problem:
            raise PushError(f"the source of tokens failed: {type(problem).__name__}") from problem
        codec = self._codec if address.is_websocket else push_frames.MSGPACK
        link = Link(number, address, owner, codec, hello, token, self.policy.frame_bytes_max)
        if owner is self:
            self._links[number] = link
        if address.is_tls and self._tls is None:
            self._tls = client_tls()
        tls = self._tls if address.is_tls else None
        try:
            await self._loop.create_connection(lambda: link, address.host, address.port, ssl=tls)
        except BaseException:
            self._links.pop(number, None)
            raise
        self._open.add(link)
        link.lost.add_done_callback(lambda _: self._open.discard(link))
        return link

    def _adopt(self, effect: reunion.Adopt) -> None:
        link = self._links[effect.link]
        if effect.is_standby:
            self._promote(link)
        self._current = link
        self._publishing.open(link)

    def _promote(self, link: Link) -> None:
        self.metrics.promotions += 1
        link.liveness = self._reunion.liveness(link.number)
        ref = self._next_ref()
        self._asked[link.number, ref] = None
        hello = self._hello(reunion.Dial(link.number, "", reunion.Role.ACTIVE, 0.0))
        link.send(Standby(ref=ref, channels=hello.channels))

    def _hang_up(self, effect: reunion.HangUp) -> None:
        dial = self._dials.pop(effect.link, None)
        if dial is not None:
            dial.cancel()
        link = self._links.get(effect.link)
        if link is None:
            return
        if effect.is_dead:
            self.metrics.failures += 1
            link.cut()
        else:
            link.hang_up()
        self._release(link)

    def _release(self, link: Link) -> None:
        """A connection is used no more."""
        self._links.pop(link.number, None)
        if self._current is link:
            self._lost_at = self._loop.time() if link.liveness is None else link.liveness.heard_at
        for key in [key for key in self._asked if key[0] == link.number]:
            if (reading := self._asked.pop(key)) is not None:
                reading.is_asked = False
        link.listening.clear()
        self._publishing.close(link)

    def _stop(self, error: Exception) -> None:
        """Nothing goes on: everybody who waits hears why."""
        if self._error is None:
            self._error = error
        for reading in [*self._readings.values()]:
            reading.end(None if isinstance(error, Closed) else error)
        self._readings.clear()
        self._acks.clear()
        self._publishing.fail(error)
        self._changed.set()
        self._changed = asyncio.Event()

    def _crashed(self, where: str, problem: BaseException) -> None:
        """A mistake of ours: nobody is to wait for what will not come."""
        self._loop.call_exception_handler({"message": f"{where} of {self!r} failed", "exception": problem})


def _json(data: object) -> tuple[Kind, bytes]:
    try:
        return Kind.JSON, json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise LocalWireError(f"this cannot be published as JSON: {problem}") from problem
