"""JSON from strangers: checked in full, and kept as it was written where it is only handed on.

What a client publishes is parsed once, to know that every reader can parse it; then its own text travels, without the spaces
between tokens. So 1.0 stays 1.0, and 0.1 has as many digits as its author gave it.

Source:  RFC 8259; section 4 on keys said twice, section 6 on numbers, section 8.2 on half surrogate pairs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from budao.model import LocalWireError, RemoteWireError

DEPTH_MAX: Final = 64
"""Arrays and objects may stand in one another so deep."""

WHOLE_MIN: Final = -(2**63)
WHOLE_MAX: Final = 2**64 - 1
"""Whole numbers that msgpack can say. JavaScript reads every number as a double, exact up to 2**53."""

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_KEY: Final = re.compile(r'[ \t\n\r]*("[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*+")[ \t\n\r]*:[ \t\n\r]*')
_NEXT: Final = re.compile(r"[ \t\n\r]*([,}\]])")
_CLOSES: Final = re.compile(r"[ \t\n\r]*([}\]])")
_STRING_OR_SPACE: Final = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")|[ \t\n\r]+')
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_DIGITS_AS_9: Final = bytes(
    ord("9") if chr(byte).isdecimal() and byte < 128 else ord("e") if byte == ord("E") else byte for byte in range(256)
)
_LONG_NUMBER: Final = b"9" * 19
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_SHOWN: Final = 40


class BadData(RemoteWireError):
    """JSON by its grammar, and yet not what every reader would read alike."""


class Kept(NamedTuple):
    """Where the value of a member stands in the text, and what is wrong with it."""

    start: int
    end: int
    problem: BadData | None = None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadData("an object says a key twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > 20 or not WHOLE_MIN <= (number := int(digits)) <= WHOLE_MAX:
        raise BadData(f"the whole number {digits[:_SHOWN]} is beyond 64 bits; send it as text")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise BadData(f"the number {digits[:_SHOWN]} is beyond what a double can hold")
    return number


def _no_constant(word: str) -> None:
    raise BadData(f"{word} is not JSON")


_QUICK: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_CAREFUL: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole, parse_float=_finite
)
_LENIENT: Final = json.JSONDecoder(parse_int=len, parse_float=len)
"""Finds the end of a value that is wrong."""
_WRITER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))


# ------------------------------------------------------------------------------------------------------ in


def check_json_data(raw: bytes | memoryview) -> bytes:
    """Published data as compact UTF-8 JSON: its numbers and texts stay as they are written, only spaces between tokens go.

    Raises:  RemoteWireError for what is not JSON, NaN, whole numbers beyond 64 bits, others beyond a double, half a surrogate
             pair, a key said twice, nesting beyond `DEPTH_MAX`.
    """
    raw = bytes(raw)
    text = utf8(raw)
    start = skip_space(text, 0)
    _, end = parse_value(text, start, plain=is_plain(raw))
    check_end(text, end)
    return slice_of(text, start, end)


def parse_json(raw: bytes | memoryview) -> Any:
    """The one JSON value that these bytes are, under the same rules as published data.

    Raises:  RemoteWireError.
    """
    raw = bytes(raw)
    text = utf8(raw)
    value, end = parse_value(text, skip_space(text, 0), plain=is_plain(raw))
    check_end(text, end)
    return value


def utf8(raw: bytes) -> str:
    """The text of bytes.

    Raises:  RemoteWireError.
    """
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as problem:
        raise RemoteWireError(f"not UTF-8: byte {problem.start} is 0x{raw[problem.start]:02x}") from problem


def parse_value(text: str, at: int, *, plain: bool = False) -> tuple[Any, int]:
    """The JSON value that begins right here, and where it ends. `plain` is what `is_plain` says of all of it.

    Raises:  BadData for a value that only the grammar allows; RemoteWireError for one that it does not.
    """
    try:
        value, end = (_QUICK if plain else _CAREFUL).raw_decode(text, at)
    except RecursionError as problem:
        raise BadData(f"JSON nested deeper than {DEPTH_MAX}") from problem
    except ValueError as problem:
        raise RemoteWireError(f"not JSON: {str(problem)[:100]}") from problem
    if plain:
        return value, end
    if text.count("[", at, end) + text.count("{", at, end) > DEPTH_MAX and _is_deep(text[at:end]):
        raise BadData(f"JSON nested deeper than {DEPTH_MAX}")
    if "\\u" in text[at:end]:
        try:
            _WRITER.encode(value).encode()
        except UnicodeEncodeError as problem:
            raise BadData("text holds half a surrogate pair") from problem
    return value, end


def is_plain(raw: bytes) -> bool:
    """Whether nothing in these bytes, if they are JSON, could be a number too large, half a surrogate pair, or nested too deep."""
    shape = raw.translate(_DIGITS_AS_9)
    return (
        b"9e" not in shape
        and _LONG_NUMBER not in shape
        and (b"\\u" not in shape or _SURROGATE.search(raw) is None)
        and raw.count(b"[") + raw.count(b"{") <= DEPTH_MAX
    )


def slice_of(text: str, start: int, end: int) -> bytes:
    """The text of a value that was parsed, without spaces between its tokens."""
    written = text[start:end]
    if '\\"' in written:
        return _STRING_OR_SPACE.sub(r"\1", written).encode()
    pieces = written.split('"')  # every quote begins or ends a string, so every other piece is a string
    if len("".join(pieces[::2]).split(None, 1)) > 1:
        pieces[::2] = ["".join(piece.split()) for piece in pieces[::2]]
        written = '"'.join(pieces)
    return written.encode()


Deeper = Callable[[str, int], tuple[Any, int]]


def parse_members(
    text: str, at: int = 0, *, plain: bool, keep: str = "", deeper: Mapping[str, Deeper] | None = None
) -> tuple[dict[str, Any], Kept | None, int]:
    """The object that stands here, where in it the value of the key `keep` is, and where it ends.

    What is wrong with the value of that key is kept as well; the object then has None for it. Values of keys in `deeper` are
    parsed by those.

    Raises:  RemoteWireError.
    """
    at = skip_space(text, at)
    if text[at : at + 1] != "{":
        raise RemoteWireError(f"not a JSON object: {text[at : at + _SHOWN]!r}")
    members: dict[str, Any] = {}
    kept: Kept | None = None
    closes = _CLOSES.match(text, at + 1)
    if closes is not None and closes[1] == "}":
        return members, None, closes.end()
    while True:
        found = _KEY.match(text, at + 1)
        if found is None:
            raise RemoteWireError(f"not JSON: no key at character {at + 1}")
        key, start = found[1][1:-1], found.end()
        if "\\" in key:
            key = parse_value(text, found.start(1))[0]
        if key in members:
            raise RemoteWireError(f"the key {key[:_SHOWN]!r} is said twice")
        if key == keep:
            members[key], kept = _kept(text, start, plain)
            end = kept.end
        elif deeper is not None and key in deeper:
            members[key], end = deeper[key](text, start)
        else:
            members[key], end = parse_value(text, start, plain=plain)
        follows = _NEXT.match(text, end)
        if follows is None or follows[1] == "]":
            raise RemoteWireError(f"not JSON: neither ',' nor '}}' at character {end}")
        at = follows.end() - 1
        if follows[1] == "}":
            return members, kept, at + 1


def _kept(text: str, start: int, plain: bool) -> tuple[Any, Kept]:
    try:
        value, end = parse_value(text, start, plain=plain)
    except BadData as problem:
        try:
            return None, Kept(start, _LENIENT.raw_decode(text, start)[1], problem)
        except (ValueError, RecursionError):
            raise problem from None
    return value, Kept(start, end)


def parse_items(text: str, at: int, item: Deeper) -> tuple[list[Any], int]:
    """What `item` makes of each element of the array that stands here, and where it ends.

    Raises:  RemoteWireError.
    """
    if text[at : at + 1] != "[":
        raise RemoteWireError(f"not a JSON array: {text[at : at + _SHOWN]!r}")
    items: list[Any] = []
    closes = _CLOSES.match(text, at + 1)
    if closes is not None and closes[1] == "]":
        return items, closes.end()
    while True:
        value, end = item(text, skip_space(text, at + 1))
        items.append(value)
        follows = _NEXT.match(text, end)
        if follows is None or follows[1] == "}":
            raise RemoteWireError(f"not JSON: neither ',' nor ']' at character {end}")
        at = follows.end() - 1
        if follows[1] == "]":
            return items, at + 1


def check_end(text: str, end: int) -> None:
    """Nothing but space follows.

    Raises:  RemoteWireError.
    """
    if end != len(text) and skip_space(text, end) != len(text):
        raise RemoteWireError(f"something follows the JSON value, at character {end}")


def skip_space(text: str, at: int) -> int:
    """Where the next token begins."""
    space = _SPACE.match(text, at)
    assert space is not None, "no space at all is a match, too"
    return space.end()


def _is_deep(text: str) -> bool:
    """Whether valid JSON is nested deeper than `DEPTH_MAX`: as often as that, the innermost brackets are taken away."""
    brackets = _STRING.sub(b"", text.encode(errors="surrogatepass")).translate(None, _NOT_BRACKETS)
    for _ in range(DEPTH_MAX):
        if not brackets:
            return False
        brackets = _innermost(brackets)
    return bool(brackets)


def _innermost(brackets: bytes) -> bytes:
    return brackets.replace(b"[]", b"\0").replace(b"{}", b"\0").replace(b"\0", b"")


# ----------------------------------------------------------------------------------------------------- out


def write_json(value: object) -> bytes:
    """Compact UTF-8 JSON of plain values.

    Raises:  LocalWireError for what JSON cannot say: bytes, NaN, half a surrogate pair.
    """
    try:
        return _WRITER.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise LocalWireError(f"JSON cannot say this: {str(problem)[:100]}") from problem


def write_text(text: str) -> str:
    """A text as JSON, with its quotes."""
    return _WRITER.encode(text)
