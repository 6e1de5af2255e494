"""What a log of channels holds, and what publishing does to it: the meaning that every log of ours has."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from budao.model import Checks, RemoteWireError, Wall
from budao.push.channel_policy import ChannelPolicy
from budao.push.errors import LogRefused
from budao.push.message import START, Appended, Draft, Message, NotPlaced, Placed, Position, Stretch
from budao.push.names import check_channel
from budao.push.rules import ChannelRules

MIB: Final = 1024 * 1024
ID_BYTES_MAX: Final = 200
TRACE_BYTES_MAX: Final = 200
WEIGHT_BYTES: Final = 256
"""What a message takes beside its data, roughly, where all of them together are bounded."""
SWEPT_MAX: Final = 1_000
"""Channels looked through for what is too old, each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookPolicy:
    """What all channels together may take. What one of them keeps is in its `ChannelPolicy`.

    Raises:  BadSettings with every problem.
    """

    channels_max: int = 100_000
    """Beyond it, the channel that was idle longest is forgotten: when it is published to again, it begins a new life."""
    idle_s: float = 60.0
    """A channel that was published to within this span is not forgotten; a new one beyond the bound is refused then."""
    bytes_max: int = 512 * MIB
    """Messages retained, with 256 bytes for each beside its data. Beyond it, the channels that were idle longest lose theirs."""
    ids_max: int = 250_000
    """Ids remembered, of all channels."""
    ids_age_s: float = 120.0
    """How long an id is remembered: publishing it again within this span is the same message."""

    def __post_init__(self) -> None:
        check = Checks("log")
        check.count("channels_max", self.channels_max, 1)
        check.number("idle_s", self.idle_s, 0.0, 86_400.0)
        check.count("bytes_max", self.bytes_max, 32 * MIB, 1024 * 1024 * MIB)
        check.count("ids_max", self.ids_max, 0, 100_000_000)
        check.number("ids_age_s", self.ids_age_s, 0.0, 86_400.0)
        check.done()


@dataclass(frozen=True, slots=True)
class Prepared:
    """What publishing would do, worked out and not done."""

    answers: tuple[Placed | NotPlaced, ...]
    """One for each draft, in order."""
    appended: tuple[Appended, ...]
    """What is new, by channel."""
    ids: tuple[tuple[str, str, Position], ...]
    """Channel, id and place of what is new and has an id."""
    forgotten: tuple[str, ...]
    """Channels that make room for new ones."""
    at: Wall
    turn: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A channel, as a plain value."""

    channel: str
    head: Position
    at: Wall
    """When it was published to last."""
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class KnownId:
    """An id that is remembered."""

    channel: str
    id: str
    position: Position
    at: Wall


class Book:
    """Holds channels and their messages. Reading never changes it.

    `prepare` refuses a draft or says where it goes, and changes nothing; what was prepared is carried out without fail, and
    carried out again by `replay` it gives the same book: a journal of what was appended is a copy of it. What it forgets for
    age, count or size is not in a journal: the same bounds forget it again.

    Units:   bounds are in `BookPolicy` and in the rules; instants are Unix seconds.
    Cost:    2 µs for a message that is appended; reading costs what is read.
    """

    def __init__(self, rules: ChannelRules | None = None, policy: BookPolicy | None = None) -> None:
        self.rules = ChannelRules() if rules is None else rules
        self.policy = BookPolicy() if policy is None else policy
        self.bytes = 0
        """What the retained messages take."""
        self._lives: OrderedDict[str, _Life] = OrderedDict()
        """By channel, the one that was idle longest first."""
        self._ids: OrderedDict[tuple[str, str], tuple[Position, Wall]] = OrderedDict()
        self._turn = 0
        self._sweep: Iterator[str] = iter(())

    def __len__(self) -> int:
        return len(self._lives)

    # ---------------------------------------------------------------------------------------------- publishing

    def prepare(self, drafts: Iterable[Draft], now: Wall, epoch: str) -> Prepared:
        """Says for each draft where it goes, or why it does not. `epoch` is for channels that begin a life now.

        It must never have been given before.
        """
        runs: dict[str, list[Message]] = {}
        made: dict[tuple[str, str], Position] = {}
        answers: list[Placed | NotPlaced] = []
        forgotten: dict[str, None] = {}
        idle: Iterator[tuple[str, _Life]] | None = None
        begun = 0
        for draft in drafts:
            channel, name = draft.channel, draft.id
            life = self._lives.get(channel) if channel not in forgotten else None
            problem = self._problem(draft, life)
            if problem is not None:
                answers.append(problem)
                continue
            if name is not None:
                before = made.get((channel, name)) or self._placed(channel, name, now)
                if before is not None:
                    answers.append(Placed(before, is_repeat=True))
                    continue
            run = runs.get(channel)
            if run is not None:
                last = run[-1].position
                position = Position(last.epoch, last.seq + 1)
            elif life is not None:
                position = Position(life.epoch, life.head + 1)
            else:
                if len(self._lives) - len(forgotten) + begun >= self.policy.channels_max:
                    if idle is None:
                        idle = iter(self._lives.items())
                    victim = self._idlest(idle, runs, now)
                    if victim is None:
                        bound = f"{self.policy.channels_max} channels are in use, and that is the bound"
                        answers.append(NotPlaced("no-room", bound))
                        continue
                    forgotten[victim] = None
                begun += 1
                position = Position(epoch, 1)
            message = Message(channel, position, draft.data, draft.kind, now, name, draft.trace)
            if run is None:
                runs[channel] = [message]
            else:
                run.append(message)
            if name is not None:
                made[channel, name] = position
            answers.append(Placed(position))
        appended = tuple(Appended(channel, tuple(run)) for channel, run in runs.items())
        ids = tuple((channel, name, position) for (channel, name), position in made.items())
        return Prepared(tuple(answers), appended, ids, tuple(forgotten), now, self._turn)

    def carry_out(self, prepared: Prepared) -> tuple[Placed | NotPlaced, ...]:
        """Does what was prepared, and gives its answers."""
        assert prepared.turn == self._turn, "something else was carried out in between"
        if not prepared.appended:
            return prepared.answers
        self._turn += 1
        for channel in prepared.forgotten:
            self._forget(channel)
        for run in prepared.appended:
            self._append(run, prepared.at)
        for channel, name, position in prepared.ids:
            self._remember(channel, name, position, prepared.at)
        self._make_room()
        return prepared.answers

    def publish(self, drafts: Iterable[Draft], now: Wall, epoch: str) -> Prepared:
        """Prepares drafts and carries them out."""
        prepared = self.prepare(drafts, now, epoch)
        self.carry_out(prepared)
        return prepared

    # ------------------------------------------------------------------------------------------------- reading

    def head(self, channel: str) -> Position:
        """Where a channel stands; START if nothing is known of it."""
        life = self._lives.get(channel)
        return START if life is None else Position(life.epoch, life.head)

    def read(
        self, channel: str, after: Position, now: Wall, *, count_max: int = 1_000, bytes_max: int = MIB
    ) -> Stretch:
        """What is retained after a place, oldest first. At least one message if there is one, whatever its size.

        A place of another epoch, or beyond the head, is answered with the retained messages from the first one on.
        """
        life = self._lives.get(channel)
        if life is None:
            return Stretch(channel, START, ())
        first = life.first_at(now)
        begin = max(first, after.seq + 1) if after.epoch == life.epoch and after.seq <= life.head else first
        return self._stretch(channel, life, begin, count_max, bytes_max)

    def latest(self, channel: str, count: int, now: Wall) -> Stretch:
        """Up to `count` of the latest messages, oldest first, which end at the head."""
        life = self._lives.get(channel)
        if life is None:
            return Stretch(channel, START, ())
        begin = max(life.first_at(now), life.head + 1 - max(count, 0))
        messages = tuple(map(life.messages.__getitem__, range(begin, life.head + 1)))
        return Stretch(channel, Position(life.epoch, life.head), messages)

    def _stretch(self, channel: str, life: _Life, begin: int, count_max: int, bytes_max: int) -> Stretch:
        end = min(life.head + 1, begin + max(count_max, 1))
        messages: list[Message] = []
        size = 0
        for seq in range(begin, end):
            message = life.messages[seq]
            size += len(message.data)
            if size > bytes_max and messages:
                break
            messages.append(message)
        more = begin + len(messages) <= life.head
        return Stretch(channel, Position(life.epoch, life.head), tuple(messages), more)

    # ---------------------------------------------------------------------------------------- time and settings

    def wake(self, now: Wall) -> None:
        """Lets go of what is too old: all ids, and the messages of the next thousand channels. To be called every second."""
        while self._ids:
            key, (_, at) = next(iter(self._ids.items()))
            if now - at < self.policy.ids_age_s and len(self._ids) <= self.policy.ids_max:
                break
            del self._ids[key]
        for _ in range(min(SWEPT_MAX, len(self._lives))):
            channel = next(self._sweep, None)
            if channel is None:
                self._sweep = iter(tuple(self._lives))
                break
            if (life := self._lives.get(channel)) is not None:
                self.bytes -= life.trim(now)

    def reconfigure(self, rules: ChannelRules, now: Wall) -> None:
        """Other rules, for all channels at once."""
        self.rules = rules
        for channel, life in self._lives.items():
            life.policy = rules.of(channel)
            self.bytes -= life.trim(now)

    # ------------------------------------------------------------------------------------- to be kept elsewhere

    def kept(self) -> tuple[Kept, ...]:
        """The channels, the one that was idle longest first. With `known_ids`, what `restore` needs."""
        return tuple(
            Kept(channel, Position(life.epoch, life.head), life.at, tuple(life.messages.values()))
            for channel, life in self._lives.items()
        )

    def known_ids(self) -> tuple[KnownId, ...]:
        """The ids remembered, oldest first."""
        return tuple(KnownId(channel, name, position, at) for (channel, name), (position, at) in self._ids.items())

    def restore(self, kept: Iterable[Kept], ids: Iterable[KnownId], now: Wall) -> None:
        """Fills an empty book.

        Raises:  LogRefused for what does not fit together.
        """
        assert not self._lives, "it is empty"
        for each in kept:
            seqs = range(each.head.seq - len(each.messages) + 1, each.head.seq + 1)
            expected = [(each.channel, Position(each.head.epoch, seq)) for seq in seqs]
            if [(message.channel, message.position) for message in each.messages] != expected:
                raise LogRefused("restore a log", f"the messages of {each.channel!a} do not end at {each.head}")
            life = _Life(each.head.epoch, each.head.seq, self.rules.of(each.channel), each.at)
            self._lives[each.channel] = life
            self.bytes += life.add(each.messages, each.at)
            self.bytes -= life.trim(now)
        for known in ids:
            self._remember(known.channel, known.id, known.position, known.at)
        self._make_room()

    def replay(self, run: Appended) -> None:
        """Appends what has been acknowledged before, whatever today's bounds say; then they hold again.

        Raises:  LogRefused if it does not follow what is there.
        """
        first = run.messages[0].position
        life = self._lives.get(run.channel)
        follows = life is None or (first.seq == (life.head + 1 if life.epoch == first.epoch else 1))
        seqs = range(first.seq, first.seq + len(run.messages))
        if not follows or [each.position for each in run.messages] != [Position(first.epoch, seq) for seq in seqs]:
            where = self.head(run.channel)
            raise LogRefused("replay a journal", f"{run.channel!a} stands at {where}, and {first} follows")
        at = run.messages[-1].at
        self._append(run, at)
        for message in run.messages:
            if message.id is not None:
                self._remember(run.channel, message.id, message.position, message.at)
        self._make_room()

    def begin_anew(self, epoch: str) -> None:
        """All channels begin a new life where they are, with what they retain: for a log that was restored from a backup.

        It gives places again that it had given before, to other messages. In another life whoever read those hears of a gap.
        """
        for (channel, name), (position, at) in self._ids.items():
            life = self._lives.get(channel)
            if life is not None and life.epoch == position.epoch:
                self._ids[channel, name] = (Position(epoch, position.seq), at)
        for life in self._lives.values():
            life.begin_anew(epoch)

    # ------------------------------------------------------------------------------------------------- helpers

    def _problem(self, draft: Draft, life: _Life | None) -> NotPlaced | None:
        if life is None:
            try:
                check_channel(draft.channel)
            except RemoteWireError as problem:
                return NotPlaced("bad-data", str(problem))
        bound = (self.rules.of(draft.channel) if life is None else life.policy).message_bytes_max
        if len(draft.data) > bound:
            happened = f"the data has {len(draft.data)} bytes, and {bound} are allowed in {draft.channel}"
            return NotPlaced("too-large", happened)
        for what, text, most in (("id", draft.id, ID_BYTES_MAX), ("trace", draft.trace, TRACE_BYTES_MAX)):
            if text is not None and not _is_short(text, most):
                return NotPlaced("bad-data", f"the {what} of a message is text of 1 to {most} bytes")
        return None

    def _placed(self, channel: str, name: str, now: Wall) -> Position | None:
        known = self._ids.get((channel, name))
        return None if known is None or now - known[1] >= self.policy.ids_age_s else known[0]

    def _remember(self, channel: str, name: str, position: Position, at: Wall) -> None:
        self._ids.pop((channel, name), None)  # an old one that was used again moves to the end
        self._ids[channel, name] = (position, at)
        if len(self._ids) > self.policy.ids_max:
            self._ids.popitem(last=False)

    def _idlest(self, idle: Iterator[tuple[str, _Life]], runs: dict[str, list[Message]], now: Wall) -> str | None:
        for channel, life in idle:
            if channel not in runs:
                return channel if now - life.at >= self.policy.idle_s else None
        return None

    def _forget(self, channel: str) -> None:
        life = self._lives.pop(channel)
        self.bytes -= life.weight

    def _append(self, run: Appended, at: Wall) -> None:
        channel, messages = run.channel, run.messages
        first = messages[0].position
        life = self._lives.get(channel)
        if life is not None and life.epoch != first.epoch:
            self._forget(channel)
            life = None
        if life is None:
            life = _Life(first.epoch, first.seq - 1, self.rules.of(channel), at)
            self._lives[channel] = life
        else:
            self._lives.move_to_end(channel)
        self.bytes += life.add(messages, at)
        self.bytes -= life.trim(at)

    def _make_room(self) -> None:
        """What is idle longest goes first. A channel that loses its messages keeps its count."""
        while len(self._lives) > self.policy.channels_max:
            self._forget(next(iter(self._lives)))
        if self.bytes > self.policy.bytes_max:
            for life in self._lives.values():
                self.bytes -= life.trim_by(self.bytes - self.policy.bytes_max)
                if self.bytes <= self.policy.bytes_max:
                    break


class _Life:
    """One life of a channel. Its messages are those from `first` to `head`, by their number."""

    __slots__ = ("at", "bytes", "epoch", "first", "head", "messages", "policy")

    def __init__(self, epoch: str, head: int, policy: ChannelPolicy, at: Wall) -> None:
        self.epoch = epoch
        self.head = head
        self.first = head + 1
        self.messages: dict[int, Message] = {}
        self.bytes = 0
        """Of their data."""
        self.policy = policy
        self.at = at

    @property
    def weight(self) -> int:
        return self.bytes + WEIGHT_BYTES * len(self.messages)

    def begin_anew(self, epoch: str) -> None:
        """The same messages, at the same places of another life."""
        self.epoch = epoch
        self.messages = {seq: replace(message, position=Position(epoch, seq)) for seq, message in self.messages.items()}

    def add(self, messages: Sequence[Message], at: Wall) -> int:
        """By how much its weight grew."""
        if not messages:
            return 0
        before = self.weight
        kept = self.messages
        if not kept:
            self.first = messages[0].position.seq
        for message in messages:
            kept[message.position.seq] = message
            self.bytes += len(message.data)
        self.head = messages[-1].position.seq
        self.at = at
        return self.weight - before

    def first_at(self, now: Wall) -> int:
        """The number of the first message that is not too old."""
        first, young = self.first, now - self.policy.history_age_s
        while first <= self.head and self.messages[first].at < young:
            first += 1
        return first

    def trim(self, now: Wall) -> int:
        """Lets go of what its policy does not keep; by how much its weight shrank."""
        before, policy, young = self.weight, self.policy, now - self.policy.history_age_s
        while self.first <= self.head and (
            len(self.messages) > policy.history_count
            or self.bytes > policy.history_bytes
            or self.messages[self.first].at < young
        ):
            self._drop()
        return before - self.weight

    def trim_by(self, weight: int) -> int:
        """Lets go of so much at least, if it holds so much; by how much its weight shrank."""
        before = self.weight
        while self.first <= self.head and before - self.weight < weight:
            self._drop()
        return before - self.weight

    def _drop(self) -> None:
        self.bytes -= len(self.messages.pop(self.first).data)
        self.first += 1


def _is_short(text: str, bound: int) -> bool:
    if text.isascii():
        return 0 < len(text) <= bound
    try:
        return len(text.encode()) <= bound
    except UnicodeEncodeError:  # half of a surrogate pair, which nothing can carry
        return False
