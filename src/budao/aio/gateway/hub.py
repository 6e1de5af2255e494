"""Channels, their readers, and what goes to whom.

A reader of a channel either *flows* or *lags*. Who flows is at the head by definition: there is nothing to remember of it, and a
message costs it one `write`. Who lags has a place, and gets what follows in pieces: from the ring of the channel, or from the log
where the ring no longer reaches; where the log has told it more than the feed has told us, it waits for the feed. It lags while it is held (its transport is full, health parked it, it is not welcomed yet), and
until it has caught up. How long it may lag is bounded in bytes by the policy of the channel.

The hub waits for nothing: `follow`, `read` and `later` are handed in by `feeding.py`, which calls back `followed`, `not_followed`,
`have_read`, `could_not_read` and `turn`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from budao.aio.gateway.channel import LEFT, Channel, Done, Lag, Waiting
from budao.aio.gateway.connection import Connection
from budao.aio.gateway.metrics import GatewayMetrics
from budao.aio.gateway.policy import GatewayPolicy
from budao.aio.gateway.sending import SendAll, send
from budao.model import Wall
from budao.push import (
    START,
    Appended,
    ChannelRules,
    Gap,
    Hole,
    Jumped,
    Message,
    Missing,
    Position,
    Problem,
    Recent,
    Ring,
    Slow,
    Stretch,
    bridge,
    follows,
)

if TYPE_CHECKING:
    from budao.aio.gateway.encoding import Encoding

EARLY_MAX: Final = 10_000
"""Messages told of a channel before its beginning is known."""
OVERHEAD_BYTES: Final = 64
REPLAYS_MAX: Final = 16


class Hub:
    """All channels of a gateway."""

    def __init__(
        self,
        policy: GatewayPolicy,
        rules: ChannelRules,
        metrics: GatewayMetrics,
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.policy = policy
        self.rules = rules
        self.metrics = metrics
        self.now = now
        self.wall = wall
        self.channels: dict[str, Channel] = {}
        self.idle: dict[Channel, None] = {}
        self.follow: Callable[[Channel], None] = lambda _: None
        """Ask the log where a channel stands, and to tell of it."""
        self.unfollow: Callable[[Channel], None] = lambda _: None
        self.read: Callable[[Channel, Position], None] = lambda _, __: None
        """Ask the log for what follows a place."""
        self.later: Callable[[], None] = lambda: None
        """Call `turn` in the next turn of the loop."""
        self.delivered: Callable[[Channel, Sequence[Recent], int], None] | None = None
        """Told after messages went to so many readers: the seam of traces."""
        self.send_all: SendAll | None = None
        """How many are sent to directly; None where everything goes through the transports."""
        self._is_sending = False
        self._held: list[Connection] = []
        """Those who became full while a message was on its way to everybody."""
        self._refusing: list[tuple[Callable[[bytes], None], Exception]] = []
        """Those whose transport did not take it."""
        self._turns: dict[Connection, None] = {}
        self._replays: dict[tuple[Channel, Encoding, Position, Position, int], tuple[int, Recent, bytes]] = {}
        """What was told of the past since the latest sweep, a few pieces of it."""
        self._pausing: dict[tuple[Connection, Channel], None] = {}
        """Those whom the log told nothing new."""
        self._reading: dict[tuple[Channel, Position], dict[Connection, Lag]] = {}

    # ------------------------------------------------------------------------------------------- who reads what

    def join(
        self,
        connection: Connection,
        name: str,
        after: Position | None,
        last: int,
        done: Done,
        *,
        is_standing: bool = False,
    ) -> Position | Problem | None:
        """Begins to deliver a channel after a place. The value is where it begins, or why not; None if `done` says so later.

        Nothing is written here: `release` or `catch_up` sends what follows the place.
        """
        channel = self.channels.get(name)
        if channel is None:
            if len(self.channels) >= self.policy.channels_max and not self._make_room():
                happened = f"this gateway follows {self.policy.channels_max} channels, and that is its bound"
                return Problem(why="full", happened=happened, after_s=5.0)
            channel = self.channels[name] = Channel(name, self.rules.of(name))
            self.follow(channel)
        if channel in connection.places or connection in channel.waiting:
            self.leave_one(connection, name)
        self.idle.pop(channel, None)
        channel.idle_since = None
        if channel.ring is None:
            channel.waiting[connection] = Waiting(after, last, is_standing, done)
            return None
        return self._begin(channel, channel.ring, connection, after, last, is_standing=is_standing)

    def leave_one(self, connection: Connection, name: str) -> None:
        """Delivers a channel no longer."""
        channel = self.channels.get(name)
        if channel is not None:
            if channel in connection.places:
                self._leave(connection, channel, connection.places.pop(channel))
            wish = channel.waiting.pop(connection, None)
            self._look(channel)
            if wish is not None:
                wish.done(LEFT)

    def leave(self, connection: Connection) -> None:
        """Delivers nothing any more."""
        self._turns.pop(connection, None)
        places = connection.places
        if places:
            connection.places = {}
            for channel, lag in places.items():
                self._leave(connection, channel, lag)
                self._look(channel)

    def hold(self, connection: Connection, bit: int) -> None:
        """From now on only its places are remembered."""
        was = connection.holds
        connection.holds = was | bit
        if was:
            return
        if self._is_sending:
            self._held.append(connection)
        else:
            self._stop(connection)

    def release(self, connection: Connection, bit: int, write: Callable[[bytes], object] | None = None) -> None:
        """Goes on, unless something else holds it: it catches up, and flows."""
        connection.holds &= ~bit
        if not connection.holds:
            self.catch_up(connection, write)

    def catch_up(self, connection: Connection, write: Callable[[bytes], object] | None = None) -> None:
        """Sends what follows its places, about `catch_up_bytes`; the rest comes in the next turn."""
        if connection.is_over or connection.holds:
            return
        budget = self.policy.catch_up_bytes
        for channel, lag in tuple(connection.places.items()):
            if lag is not None and not (lag.is_reading or lag.is_standing or connection in channel.ahead):
                budget = self._pump(connection, channel, lag, connection.write if write is None else write, budget)
                if budget <= 0:
                    if budget == 0:
                        self._turns[connection] = None
                        self.later()
                    return

    def turn(self) -> None:
        """Goes on with those who are catching up."""
        spent = self.policy.step_bytes_max
        for connection in tuple(self._turns):
            del self._turns[connection]
            self._try(connection)
            spent -= self.policy.catch_up_bytes
            if spent <= 0:
                break
        if self._turns:
            self.later()

    def _try(self, connection: Connection) -> None:
        try:
            self.catch_up(connection)
        except Exception as problem:  # noqa: BLE001 - the others go on
            connection.gateway.mistake(connection, problem)

    def _catch_up_all(self, connections: Iterable[Connection]) -> None:
        """As many as one turn of the loop allows; the others in the next ones."""
        spent = self.policy.step_bytes_max
        for connection in tuple(connections):
            if spent > 0:
                self._try(connection)
                spent -= self.policy.catch_up_bytes
            else:
                self._turns[connection] = None
        if self._turns:
            self.later()

    def sweep(self) -> None:
        """Lets go of channels that nobody has read for a while."""
        self._replays.clear()
        until = self.now() - self.policy.linger_s
        for channel in tuple(self.idle):
            if channel.idle_since is not None and channel.idle_since <= until:
                self._drop(channel)

    # ------------------------------------------------------------------------------------------------- the news

    def parts(self, news: Appended) -> Iterator[tuple[Message, ...]]:
        """News in pieces, each of which may be sent to all readers in one go."""
        channel = self.channels.get(news.channel)
        messages = news.messages
        bound = self.policy.write_high_bytes
        if channel is not None and (readers := channel.readers):
            bound = min(bound, self.policy.step_bytes_max // readers)
        begin = size = 0
        for index, message in enumerate(messages):
            more = len(message.data) + OVERHEAD_BYTES
            if size + more > bound and index > begin:
                yield messages[begin:index]
                begin, size = index, 0
            size += more
        if begin < len(messages):
            yield messages[begin:] if begin else messages

    def append(self, name: str, messages: Sequence[Message]) -> int:
        """Messages of a channel: to everybody who flows. The value is how many bytes were handed out."""
        channel = self.channels.get(name)
        if channel is None:
            return 0
        ring = channel.ring
        if ring is None:
            if channel.early_count < EARLY_MAX:  # what is left out is read from the log once something follows it
                channel.early_count += len(messages)
                channel.early.append(messages)
            return 0
        if not follows(ring.head, messages[0].position):
            messages = self._mend(channel, ring, messages)
            if not messages:
                return 0
        kept = ring.append(messages)
        channel.told_at = self.now()
        spent = 0
        if channel.flowing:
            readers, spent = self._fan_out(channel, kept)
            took_s = self.wall() - messages[0].at
            self.metrics.publish_to_deliver.record_s(max(0.0, took_s))
            if self.delivered is not None:
                self.delivered(channel, kept, readers)
        if channel.ahead:
            self._meet(channel, ring)
        if channel.lagging and ring.total_bytes - channel.least_mark > channel.policy.behind_bytes_max:
            self._judge(channel, ring)
        return spent

    def jumped(self, news: Jumped) -> None:
        """What lies between the head and another place cannot be told any more: those who flow hear of it at once."""
        channel = self.channels.get(news.channel)
        if channel is None or channel.ring is None:
            return
        gap = Gap(channel.name, channel.ring.head, news.head, news.why)
        if gap.after == gap.upto:
            return
        channel.ring.jump(news.head)
        channel.told_at = self.now()
        self._is_sending = True
        for encoding, writers in channel.flowing.items():
            send(writers, encoding.frame(Missing(gap)), self.send_all, self._refused)
            self.metrics.gaps[gap.why.value] += len(writers)
        self._is_sending = False
        self._stop_held()
        self._end_refusing(channel)
        self._meet(channel, channel.ring)

    def followed(self, channel: Channel, stretch: Stretch) -> None:
        """The log says where a channel stands, and has begun to tell of it."""
        found = self.channels.get(channel.name)
        if found is not channel:
            if found is None:  # else the name is followed for somebody who came since
                self.unfollow(channel)
            return
        policy = self.policy
        first = stretch.messages[0].position if stretch.messages else None
        begin = stretch.head if first is None else Position(first.epoch, first.seq - 1)
        ring = Ring(begin, count_max=policy.recent_count, bytes_max=policy.recent_bytes)
        ring.append(stretch.messages)
        before, channel.ring = channel.ring, ring
        channel.least_mark = 0
        if before is not None:  # the feed began anew: whoever flowed goes on from where it was
            self._break_off(channel, before.head, only_if_not=ring.head)
            for lag in channel.lagging.values():
                lag.mark = ring.total_bytes
        early, channel.early = channel.early, []
        for run in early:
            self.append(channel.name, run)
        waiting, channel.waiting = channel.waiting, {}
        for connection, wish in waiting.items():
            if not connection.is_over:
                place = self._begin(channel, ring, connection, wish.after, wish.last, is_standing=wish.is_standing)
                _answer(connection, wish, place)
        self._meet(channel, ring)
        self._catch_up_all(channel.lagging)
        self._look(channel)

    def not_followed(self, channel: Channel, problem: Problem) -> None:
        """The log does not say where a channel stands: whoever waits for it is told."""
        if channel.ring is None and self.channels.get(channel.name) is channel:
            del self.channels[channel.name]
            self.idle.pop(channel, None)
        waiting, channel.waiting = channel.waiting, {}
        for connection, wish in waiting.items():
            _answer(connection, wish, problem)

    def have_read(self, channel: Channel, place: Position, stretch: Stretch) -> bool:
        """What the log retains after a place: for all who asked. The value is whether some got no further by it.

        Those are to ask again after a pause, at `ask_again`.
        """
        ring = channel.ring
        kept = [Recent(message, 0) for message in stretch.messages]
        size = sum(len(message.data) + OVERHEAD_BYTES for message in stretch.messages)
        gap = None if stretch.head == START else bridge(place, stretch)
        spent = self.policy.step_bytes_max
        made: dict[Encoding, bytes] = {}
        for connection, lag in self._reading.pop((channel, place), {}).items():
            lag.is_reading = False
            if connection.is_over or connection.places.get(channel) is not lag or ring is None:
                continue
            if connection.holds or lag.place != place:  # it is read again when it goes on
                if not connection.holds:
                    self._try(connection)
                continue
            if spent <= 0:  # others had what one turn may take: it asks again
                self._turns[connection] = None
                continue
            try:
                spent -= self._hand_over(connection, lag, gap, kept, made)
            except Exception as problem:  # noqa: BLE001 - the others go on
                connection.gateway.mistake(connection, problem)
                continue
            lag.mark = min(ring.total_bytes, lag.mark + size)
            if stretch.head == START or (_is_ahead(lag.place, ring.head) and not stretch.more):
                channel.ahead[connection] = lag
            elif lag.place == place:  # the log and our feed are not in the same life: one of them will say so
                channel.ahead[connection] = lag
                self._pausing[connection, channel] = None
            elif not connection.holds:
                self._turns[connection] = None
        if self._turns:
            self.later()
        return bool(self._pausing)

    def _hand_over(
        self, connection: Connection, lag: Lag, gap: Gap | None, kept: list[Recent], made: dict[Encoding, bytes]
    ) -> int:
        """What was read, to one who asked, put together once for each encoding. The value is its bytes."""
        if gap is not None:
            self._tell(connection, gap, connection.write)
            lag.place = gap.upto
        if not kept:
            return 0
        data = made.get(connection.encoding)
        if data is None:
            data = made[connection.encoding] = connection.encoding.messages(kept)
        connection.write(data)
        self._count(connection, len(kept), len(data))
        lag.place = kept[-1].message.position
        return len(data)

    def ask_again(self) -> None:
        """The pause is over."""
        pausing, self._pausing = self._pausing, {}
        for connection, channel in pausing:
            if channel.ahead.pop(connection, None) is not None:
                self._turns[connection] = None
        if self._turns:
            self.later()

    def could_not_read(self, channel: Channel, place: Position) -> None:
        """The log did not answer: they try again in the next turn."""
        for connection, lag in self._reading.pop((channel, place), {}).items():
            lag.is_reading = False
            self._turns[connection] = None

    # --------------------------------------------------------------------------------------------------- inside

    def _begin(
        self,
        channel: Channel,
        ring: Ring,
        connection: Connection,
        after: Position | None,
        last: int,
        *,
        is_standing: bool,
    ) -> Position:
        place = after
        if place is None:
            policy = channel.policy
            count = min(last or policy.begins_with, policy.history_count)
            place = ring.before_last(count, since=Wall(self.wall() - policy.history_age_s)) if count else ring.head
        if place == ring.head and not connection.holds and not is_standing:
            self._flow(connection, channel)
        else:
            mark = ring.mark_at(place) if ring.covers(place) else ring.total_bytes
            lag = Lag(place, mark)
            lag.is_standing = is_standing
            self._lag(connection, channel, lag)
        return place

    def _flow(self, connection: Connection, channel: Channel) -> None:
        connection.places[channel] = None
        channel.lagging.pop(connection, None)
        writers = channel.flowing.get(connection.encoding)
        if writers is None:
            writers = channel.flowing[connection.encoding] = {}
        writers[connection] = connection.write

    def _lag(self, connection: Connection, channel: Channel, lag: Lag) -> None:
        connection.places[channel] = lag
        if not channel.lagging or lag.mark < channel.least_mark:
            channel.least_mark = lag.mark
        channel.lagging[connection] = lag

    def _unflow(self, connection: Connection, channel: Channel) -> None:
        writers = channel.flowing.get(connection.encoding)
        if writers is not None:
            writers.pop(connection, None)
            if not writers:
                del channel.flowing[connection.encoding]

    def _stop(self, connection: Connection) -> None:
        for channel, lag in connection.places.items():
            if lag is None:
                ring = channel.ring
                assert ring is not None, "who flows has a channel that is known"
                self._unflow(connection, channel)
                self._lag(connection, channel, Lag(ring.head, ring.total_bytes))

    def _stop_held(self) -> None:
        held, self._held = self._held, []
        for connection in held:
            if connection.holds:
                self._stop(connection)

    def _leave(self, connection: Connection, channel: Channel, lag: Lag | None) -> None:
        if lag is None:
            self._unflow(connection, channel)
        else:
            channel.lagging.pop(connection, None)
            channel.ahead.pop(connection, None)

    def _look(self, channel: Channel) -> None:
        if channel.is_idle and channel.idle_since is None:
            channel.idle_since = self.now()
            self.idle[channel] = None

    def _make_room(self) -> bool:
        for channel in self.idle:
            self._drop(channel)
            return True
        return False

    def _drop(self, channel: Channel) -> None:
        self.idle.pop(channel, None)
        self.channels.pop(channel.name, None)
        self.unfollow(channel)

    def _pump(
        self, connection: Connection, channel: Channel, lag: Lag, write: Callable[[bytes], object], budget: int
    ) -> int:
        """The value is what is left of the budget; below 0 if it can take nothing more for now."""
        ring = channel.ring
        assert ring is not None, "who lags has a channel that is known"
        if lag.missing is not None:
            gap = Gap(channel.name, lag.missing, lag.place, Hole.SLOW)
            lag.missing = None
            self._tell(connection, gap, write)
        while budget > 0 and not connection.holds:
            if not ring.covers(lag.place):
                self._ask(connection, channel, lag)
                return budget
            if lag.place.seq == ring.head.seq:  # which it covers
                self._flow(connection, channel)
                return budget
            count, last, data = self._replay(channel, ring, connection.encoding, lag.place, budget)
            write(data)
            self._count(connection, count, len(data))
            lag.place = last.message.position
            lag.mark = last.total_bytes
            budget = max(0, budget - len(data))
        return -1 if connection.holds else budget

    def _replay(
        self, channel: Channel, ring: Ring, encoding: Encoding, place: Position, bytes_max: int
    ) -> tuple[int, Recent, bytes]:
        """What follows a place: how many, the last one, and their bytes. Those who were cut off together ask for the same."""
        key = (channel, encoding, place, ring.head, bytes_max)
        found = self._replays.get(key)
        if found is None:
            kept = ring.after(place, bytes_max)
            found = len(kept), kept[-1], encoding.messages(kept)
            if len(self._replays) >= REPLAYS_MAX:
                self._replays.clear()
            self._replays[key] = found
        return found

    def _ask(self, connection: Connection, channel: Channel, lag: Lag) -> None:
        lag.is_reading = True
        asked = self._reading.get((channel, lag.place))
        if asked is not None:
            asked[connection] = lag
            return
        self._reading[channel, lag.place] = {connection: lag}
        self.read(channel, lag.place)

    def _meet(self, channel: Channel, ring: Ring) -> None:
        """The feed has come to where some readers wait for it, or has gone elsewhere."""
        for connection, lag in tuple(channel.ahead.items()):
            if (
                connection.places.get(channel) is not lag
                or lag.place.epoch != ring.head.epoch
                or ring.covers(lag.place)
            ):
                del channel.ahead[connection]
                if connection.places.get(channel) is lag:
                    self._try(connection)

    def _tell(self, connection: Connection, gap: Gap, write: Callable[[bytes], object]) -> None:
        self.metrics.count_gap(gap.why.value)
        write(connection.encoding.frame(Missing(gap)))

    def _count(self, connection: Connection, count: int, size: int) -> None:
        counted = self.metrics.transports[connection.encoding.transport]
        counted.deliveries += count
        counted.bytes_out += size

    def _fan_out(self, channel: Channel, kept: Sequence[Recent]) -> tuple[int, int]:
        """To everybody who flows. The value is how many they are, and how many bytes that was."""
        self._is_sending = True
        readers = spent = 0
        transports = self.metrics.transports
        for encoding, writers in channel.flowing.items():
            try:
                data = encoding.messages(kept)
            except Exception as problem:  # noqa: BLE001 - whoever reads it ends, and so is left without a silent hole
                self._refusing += [(write, problem) for write in writers.values()]
                continue
            send(writers, data, self.send_all, self._refused)
            count = len(writers)
            readers += count
            spent += count * len(data)
            counted = transports[encoding.transport]
            counted.deliveries += count * len(kept)
            counted.bytes_out += count * len(data)
        self._is_sending = False
        if self._held:
            self._stop_held()
        if self._refusing:
            self._end_refusing(channel)
        return readers, spent

    def _refused(self, write: Callable[[bytes], None], problem: Exception) -> None:
        self._refusing.append((write, problem))

    def _end_refusing(self, channel: Channel) -> None:
        """Whoever flows and was not sent something would miss it unnoticed; ended, it comes back for it."""
        refusing, self._refusing = self._refusing, []
        problems = {id(write): problem for write, problem in refusing}
        for writers in tuple(channel.flowing.values()) if problems else ():
            for connection, write in tuple(writers.items()):
                if id(write) in problems:
                    connection.gateway.mistake(connection, problems[id(write)])

    def _mend(self, channel: Channel, ring: Ring, messages: Sequence[Message]) -> Sequence[Message]:
        """News that do not follow the head: what was told already is dropped; who flows reads what is missing from the log."""
        head = ring.head
        news = [each for each in messages if not (each.position.epoch == head.epoch and each.position.seq <= head.seq)]
        for before, after in pairwise(news):
            assert follows(before.position, after.position), "a feed tells messages without holes"
        if news and not follows(head, news[0].position):
            first = news[0].position
            ring.jump(Position(first.epoch, first.seq - 1))
            self._break_off(channel, head, only_if_not=ring.head)
            self._catch_up_all(channel.lagging)
        return news

    def _break_off(self, channel: Channel, place: Position, *, only_if_not: Position) -> None:
        """Everybody who flows lags from a place on, unless that is where the channel stands anyway."""
        if place == only_if_not or (place == START and only_if_not.seq == 0):
            return
        ring = channel.ring
        assert ring is not None, "who flows has a channel that is known"
        for writers in tuple(channel.flowing.values()):
            for connection in tuple(writers):
                self._unflow(connection, channel)
                self._lag(connection, channel, Lag(place, ring.total_bytes))

    def _judge(self, channel: Channel, ring: Ring) -> None:
        """Whoever is too far behind is treated as the channel's policy says."""
        policy = channel.policy
        bound = ring.total_bytes - policy.behind_bytes_max
        least = ring.total_bytes
        for connection, lag in tuple(channel.lagging.items()):
            if lag.is_standing:
                continue
            if _is_ahead(lag.place, ring.head):  # it waits for us
                lag.mark = ring.total_bytes
            elif ring.covers(lag.place):  # it may have been ahead: then its old mark is not what it lacks
                lag.mark = max(lag.mark, ring.mark_at(lag.place))
            if lag.mark >= bound:
                least = min(least, lag.mark)
            elif policy.slow is Slow.CLOSE:
                connection.close("slow", detail=f"more than {policy.behind_bytes_max} bytes behind in {channel.name}")
            else:
                latest = ring.before_last(1)
                if lag.missing is None and lag.place != latest:
                    lag.missing = lag.place
                lag.place = latest
                lag.mark = ring.mark_at(lag.place)
                least = min(least, lag.mark)
                if not connection.holds:  # it was reading the log, which is slower than the channel grows
                    self.catch_up(connection)
        channel.least_mark = least


def _answer(connection: Connection, wish: Waiting, found: Position | Problem) -> None:
    """A mistake with one of them keeps nobody else waiting."""
    try:
        wish.done(found)
    except Exception as problem:  # noqa: BLE001 - told to the gateway
        connection.gateway.mistake(connection, problem)


def _is_ahead(place: Position, head: Position) -> bool:
    """Whether a place lies before us in the same life; any place does where no life has begun."""
    return place.seq > head.seq and (place.epoch == head.epoch or head == START)
