"""Hellos, welcomes and promotions of a storm: when thousands come back at once, most of them say the same, and are told the same.

Remembering the last few of each is worth a third of what an upgrade costs. Nothing is remembered that names somebody: no hello with
a ticket in it, and hellos and welcomes without the name of the session.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, TypeVar

from budao.aio.gateway.encoding import Encoding
from budao.push import Ack, Hello, Open, Position
from budao.wire import http1, push_frames

REMEMBERED_MAX: Final = 128
HELLO_BYTES_MAX: Final = 1_024
CHANNELS_MAX: Final = 16

_SESSION: Final = re.compile(rb'"session":"([A-Za-z0-9._:~-]{1,64})"')

WelcomeKey = tuple[Encoding, int, bool, float, tuple[tuple[str, Position], ...]]
_K = TypeVar("_K")
_V = TypeVar("_V")
AckKey = tuple[Encoding, int, tuple[tuple[str, Position], ...]]


def read_query(query: str) -> dict[str, list[str]]:
    """`parse_query`, at a tenth of its cost for what clients of ours send: nothing that is percent-coded."""
    if "%" in query or "+" in query or ";" in query:
        return http1.parse_query(query)
    found: dict[str, list[str]] = {}
    parts = query.split("&", 32)
    if len(parts) > 32:
        return http1.parse_query(query)
    for part in parts:
        name, equals, value = part.partition("=")
        if equals:
            found.setdefault(name, []).append(value)
    return found


class Greeting:
    """What was said lately."""

    __slots__ = ("_acks", "_frame_bytes_max", "_gateway", "_hellos", "_peers", "_welcomes")

    def __init__(self, gateway: str, peers: tuple[str, ...], frame_bytes_max: int) -> None:
        self._gateway = gateway
        self._peers = peers
        self._frame_bytes_max = frame_bytes_max
        self._hellos: dict[str | tuple[bytes, bytes], Hello] = {}
        """By text; those of a session by what stands before and after its name."""
        self._acks: dict[AckKey, bytes] = {}
        self._welcomes: dict[WelcomeKey, bytes] = {}

    def hello(self, text: str) -> Hello:
        """The hello that a URL carries.

        Raises:  RemoteWireError.
        """
        known = self._hellos.get(text)
        if known is not None:
            return known
        raw = push_frames.read_hello_query(text)
        key: str | tuple[bytes, bytes] = text
        session = None
        found = _SESSION.search(raw)
        if found is not None:
            key, session = (raw[: found.start(1)], raw[found.end(1) :]), found[1].decode()
            known = self._hellos.get(key)
            if known is not None:
                return replace(known, session=session)
        hello, _ = push_frames.JSON.decode_hello(raw)
        # The word said twice, or escaped, might be something else than what was cut out.
        is_clear = raw.count(b'"session"') == (session is not None) and b"\\" not in raw
        if hello.ticket is None and hello.session == session and is_clear and len(raw) <= HELLO_BYTES_MAX:
            _remember(self._hellos, key, hello if session is None else replace(hello, session=None))
        return hello

    def promoted(self, encoding: Encoding, ref: int, channels: dict[str, Position]) -> bytes:
        """The bytes of the answer to a promotion that refuses nothing."""
        key = (encoding, ref, tuple(channels.items()))
        known = self._acks.get(key)
        if known is None:
            known = encoding.frame(Ack(ref=ref, channels=channels))
            if len(channels) <= CHANNELS_MAX:
                _remember(self._acks, key, known)
        return known

    def welcome(self, encoding: Encoding, effect: Open, channels: dict[str, Position]) -> bytes:
        """The bytes of a welcome that refuses nothing. A session's name is put where another one of its length stood."""
        session = effect.session
        key = (encoding, len(session), effect.is_resumed, effect.beat_s, tuple(channels.items()))
        stand_in = "~" * len(session)
        known = self._welcomes.get(key)
        if known is None:
            frame = effect.welcome(self._gateway, channels, peers=self._peers, frame_bytes_max=self._frame_bytes_max)
            if len(session) < 8 or len(channels) > CHANNELS_MAX:
                return encoding.frame(frame)
            known = encoding.frame(replace(frame, session=stand_in))
            if known.count(stand_in.encode()) != 1:  # somebody calls a channel that
                return encoding.frame(frame)
            _remember(self._welcomes, key, known)
        return known.replace(stand_in.encode(), session.encode(), 1)


def _remember(those: dict[_K, _V], key: _K, value: _V) -> None:
    """Keeps the latest few."""
    if len(those) >= REMEMBERED_MAX:
        del those[next(iter(those))]
    those[key] = value
