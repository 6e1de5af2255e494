"""The ids of an event stream: whatever a browser comes back with names every place it had."""

from __future__ import annotations

import pytest

from budao.aio.gateway.sse import ID_BYTES_MAX, PLACE_BYTES, Several, Wish, format_places, parse_last_id
from budao.model import RemoteWireError, Wall
from budao.push import Gap, Hole, Kind, Message, Missing, Position, Problem, Recent, Welcome
from budao.wire import sse

AWAY = Problem(why="log-away", happened="it does not answer", after_s=1.0)
A, B = Position("e1", 5), Position("e2", 7)


def last_id(raw: bytes) -> str | None:
    events = sse.Reader(1 << 20).feed(raw)
    return events[-1].id or None


def welcome(channels: dict[str, Position], refused: dict[str, Problem]) -> Welcome:
    return Welcome(session="s", gateway="g", resumed=True, channels=channels, refused=refused, beat_s=1.0, peers=())


def test_a_channel_that_is_refused_for_now_keeps_its_place_in_every_id() -> None:
    encoding = Several("sse", {"a": A, "b": B})
    said = last_id(encoding.frame(welcome({"a": A}, {"b": AWAY})))
    assert said is not None
    assert parse_last_id(said, ["a", "b"]) == {"a": A, "b": B}
    message = Message("a", Position("e1", 6), b"1", Kind.JSON, Wall(1.0))
    said = last_id(encoding.messages([Recent(message, 0)]))
    assert said is not None
    assert parse_last_id(said, ["a", "b"]) == {"a": message.position, "b": B}


def test_more_channels_than_an_id_has_room_for_are_refused_before_a_browser_cannot_come_back() -> None:
    fitting = ID_BYTES_MAX // (4 + PLACE_BYTES)
    names = [f"c{each:03}" for each in range(fitting + 1)]
    assert len(Wish({"channel": names[:-1]}, {}, channels_max=1_000).channels) == fitting
    with pytest.raises(RemoteWireError, match="ask for fewer, or use a WebSocket"):
        Wish({"channel": names}, {}, channels_max=1_000)


def test_the_longest_place_is_counted_whole() -> None:
    places = {"a": Position("f" * 12, 2**63)}
    assert len(format_places(places)) <= 1 + PLACE_BYTES


def test_a_welcome_to_nothing_takes_no_id_away() -> None:
    assert b"id:" not in Several("sse", {}).frame(welcome({}, {"a": AWAY, "b": AWAY}))


def test_a_gap_moves_the_place_of_its_channel_only() -> None:
    encoding = Several("sse", {"a": A, "b": B})
    said = last_id(encoding.frame(Missing(Gap("a", A, Position("e3", 0), Hole.EPOCH))))
    assert said is not None
    assert parse_last_id(said, ["a", "b"]) == {"a": Position("e3", 0), "b": B}


@pytest.mark.parametrize("name", ["a;b=c:1", "a=b", "ü%;", "a:b", "a+b"])
def test_names_of_any_characters_come_back_from_an_id(name: str) -> None:
    places = {name: A, "other": B}
    assert parse_last_id(format_places(places), list(places)) == places


@pytest.mark.parametrize(
    "text", ["a=", "a=e1", "a=e1:x", "a=e1:1:2", "a=e1:-1", "a=e1:" + "9" * 19, "a=" + "e" * 65 + ":1"]
)
def test_an_id_that_no_gateway_has_said_is_refused(text: str) -> None:
    with pytest.raises(RemoteWireError, match="Last-Event-ID"):
        parse_last_id(text, ["a", "b"])
