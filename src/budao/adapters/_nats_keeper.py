"""What a log asks of the stream: that it is there, heads of channels, single messages, and runs of them."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from binascii import Error as NoBase64
from collections.abc import Sequence
from typing import Any, Final

from budao.adapters import _nats_stream as stream
from budao.adapters._nats_link import Gone, NatsLink
from budao.model import RemoteWireError
from budao.push import ChannelRules, LogRefused, Position
from budao.wire import nats, nats_kept

ASK_S: Final = 2.0
"""How long one request of the API may take before it counts as lost."""
WALK_MAX: Final = 16
"""So many messages before a head are got one by one; for more, a consumer is made."""
SKIP_MAX: Final = 32
"""So many messages too many are read rather than searching further for where to begin."""
SEARCH_MAX: Final = 40
CONSUMERS_MAX: Final = 16
"""Consumers at the same time: to the server each is work, when a gateway begins with thousands of channels."""
CHUNK: Final = 64
NO_STREAM: Final = 10_059
NOT_ENABLED: Final = frozenset({10_039, 10_076})
"""Error codes: JetStream is not enabled, for this account or at all."""
FULL: Final = frozenset({10_023, 10_028, 10_047, 10_048, 10_077})
"""Error codes: the resources of the server, the account or the stream are used up."""
EXISTS: Final = 10_058
OVERLAPS: Final = 10_065


class ApiFailed(Exception):  # it is caught next door
    """The API answered with an error."""

    def __init__(self, code: int, number: int, description: str) -> None:
        super().__init__(description)
        self.code = code
        """As in HTTP."""
        self.number = number
        self.description = description


class Keeper:
    """The stream of one log, over one link.

    Raises:  Gone, TimeoutError, ApiFailed from everything here that asks.
    """

    def __init__(self, link: NatsLink, policy: stream.StreamPolicy, rules: ChannelRules) -> None:
        self.link = link
        self.policy = policy
        self.rules = rules
        self.replicas = policy.replicas
        self.created = ""
        """When the stream was made; another one under its name counts from 1 again."""
        self._consumers = asyncio.Semaphore(CONSUMERS_MAX)
        self._direct = f"$JS.API.DIRECT.GET.{policy.stream}"

    def subject(self, channel: str) -> str:
        """Where a channel is kept."""
        return self.policy.channels + nats_kept.token_of(channel)

    async def api(self, what: str, request: Any = None) -> dict[str, Any]:
        """One request of the JetStream API."""
        data = b"" if request is None else json.dumps(request, separators=(",", ":")).encode()
        return _answer(await self.link.request(f"$JS.API.{what}", data, timeout_s=ASK_S))

    # ------------------------------------------------------------------------------------------- the stream

    async def ensure(self) -> None:
        """Makes the stream, or sees that the one that is there will do.

        Raises:  LogRefused if it will not.
        """
        policy, tried = self.policy, f"use the stream {self.policy.stream}"
        if self.link.version < stream.OLDEST:
            raise LogRefused(tried, f"the server has version {self._version()}, and 2.9.0 or newer is needed")
        ours = stream.wanted(policy, self.rules)
        for _ in range(3):
            try:
                answer = await self.api(f"STREAM.INFO.{policy.stream}")
                found, self.created = answer["config"], str(answer.get("created", ""))
            except ApiFailed as failed:
                if failed.number in NOT_ENABLED:
                    raise LogRefused(tried, f"{failed.description}; start the servers with -js") from failed
                if failed.number != NO_STREAM:
                    raise
                self._check_serial(policy.replicas)
                try:
                    made = await self.api(f"STREAM.CREATE.{policy.stream}", ours)
                    self.created = str(made.get("created", ""))
                except ApiFailed as refused:
                    if refused.number == EXISTS:
                        continue
                    if refused.number == OVERLAPS or refused.code == 400:
                        raise LogRefused(f"make the stream {policy.stream}", refused.description) from refused
                    raise
                self.replicas = policy.replicas
                return
            if wrong := stream.contradictions(found, ours):
                advice = "; use another name and prefix, or set that stream up as is said here"
                raise LogRefused(tried, "it is there, and " + ", ".join(wrong) + advice)
            self.replicas = int(found.get("num_replicas", 1))
            self._check_serial(self.replicas)
            if (update := stream.grown(found, ours)) is not None:
                await self.api(f"STREAM.UPDATE.{policy.stream}", update)
            return

    def _check_serial(self, replicas: int) -> None:
        if replicas > 1 and self.link.version < stream.SERIAL_SINCE:
            raise LogRefused(
                f"use the stream {self.policy.stream} with {replicas} replicas",
                f"the server has version {self._version()}, and before 2.9.21 two messages published at once may get one "
                "number (nats-server#4320); use newer servers, or one replica",
            )

    def _version(self) -> str:
        return ".".join(map(str, self.link.version))

    # --------------------------------------------------------------------------------------------- messages

    async def head(self, channel: str) -> nats_kept.Kept | None:
        """The latest message of a channel; None if none is retained."""
        subject = self.subject(channel)
        if self.replicas == 1:
            return self._kept(channel, await self.link.request(f"{self._direct}.{subject}", b"", timeout_s=ASK_S))
        # A direct get may be answered by a replica that lags: only the leader knows the head.
        return await self._from_leader(channel, {"last_by_subj": subject})

    async def at(self, channel: str, sequence: int) -> nats_kept.Kept | None:
        """The message at a place of the stream, if it is one of this channel."""
        request = json.dumps({"seq": sequence}).encode()
        found = self._kept(channel, await self.link.request(self._direct, request, timeout_s=ASK_S))
        if found is None and self.replicas > 1:
            found = await self._from_leader(channel, {"seq": sequence})
        return found

    async def next_at(self, channel: str, sequence: int) -> nats_kept.Kept | None:
        """The first message of a channel at or behind a place of the stream."""
        request = {"seq": max(1, sequence), "next_by_subj": self.subject(channel)}
        if self.replicas > 1:
            return await self._from_leader(channel, request)
        return self._kept(channel, await self.link.request(self._direct, json.dumps(request).encode(), timeout_s=ASK_S))

    def _kept(self, channel: str, said: nats.Delivered) -> nats_kept.Kept | None:
        if said.status == nats.NOT_FOUND:
            return None
        if said.status:
            raise ApiFailed(said.status, 0, f"status {said.status}")
        headers = nats.parse_headers(said.headers)
        if headers.get("Nats-Subject") != self.subject(channel):
            return None
        return nats_kept.kept_of(channel, headers, said.data)

    async def _from_leader(self, channel: str, request: dict[str, Any]) -> nats_kept.Kept | None:
        try:
            found = (await self.api(f"STREAM.MSG.GET.{self.policy.stream}", request))["message"]
        except ApiFailed as failed:
            if failed.code == nats.NOT_FOUND and failed.number != NO_STREAM:
                return None
            raise
        try:
            if found["subject"] != self.subject(channel):
                return None
            headers, data = b64decode(found.get("hdrs", "")), b64decode(found.get("data", ""))
            return nats_kept.parse_kept(channel, headers, data, sequence=int(found["seq"]))
        except (KeyError, TypeError, ValueError, NoBase64) as problem:
            raise RemoteWireError(f"the leader of the stream answers {type(problem).__name__}") from problem

    # ------------------------------------------------------------------------------------------------- runs

    async def run(
        self, channel: str, head: nats_kept.Kept, begin: int, count_max: int, bytes_max: int, young: float
    ) -> list[nats_kept.Kept]:
        """What is retained from a number on up to the head, oldest first, within bounds: at least one message if there is one.

        `young` is the instant before which messages are too old.
        """
        if begin >= head.message.position.seq - WALK_MAX:
            found = await self._walk(channel, head, begin)
            return self._bounded(found, head, count_max, bytes_max, young)
        start = await self._search(channel, head, begin)
        if start is None:
            return []
        async with self._consumers:
            return await self._consume(channel, head, start, begin, count_max, bytes_max, young)

    async def _walk(self, channel: str, head: nats_kept.Kept, begin: int) -> list[nats_kept.Kept]:
        found = [head]
        while found[-1].message.position.seq > begin and found[-1].before:
            before = await self.at(channel, found[-1].before)
            if before is None or before.message.position.epoch != head.message.position.epoch:
                break
            found.append(before)
        found.reverse()
        return found if head.message.position.seq >= begin else []

    def _is_retained(self, kept: nats_kept.Kept, head: nats_kept.Kept, young: float) -> bool:
        """Whether the rules still keep it; the stream may keep more."""
        behind = head.total_bytes - kept.total_bytes + len(kept.message.data)
        policy = self.rules.of(kept.message.channel)
        return behind <= policy.history_bytes and kept.message.at >= young

    def _bounded(
        self, found: Sequence[nats_kept.Kept], head: nats_kept.Kept, count_max: int, bytes_max: int, young: float
    ) -> list[nats_kept.Kept]:
        taken: list[nats_kept.Kept] = []
        size = 0
        for kept in found:
            if not self._is_retained(kept, head, young):
                taken, size = [], 0  # what is older than one that is too old is so too
                continue
            size += len(kept.message.data)
            if len(taken) == count_max or (size > bytes_max and taken):
                break
            taken.append(kept)
        return taken

    async def _search(self, channel: str, head: nats_kept.Kept, begin: int) -> int | None:
        """A place of the stream from which on the messages from `begin` on are found, and few before them."""
        low = await self.next_at(channel, 1)
        if low is None:
            return None
        high = head.sequence
        high_seq = head.message.position.seq
        for _ in range(SEARCH_MAX):
            low_seq = low.message.position.seq
            if low_seq >= begin - SKIP_MAX or high - low.sequence <= 1:
                break
            share = (begin - low_seq) / (high_seq - low_seq)
            middle = low.sequence + min(max(1, int((high - low.sequence) * share)), high - low.sequence - 1)
            found = await self.next_at(channel, middle)
            if found is None:
                break
            if found.message.position.seq <= begin:
                low = found
            else:
                # Nothing of this channel lies between `middle` and what was found.
                high, high_seq = middle, found.message.position.seq
        return low.sequence

    async def _consume(
        self, channel: str, head: nats_kept.Kept, start: int, begin: int, count_max: int, bytes_max: int, young: float
    ) -> list[nats_kept.Kept]:
        name = self.policy.stream
        made = await self.api(
            f"CONSUMER.CREATE.{name}",
            {
                "stream_name": name,
                "config": {
                    "deliver_policy": "by_start_sequence",
                    "opt_start_seq": start,
                    "ack_policy": "none",
                    "replay_policy": "instant",
                    "filter_subject": self.subject(channel),
                    "inactive_threshold": 5 * stream.NANO,
                    "mem_storage": True,
                    "num_replicas": 1,
                },
            },
        )
        inbox, arrived = self.link.inbox(), asyncio.Queue[nats.Delivered]()
        sid = self.link.subscribe(inbox, arrived.put_nowait)
        consumer, connected = str(made["name"]), self.link.connected
        taken: list[nats_kept.Kept] = []
        size, epoch, last = 0, head.message.position.epoch, begin - 1
        try:
            while last < head.message.position.seq:
                batch = min(CHUNK, head.message.position.seq - last + SKIP_MAX)
                request = json.dumps({"batch": batch, "no_wait": True}).encode()
                self.link.post(f"$JS.API.CONSUMER.MSG.NEXT.{name}.{consumer}", request, reply=inbox)
                for _ in range(batch):
                    async with asyncio.timeout(ASK_S):
                        said = await arrived.get()
                    if said.status:
                        if said.status in {nats.NOT_FOUND, 408, 409} and connected == self.link.connected:
                            return taken
                        raise Gone(f"a consumer ended with status {said.status}", was_sent=True)
                    pending = said.reply.rpartition(".")[2]
                    kept = nats_kept.parse_kept(channel, said.headers, said.data, sequence=_sequence(said.reply))
                    position = kept.message.position
                    if position.epoch == epoch and last < position.seq <= head.message.position.seq:
                        if taken and position.seq != last + 1:
                            return taken  # somebody has deleted what lies between
                        last = position.seq
                        if self._is_retained(kept, head, young):
                            size += len(kept.message.data)
                            if len(taken) == count_max or (size > bytes_max and taken):
                                return taken
                            taken.append(kept)
                    if pending == "0" or last >= head.message.position.seq:
                        return taken
            return taken
        finally:
            self.link.unsubscribe(sid)
            self.link.post(f"$JS.API.CONSUMER.DELETE.{name}.{consumer}", b"")

    async def first_place(self, channel: str) -> Position | None:
        """The place before the first message that is retained; None if none is."""
        first = await self.next_at(channel, 1)
        if first is None:
            return None
        epoch, seq = first.message.position
        return Position(epoch, seq - 1)


def _sequence(reply: str) -> int:
    """The stream sequence in the subject to which a delivery would be acknowledged."""
    words = reply.split(".")
    # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>… or, from a server with domains, two words more at the front.
    word = words[5] if len(words) == 9 else words[7] if len(words) >= 11 else ""
    if not word.isdigit():
        raise RemoteWireError(f"a delivery without its place: {reply[:80]!r}")
    return int(word)


def parse_answer(data: bytes) -> dict[str, Any]:
    """JSON of the API, or of an acknowledgement.

    Raises:  ApiFailed, RemoteWireError.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise RemoteWireError("the API answers with something that is not JSON") from problem
    if not isinstance(answer, dict):
        raise RemoteWireError("the API answers with JSON that is no object")
    error = answer.get("error")
    if isinstance(error, dict):
        raise ApiFailed(
            int(error.get("code", 0)), int(error.get("err_code", 0)), str(error.get("description", ""))[:300]
        )
    return answer


def _answer(said: nats.Delivered) -> dict[str, Any]:
    if said.status == nats.NO_RESPONDERS:
        raise ApiFailed(nats.NO_RESPONDERS, 0, "JetStream does not answer: not enabled (-js), or without a leader now")
    return parse_answer(said.data)
