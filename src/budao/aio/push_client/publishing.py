"""Messages on their way to a gateway: each sent until it is answered, under one id, so that it is one message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from budao.aio.push_client.errors import ChannelRefused, Forbidden, PublishTimedOut, PushError
from budao.aio.push_client.link import Link
from budao.aio.push_client.metrics import ClientMetrics
from budao.model import LocalWireError
from budao.push import Ack, ClientPolicy, Draft, Ping, Position, Problem, Pub

AGAIN_S: Final = 0.1
"""Before another try, where the gateway did not say when."""
PASSING: Final = frozenset({"log-away", "rate", "full", "busy", "paced"})
"""What a gateway refuses today and not tomorrow."""
LOAD_PING: Final = 1
"""The number of a ping whose pong tells how busy its gateway is; 0 would want no answer."""


class Pending:
    """One message."""

    __slots__ = ("answer", "draft", "link", "number", "was_sent")

    def __init__(self, number: int, draft: Draft, answer: asyncio.Future[Position]) -> None:
        self.number = number
        self.draft = draft
        self.answer = answer
        self.link: Link | None = None
        self.was_sent = False


class Publishing:
    """Spreads messages over connections. While a channel has messages under way they keep to one connection, and so to their order."""

    def __init__(
        self, policy: ClientPolicy, metrics: ClientMetrics, next_ref: Callable[[], int], problem: Callable[[], str]
    ) -> None:
        self._policy = policy
        self._metrics = metrics
        self._next_ref = next_ref
        self._problem = problem
        self._loop = asyncio.get_running_loop()
        self._links: list[Link] = []
        self._sent: dict[tuple[int, int], Pending] = {}
        """By link and ref."""
        self._unsent: deque[Pending] = deque()
        self._channels: dict[str, tuple[Link, int]] = {}
        """By channel with messages under way: over which connection, and how many."""
        self._pause: asyncio.TimerHandle | None = None
        self._room: deque[asyncio.Future[None]] = deque()
        self._taken = 0
        self._error: Exception | None = None

    @property
    def use_share(self) -> float:
        """What is under way of what may be."""
        room = max(1, len(self._links)) * self._policy.publishing_max
        return min(1.0, self._taken / room)

    @property
    def load_share(self) -> float:
        """How busy the gateways of its connections are, on average, as far as they said it."""
        return sum(link.load_share for link in self._links) / max(1, len(self._links))

    def ask_for_load(self) -> None:
        """The gateways are to say how busy they are."""
        for link in self._links:
            link.send(Ping(number=LOAD_PING))

    async def publish(self, draft: Draft, within_s: float) -> Position:
        """Sends a message until it is durable.

        Raises:  PublishTimedOut, Forbidden, ChannelRefused, and whatever ended the client.
        """
        began = self._loop.time()
        pending: Pending | None = None
        try:
            async with asyncio.timeout(within_s):
                await self._enter()
                try:
                    if self._error is not None:
                        raise self._error
                    pending = Pending(self._next_ref(), draft, self._loop.create_future())
                    self._unsent.append(pending)
                    self._flush()
                    position = await pending.answer
                finally:
                    if pending is not None:
                        self._drop(pending)
                    self._leave()
        except TimeoutError:
            was_sent = pending is not None and pending.was_sent
            raise PublishTimedOut(
                draft.channel, draft.id or "", within_s, was_sent=was_sent, problem=self._problem()
            ) from None
        self._metrics.publishes += 1
        self._metrics.publish_s.record_s(self._loop.time() - began)
        return position

    # ------------------------------------------------------------------------------------------- connections

    def open(self, link: Link) -> None:
        """A connection takes messages."""
        if link not in self._links:
            self._links.append(link)
        self._flush()

    def close(self, link: Link) -> None:
        """A connection takes none any more; those under way on it are sent again, in their order, over another."""
        if link in self._links:
            self._links.remove(link)
        orphans = [pending for (number, _), pending in self._sent.items() if number == link.number]
        if orphans:
            self._sent = {key: each for key, each in self._sent.items() if key[0] != link.number}
            for pending in orphans:
                self._count_out(pending)
            self._send_again(orphans)
            self._flush()

    def answered(self, link: Link, ack: Ack) -> bool:
        """Whether it was the answer to one of these."""
        pending = self._sent.pop((link.number, ack.ref), None)
        if pending is None:
            return False
        self._count_out(pending)
        if pending.answer.done():
            return True
        if ack.problem is not None:
            self._refused(pending, ack.problem)
        elif ack.position is None:
            pending.answer.set_exception(PushError(f"publish to {pending.draft.channel}: an answer without a place"))
        else:
            self._metrics.repeats += ack.is_repeat
            pending.answer.set_result(ack.position)
        return True

    def fail(self, error: Exception) -> None:
        """Nothing is sent any more."""
        self._error = error
        for pending in [*self._sent.values(), *self._unsent]:
            if not pending.answer.done():
                pending.answer.set_exception(error)
        if self._pause is not None:
            self._pause.cancel()
        self._sent.clear()
        self._unsent.clear()
        while self._room:
            if not (waiter := self._room.popleft()).done():
                waiter.set_result(None)

    # ----------------------------------------------------------------------------------------------- helpers

    async def _enter(self) -> None:
        """Waits for a place; places are given in the order they were asked for."""
        policy = self._policy
        places = policy.publishing_max * policy.pool.connections_max
        if self._taken >= places or self._room:
            waiter = self._loop.create_future()
            self._room.append(waiter)
            try:
                await waiter
            except BaseException:
                with suppress(ValueError):
                    self._room.remove(waiter)
                if waiter.done() and not waiter.cancelled():
                    self._leave()  # the place was ours already
                raise
            return
        self._taken += 1

    def _leave(self) -> None:
        while self._room:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the place goes on to it
                return
        self._taken -= 1

    def _flush(self) -> None:
        while self._unsent and self._pause is None:
            link = self._choose(self._unsent[0].draft.channel)
            if link is None:
                return
            self._send(self._unsent.popleft(), link)

    def _choose(self, channel: str) -> Link | None:
        found = self._channels.get(channel)
        if found is not None:
            link = found[0]
            return link if link.in_flight < self._policy.publishing_max else None
        free = [link for link in self._links if link.in_flight < self._policy.publishing_max]
        return min(free, key=lambda each: each.in_flight) if free else None

    def _send(self, pending: Pending, link: Link) -> None:
        draft = pending.draft
        pub = Pub(
            ref=pending.number, channel=draft.channel, data=draft.data, kind=draft.kind, id=draft.id, trace=draft.trace
        )
        try:
            raw = link.encode(pub)
        except LocalWireError as problem:
            self._reject(pending, "bad-data", str(problem))
            return
        if link.bytes_max and len(raw) > link.bytes_max:
            self._reject(pending, "too-large", f"{len(raw)} bytes, the gateway takes at most {link.bytes_max}")
            return
        self._sent[link.number, pending.number] = pending
        pending.link, pending.was_sent = link, True
        link.in_flight += 1
        _, count = self._channels.get(draft.channel, (link, 0))
        self._channels[draft.channel] = (link, count + 1)
        self._metrics.tries += 1
        link.send_raw(raw)

    def _count_out(self, pending: Pending) -> None:
        """It is under way no more."""
        link, channel = pending.link, pending.draft.channel
        pending.link = None
        if link is None:
            return
        link.in_flight -= 1
        found, count = self._channels[channel]
        if count == 1:
            del self._channels[channel]
        else:
            self._channels[channel] = (found, count - 1)
        if self._unsent:
            self._loop.call_soon(self._flush)

    def _drop(self, pending: Pending) -> None:
        """Its caller waits no more. What was sent keeps its count until it is answered or its connection ends."""
        if not pending.was_sent or pending.link is None:
            with suppress(ValueError):
                self._unsent.remove(pending)

    def _refused(self, pending: Pending, problem: Problem) -> None:
        if problem.why in PASSING or problem.after_s > 0.0:
            # What it says of one holds for the next as well, and those behind it are not to overtake it.
            self._send_again([pending])
            if self._pause is None:
                self._pause = self._loop.call_later(problem.after_s or AGAIN_S, self._go_on)
        else:
            self._reject(pending, problem.why, problem.happened)

    def _go_on(self) -> None:
        self._pause = None
        self._flush()

    def _send_again(self, found: list[Pending]) -> None:
        waiting = [each for each in [*found, *self._unsent] if not each.answer.done()]
        self._unsent = deque(sorted(waiting, key=lambda each: each.number))

    def _reject(self, pending: Pending, why: str, happened: str) -> None:
        kind = Forbidden if why == "forbidden" else ChannelRefused
        if not pending.answer.done():
            pending.answer.set_exception(kind(f"publish to {pending.draft.channel}", why, happened))
