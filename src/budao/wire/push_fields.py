"""The fields of a frame of push: one checked value out of a map of plain ones, under its key."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import Repr
from typing import Any, Final

from budao.model import RemoteWireError
from budao.push import Position
from budao.wire.headers import parse_traceparent

Map = dict[str, Any]

WHOLE_MAX: Final = 2**63 - 1
SPAN_MAX_S: Final = 1e9
NAME_CHARACTERS_MAX: Final = 200
CHANNEL_CHARACTERS_MAX: Final = 4096
"""Longer ones are no frame. Whether it is the name of a channel is judged where the answer is made, so that it has one."""
ID_CHARACTERS_MAX: Final = 128
"""Of the id of a message, and of a session."""
EPOCH_CHARACTERS_MAX: Final = 64
TEXT_CHARACTERS_MAX: Final = 4096
"""Of a ticket, a token, a URL, and of what is said to people."""
SHOWN: Final = 60
"""Characters of a wrong value that its error shows."""

_SHOW: Final = Repr()
_SHOW.maxlevel = 3  # msgpack nests a thousand deep, which `repr` does not follow


# ------------------------------------------------------------------------------------------- one field each


def wrong(where: str, what: object, wanted: str) -> RemoteWireError:
    """The error for a field that is not what it must be."""
    shown = _SHOW.repr(what) if isinstance(what, list | dict) else repr(what)
    return RemoteWireError(f"{where}: {shown if len(shown) <= SHOWN else shown[:SHOWN] + '…'} is not {wanted}")


def text_of(values: Mapping[str, Any], key: str, characters_max: int, default: str | None = None) -> str | None:
    """A text, or the default where there is none."""
    value = values.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise wrong(key, value, "text")
    if len(value) > characters_max:
        raise RemoteWireError(f"{key}: {len(value)} characters, at most {characters_max} are allowed")
    return value


def needed_text(values: Mapping[str, Any], key: str, characters_max: int = NAME_CHARACTERS_MAX) -> str:
    """A text that must be there."""
    value = text_of(values, key, characters_max)
    if value is None:
        raise RemoteWireError(f"{key}: is missing")
    return value


def whole_of(values: Mapping[str, Any], key: str, low: int, default: int | None = None) -> int:
    """A whole number from `low`; it must be there if there is no default."""
    value = values.get(key)
    if value is None:
        if default is None:
            raise RemoteWireError(f"{key}: is missing")
        return default
    if type(value) is not int or not low <= value <= WHOLE_MAX:
        raise wrong(key, value, f"a whole number from {low}")
    return value


def span_of(values: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    """Seconds, never negative."""
    value = values.get(key)
    if value is None:
        return default
    if type(value) not in {int, float} or not 0.0 <= value <= SPAN_MAX_S:
        raise wrong(key, value, f"a number of seconds from 0 to {SPAN_MAX_S:g}")
    return float(value)


def share_of(values: Mapping[str, Any], key: str) -> float:
    """A share, from 0 to 1; 0 where it is missing."""
    value = values.get(key)
    if value is None:
        return 0.0
    if type(value) not in {int, float} or not 0.0 <= value <= 1.0:
        raise wrong(key, value, "a share from 0 to 1")
    return float(value)


def flag_of(values: Mapping[str, Any], key: str) -> bool:
    """Yes or no; no where it is missing."""
    value = values.get(key)
    if value is None:
        return False
    if type(value) is not bool:
        raise wrong(key, value, "true or false")
    return value


def map_of(values: Mapping[str, Any], key: str) -> Map:
    """A map; empty where it is missing."""
    value = values.get(key)
    if value is None:
        return {}
    if type(value) is not dict:
        raise wrong(key, value, "a map")
    return value


def texts_of(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts; empty where it is missing."""
    value = values.get(key)
    if value is None:
        return ()
    if type(value) is not list or not all(isinstance(each, str) for each in value):
        raise wrong(key, value, "a list of texts")
    return tuple(value)


def position_of(value: object, where: str) -> Position:
    """A place: a map of `epoch` and `seq`."""
    if type(value) is not dict:
        raise wrong(where, value, "a place, a map of epoch and seq")
    epoch, seq = value.get("epoch"), value.get("seq")
    if not isinstance(epoch, str) or len(epoch) > EPOCH_CHARACTERS_MAX:
        raise wrong(f"{where}.epoch", epoch, f"text of at most {EPOCH_CHARACTERS_MAX} characters")
    if type(seq) is not int or not 0 <= seq <= WHOLE_MAX:
        raise wrong(f"{where}.seq", seq, "a whole number from 0")
    return Position(epoch, seq)


def some_position(values: Mapping[str, Any], key: str) -> Position | None:
    """A place, if there is one."""
    value = values.get(key)
    return None if value is None else position_of(value, key)


def needed_position(values: Mapping[str, Any], key: str) -> Position:
    """A place that must be there."""
    value = values.get(key)
    if value is None:
        raise RemoteWireError(f"{key}: is missing")
    return position_of(value, key)


def trace_of(values: Mapping[str, Any]) -> str | None:
    """A traceparent. One that is no good is passed over, as W3C asks."""
    value = text_of(values, "trace", NAME_CHARACTERS_MAX)
    return None if value is None else parse_traceparent(value) or None


def id_of(values: Mapping[str, Any]) -> str | None:
    """The id of a message."""
    value = text_of(values, "id", ID_CHARACTERS_MAX)
    if value is not None and (not value or not value.isprintable()):
        raise wrong("id", value, "printable text")
    return value


def plain_position(position: Position) -> Map:
    """A place as a map."""
    return {"epoch": position.epoch, "seq": position.seq}
