"""Frames of push as maps of plain values, and back: what JSON and msgpack have in common.

A key has the name of its field, without `is_`; one that would hold a default is left out, and null is as good as left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from budao.model import LocalWireError, RemoteWireError
from budao.push import (
    BY_CODE,
    VERSION,
    Ack,
    Advice,
    Bye,
    Frame,
    FromClient,
    FromGateway,
    Gap,
    Hello,
    Hole,
    Missing,
    Move,
    Ping,
    Pong,
    Position,
    Present,
    Problem,
    Seen,
    Standby,
    Sub,
    Unsub,
    Welcome,
    advice_for,
)
from budao.wire.push_fields import (
    CHANNEL_CHARACTERS_MAX,
    ID_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    SHOWN,
    TEXT_CHARACTERS_MAX,
    Map,
    flag_of,
    map_of,
    needed_position,
    needed_text,
    plain_position,
    position_of,
    share_of,
    some_position,
    span_of,
    text_of,
    texts_of,
    whole_of,
    wrong,
)

_F = TypeVar("_F")


def _plain_channels(channels: Mapping[str, Position | None]) -> Map:
    return {
        name: None if place is None else {"epoch": place.epoch, "seq": place.seq} for name, place in channels.items()
    }


def _channels(values: Mapping[str, Any]) -> dict[str, Position | None]:
    stated = map_of(values, "channels")
    return {
        name: None if place is None else position_of(place, f"channels.{name[:SHOWN]}")
        for name, place in stated.items()
    }


def _placed(values: Mapping[str, Any]) -> dict[str, Position]:
    return {name: place for name, place in _channels(values).items() if place is not None}


def _plain_problem(problem: Problem) -> Map:
    return _lean({"why": problem.why, "happened": problem.happened}, after_s=problem.after_s)


def _problem(value: object, where: str) -> Problem:
    if type(value) is not dict:
        raise wrong(where, value, "a problem, a map of why and happened")
    return Problem(
        why=needed_text(value, "why"),
        happened=text_of(value, "happened", TEXT_CHARACTERS_MAX) or "",
        after_s=span_of(value, "after_s"),
    )


def _refused(values: Mapping[str, Any]) -> dict[str, Problem]:
    return {name: _problem(value, f"refused.{name[:SHOWN]}") for name, value in map_of(values, "refused").items()}


def _plain_refused(refused: Mapping[str, Problem]) -> Map:
    return {name: _plain_problem(problem) for name, problem in refused.items()}


def _lean(values: Map, **optional: object) -> Map:
    """With the optional ones that say something."""
    for key, value in optional.items():
        if value:
            values[key] = value
    return values


def _given(values: Map, **optional: object) -> Map:
    """With the optional ones that are there: of these an empty text, or 0, is not the same as nothing."""
    for key, value in optional.items():
        if value is not None:
            values[key] = value
    return values


# ------------------------------------------------------------------------------------------------------ out


def plain_frame(frame: Frame) -> Map:
    """The map of a frame that carries no data.

    Raises:  LocalWireError for anything else.
    """
    write = _WRITERS.get(type(frame))
    if write is None:
        raise LocalWireError(f"{type(frame).__name__} is no frame that carries no data")
    return write(frame)


def _plain_hello(frame: Hello) -> Map:
    values = _given({"type": "hello", "version": frame.version}, session=frame.session, ticket=frame.ticket)
    _lean(values, channels=_plain_channels(frame.channels), standby=frame.is_standby)
    return _given(values, beat_s=frame.beat_s, client=frame.client)


def _plain_welcome(frame: Welcome) -> Map:
    return _lean(
        {"type": "welcome", "version": frame.version, "session": frame.session, "gateway": frame.gateway},
        resumed=frame.resumed,
        channels=_plain_channels(frame.channels),
        refused=_plain_refused(frame.refused),
        beat_s=frame.beat_s,
        peers=list(frame.peers),
        frame_bytes_max=frame.frame_bytes_max,
    )


def _plain_sub(frame: Sub) -> Map:
    return _lean(
        {"type": "sub", "ref": frame.ref, "channel": frame.channel},
        after=None if frame.after is None else plain_position(frame.after),
        last=frame.last,
        presence=frame.presence,
    )


def _plain_unsub(frame: Unsub) -> Map:
    return {"type": "unsub", "ref": frame.ref, "channel": frame.channel}


def _plain_seen(frame: Seen) -> Map:
    return {"type": "ack", "channel": frame.channel, "position": plain_position(frame.position)}


def _plain_ack(frame: Ack) -> Map:
    return _lean(
        {"type": "ack", "ref": frame.ref},
        position=None if frame.position is None else plain_position(frame.position),
        repeat=frame.is_repeat,
        problem=None if frame.problem is None else _plain_problem(frame.problem),
        channels=_plain_channels(frame.channels),
        refused=_plain_refused(frame.refused),
    )


def _plain_gap(frame: Missing) -> Map:
    gap = frame.gap
    return {
        "type": "gap",
        "channel": gap.channel,
        "after": plain_position(gap.after),
        "upto": plain_position(gap.upto),
        "why": gap.why.value,
    }


def _plain_ping(frame: Ping) -> Map:
    return _lean({"type": "ping"}, number=frame.number)


def _plain_pong(frame: Pong) -> Map:
    return _lean({"type": "pong"}, number=frame.number, load=frame.load_share)


def _plain_move(frame: Move) -> Map:
    values = _given({"type": "move", "url": frame.url, "why": frame.why}, ticket=frame.ticket)
    return _lean(values, within_s=frame.within_s)


def _plain_standby(frame: Standby) -> Map:
    values = _lean({"type": "standby"}, ref=frame.ref, channels=_plain_channels(frame.channels))
    return _given(values, url=frame.url, ticket=frame.ticket)


def _plain_bye(frame: Bye) -> Map:
    return _lean(
        {"type": "bye", "code": frame.code, "why": frame.why, "advice": frame.advice.value},
        after_s=frame.after_s,
        detail=frame.detail,
    )


def _plain_presence(frame: Present) -> Map:
    return _lean(
        {"type": "presence", "channel": frame.channel, "count": frame.count},
        joined=list(frame.joined),
        left=list(frame.left),
    )


_WRITERS: Final[Mapping[type, Callable[[Any], Map]]] = {
    Ack: _plain_ack,
    Bye: _plain_bye,
    Hello: _plain_hello,
    Missing: _plain_gap,
    Move: _plain_move,
    Ping: _plain_ping,
    Pong: _plain_pong,
    Present: _plain_presence,
    Seen: _plain_seen,
    Standby: _plain_standby,
    Sub: _plain_sub,
    Unsub: _plain_unsub,
    Welcome: _plain_welcome,
}


# ------------------------------------------------------------------------------------------------------- in


def kind_of(values: Mapping[str, Any]) -> str:
    """The type of a frame.

    Raises:  RemoteWireError if it says none.
    """
    kind = values.get("type")
    if not isinstance(kind, str):
        raise wrong("type", kind, "the name of a frame")
    return kind


def frame_from_client(kind: str, values: Mapping[str, Any]) -> FromClient:
    """What a client said, if it carries no data.

    Raises:  RemoteWireError.
    """
    read = _FROM_CLIENT.get(kind)
    if read is None:
        raise wrong("type", kind, "a frame that a client may send")
    return _read(kind, read, values)


def frame_from_gateway(kind: str, values: Mapping[str, Any]) -> FromGateway:
    """What a gateway said, if it carries no data.

    Raises:  RemoteWireError.
    """
    read = _FROM_GATEWAY.get(kind)
    if read is None:
        raise wrong("type", kind, "a frame that a gateway may send")
    return _read(kind, read, values)


def _read(kind: str, read: Callable[[Mapping[str, Any]], _F], values: Mapping[str, Any]) -> _F:
    try:
        return read(values)
    except RemoteWireError as problem:
        raise RemoteWireError(f"{kind}.{problem}") from None


def _hello(values: Mapping[str, Any]) -> Hello:
    return Hello(
        version=whole_of(values, "version", 0, VERSION),
        session=text_of(values, "session", ID_CHARACTERS_MAX),
        ticket=text_of(values, "ticket", TEXT_CHARACTERS_MAX),
        channels=_channels(values),
        is_standby=flag_of(values, "standby"),
        beat_s=None if values.get("beat_s") is None else span_of(values, "beat_s"),
        client=text_of(values, "client", NAME_CHARACTERS_MAX),
    )


def _welcome(values: Mapping[str, Any]) -> Welcome:
    return Welcome(
        version=whole_of(values, "version", 0),
        session=needed_text(values, "session"),
        gateway=needed_text(values, "gateway"),
        resumed=flag_of(values, "resumed"),
        channels=_placed(values),
        refused=_refused(values),
        beat_s=span_of(values, "beat_s"),
        peers=texts_of(values, "peers"),
        frame_bytes_max=whole_of(values, "frame_bytes_max", 0, 0),
    )


def _sub(values: Mapping[str, Any]) -> Sub:
    return Sub(
        ref=whole_of(values, "ref", 1),
        channel=needed_text(values, "channel", CHANNEL_CHARACTERS_MAX),
        after=some_position(values, "after"),
        last=whole_of(values, "last", 0, 0),
        presence=flag_of(values, "presence"),
    )


def _unsub(values: Mapping[str, Any]) -> Unsub:
    return Unsub(ref=whole_of(values, "ref", 1), channel=needed_text(values, "channel", CHANNEL_CHARACTERS_MAX))


def _seen(values: Mapping[str, Any]) -> Seen:
    return Seen(
        channel=needed_text(values, "channel", CHANNEL_CHARACTERS_MAX), position=needed_position(values, "position")
    )


def _ack(values: Mapping[str, Any]) -> Ack:
    problem = values.get("problem")
    return Ack(
        ref=whole_of(values, "ref", 1),
        position=some_position(values, "position"),
        is_repeat=flag_of(values, "repeat"),
        problem=None if problem is None else _problem(problem, "problem"),
        channels=_placed(values),
        refused=_refused(values),
    )


def _gap(values: Mapping[str, Any]) -> Missing:
    why = needed_text(values, "why")
    return Missing(
        Gap(
            needed_text(values, "channel", CHANNEL_CHARACTERS_MAX),
            needed_position(values, "after"),
            needed_position(values, "upto"),
            _HOLES.get(why, Hole.TRIMMED),  # a later version may know more reasons
        )
    )


def _ping(values: Mapping[str, Any]) -> Ping:
    return Ping(number=whole_of(values, "number", 0, 0))


def _pong(values: Mapping[str, Any]) -> Pong:
    return Pong(number=whole_of(values, "number", 0, 0))


def _pong_with_load(values: Mapping[str, Any]) -> Pong:
    return Pong(number=whole_of(values, "number", 0, 0), load_share=share_of(values, "load"))


def _move(values: Mapping[str, Any]) -> Move:
    return Move(
        url=needed_text(values, "url", TEXT_CHARACTERS_MAX),
        ticket=text_of(values, "ticket", TEXT_CHARACTERS_MAX),
        within_s=span_of(values, "within_s"),
        why=text_of(values, "why", NAME_CHARACTERS_MAX) or "drain",
    )


def _promote(values: Mapping[str, Any]) -> Standby:
    return Standby(ref=whole_of(values, "ref", 1), channels=_channels(values))


def _standby(values: Mapping[str, Any]) -> Standby:
    return Standby(
        url=text_of(values, "url", TEXT_CHARACTERS_MAX), ticket=text_of(values, "ticket", TEXT_CHARACTERS_MAX)
    )


def _bye(values: Mapping[str, Any]) -> Bye:
    code = whole_of(values, "code", 0, 1000)
    advice = text_of(values, "advice", NAME_CHARACTERS_MAX)
    known = BY_CODE.get(code)
    return Bye(
        code=code,
        why=text_of(values, "why", NAME_CHARACTERS_MAX) or ("done" if known is None else known.why),
        advice=_ADVICES.get(advice or "") or advice_for(code),
        after_s=span_of(values, "after_s"),
        detail=text_of(values, "detail", TEXT_CHARACTERS_MAX) or "",
    )


def _presence(values: Mapping[str, Any]) -> Present:
    return Present(
        channel=needed_text(values, "channel", CHANNEL_CHARACTERS_MAX),
        joined=texts_of(values, "joined"),
        left=texts_of(values, "left"),
        count=whole_of(values, "count", 0, 0),
    )


_HOLES: Final = {hole.value: hole for hole in Hole}
_ADVICES: Final = {advice.value: advice for advice in Advice}

_FROM_CLIENT: Final[Mapping[str, Callable[[Mapping[str, Any]], FromClient]]] = {
    "ack": _seen,
    "bye": _bye,
    "hello": _hello,
    "ping": _ping,
    "pong": _pong,
    "standby": _promote,
    "sub": _sub,
    "unsub": _unsub,
}
_FROM_GATEWAY: Final[Mapping[str, Callable[[Mapping[str, Any]], FromGateway]]] = {
    "ack": _ack,
    "bye": _bye,
    "gap": _gap,
    "move": _move,
    "ping": _ping,
    "pong": _pong_with_load,
    "presence": _presence,
    "standby": _standby,
    "welcome": _welcome,
}
