"""Hellos and welcomes of a storm: when thousands come back at once, most of them say the same, and are told the same.

Remembering the last few of each is worth a third of what an upgrade costs. Nothing is remembered that names somebody: no hello with
a session or a ticket in it, and welcomes without the name of the session.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from budao.aio.gateway.encoding import Encoding
from budao.push import Hello, Open, Position
from budao.wire import http1, push_frames

REMEMBERED_MAX: Final = 128
HELLO_CHARACTERS_MAX: Final = 1_024
CHANNELS_MAX: Final = 16

WelcomeKey = tuple[Encoding, int, bool, float, tuple[tuple[str, Position], ...]]


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

    __slots__ = ("_frame_bytes_max", "_gateway", "_hellos", "_peers", "_welcomes")

    def __init__(self, gateway: str, peers: tuple[str, ...], frame_bytes_max: int) -> None:
        self._gateway = gateway
        self._peers = peers
        self._frame_bytes_max = frame_bytes_max
        self._hellos: dict[str, Hello] = {}
        self._welcomes: dict[WelcomeKey, bytes] = {}

    def hello(self, text: str) -> Hello:
        """The hello that a URL carries.

        Raises:  RemoteWireError.
        """
        known = self._hellos.get(text)
        if known is not None:
            return known
        hello = push_frames.parse_hello_query(text)
        if hello.session is None and hello.ticket is None and len(text) <= HELLO_CHARACTERS_MAX:
            if len(self._hellos) >= REMEMBERED_MAX:
                del self._hellos[next(iter(self._hellos))]
            self._hellos[text] = hello
        return hello

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
            if len(self._welcomes) >= REMEMBERED_MAX:
                del self._welcomes[next(iter(self._welcomes))]
            self._welcomes[key] = known
        return known.replace(stand_in.encode(), session.encode(), 1)
