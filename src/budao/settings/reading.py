"""What people state, as tables: from a TOML text or from environment variables, and one laid over the other.

Nothing here knows what the keys mean; it knows where each was stated.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isnan
from types import MappingProxyType
from typing import Any, Final

from budao.model import BadSettings
from budao.settings.lines import DEPTH_MAX, Lines, Path, TooDeep, lines_of
from budao.settings.writing import written

BYTES_MAX: Final = 1_048_576
"""A larger settings file is a mistake."""
PREFIX: Final = "BUDAO"
"""Variables of the environment begin with it, and two underscores."""
VARIABLE_MAX: Final = 65_536
"""Characters in one variable."""

_LONG_NUMBER = re.compile(r"[0-9][0-9_]{3999}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """Tables as somebody stated them, and where."""

    tables: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    places: Mapping[Path, str] = field(default_factory=lambda: MappingProxyType({}))
    """By path: where it is stated, such as "budao.toml, line 3"."""
    source: str
    """What to name where no place is nearer."""


def read_text(text: str | bytes, *, source: str) -> Stated:
    """A TOML text as tables.

    Raises:  BadSettings for what is no text or no TOML; nothing of it is repeated but key names.
    """
    plain = _decoded(text, source)
    tables, lines = _toml(plain, source)
    places = {path: _placed(source, line) for path, line in lines.found.items()}
    return Stated(tables=tables, places=places, source=source)


def read_environment(environ: Mapping[str, str], *, prefix: str = PREFIX) -> Stated:
    """Variables as tables: `BUDAO__GUARD__INVENTORY__BREAKER__REST_S=30` is `[guard.inventory.breaker] rest_s = 30`.

    Two underscores part the names. A name in capitals is read in small letters, any other as it stands. A value that is a
    TOML value is that value, and any other is a text.

    Raises:  BadSettings with every problem; values are never repeated.
    """
    tables: dict[str, Any] = {}
    places: dict[Path, str] = {}
    problems: list[tuple[str, str]] = []
    start = f"{prefix}__"
    for variable in sorted(name for name in environ if name.startswith(start)):
        path = tuple(_small(part) for part in variable.removeprefix(start).split("__"))
        problem = _set(tables, path, environ[variable])
        if problem:
            problems.append((f"${variable}", problem))
        for length in range(1, len(path) + 1):
            places.setdefault(path[:length], f"the environment, ${variable}")
    if problems:
        raise BadSettings(problems)
    return Stated(tables=tables, places=places, source="the environment")


def merged(layers: Iterable[Stated], *, is_whole: Callable[[Path], bool] = lambda _: False) -> Stated:
    """Each layer laid over those before it: tables key by key, anything else, and what `is_whole`, as a whole."""
    tables: dict[str, Any] = {}
    places: dict[Path, str] = {}
    sources: list[str] = []
    for layer in layers:
        _lay(tables, places, (), layer, layer.tables, is_whole)
        sources.append(layer.source)
    return Stated(tables=tables, places=places, source=" under ".join(sources))


def is_objective(path: Path) -> bool:
    """Whether it is the objective of a guard, which is stated as a whole or not at all."""
    return len(path) == 3 and path[0] == "guard" and path[2] == "objective"


def kind_of(value: object) -> str:
    """What something is, without saying what it says."""
    if isinstance(value, float):
        return "nan" if isnan(value) else "a number with a point"
    names: Mapping[type, str] = {
        bool: "true or false",
        int: "a number",
        str: "a text",
        list: "an array",
        dict: "a table",
    }
    return names.get(type(value), "a date or time")


def _lay(
    under: dict[str, Any],
    places: dict[Path, str],
    at: Path,
    layer: Stated,
    over: Mapping[str, Any],
    is_whole: Callable[[Path], bool],
) -> None:
    for name, value in over.items():
        path = (*at, name)
        below = under.get(name)
        is_merged = isinstance(value, dict) and not is_whole(path)
        if not (is_merged and isinstance(below, dict)):
            _forget(places, path, below)
            below = under[name] = {} if is_merged else value
            if isinstance(value, dict) and not is_merged:
                _lay({}, places, path, layer, value, is_whole)
        if is_merged:
            _lay(below, places, path, layer, value, is_whole)
        if path in layer.places:
            places[path] = layer.places[path]


def _forget(places: dict[Path, str], path: Path, value: object) -> None:
    """Takes back where a value stood that has been replaced, and what stood in it."""
    places.pop(path, None)
    if isinstance(value, dict):
        for name, each in value.items():
            _forget(places, (*path, name), each)


def _small(name: str) -> str:
    return name.lower() if name.isupper() else name


def _set(tables: dict[str, Any], path: Path, text: str) -> str | None:
    """Puts one variable into the tables; what is wrong with it, if anything is."""
    if not all(path):
        return "has an empty name between two underscores"
    if len(path) > DEPTH_MAX:
        return f"nests deeper than {DEPTH_MAX} levels"
    if len(text) > VARIABLE_MAX:
        return f"is longer than {VARIABLE_MAX} characters"
    inner: object = tables
    for name in path[:-1]:
        inner = inner.setdefault(name, {}) if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        return "is a table here, and a value in another variable"
    if path[-1] in inner:
        return "is stated twice, or is a value here and a table in another variable"
    inner[path[-1]] = _value(text)
    return None


def _value(text: str) -> object:
    try:
        lines_of(f"value = {text}")  # for its bound on depth
        read = tomllib.loads(f"value = {text}")
    except (ValueError, TooDeep):
        return text
    return read["value"] if len(read) == 1 else text  # a text with line ends may look like several settings


def _decoded(text: str | bytes, source: str) -> str:
    """The text, if it can be one."""
    try:
        raw = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError as broken:
        problem = f"line {_line(broken.object, broken.start)} holds half of a character (a surrogate)"
        raise BadSettings([(source, problem)]) from None
    if len(raw) > BYTES_MAX:
        raise BadSettings([(source, f"larger than {BYTES_MAX} bytes")])
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadSettings([(source, "is UTF-16; save it as UTF-8")])
    if raw.startswith(b"\xef\xbb\xbf"):
        raise BadSettings([(source, "starts with a byte order mark; save it as UTF-8 without one")])
    try:
        plain = raw.decode()
    except UnicodeDecodeError as broken:
        line = raw.count(b"\n", 0, broken.start) + 1
        raise BadSettings([(source, f"line {line} is not UTF-8: byte 0x{raw[broken.start]:02x}")]) from None
    if "\0" in plain:
        raise BadSettings([(source, f"line {_line(plain, plain.index(chr(0)))} holds a NUL byte; is this a text?")])
    return plain


def _line(text: str, index: int) -> int:
    return text.count("\n", 0, index) + 1


def _placed(source: str, line: int | None) -> str:
    """Where in which text, as every message says it."""
    return source if line is None else f"{source}, line {line}"


def _toml(text: str, source: str) -> tuple[dict[str, Any], Lines]:
    """The text as tables, and where their keys stand."""
    try:
        lines = lines_of(text)
    except TooDeep as deep:
        raise BadSettings([(source, f"line {deep.line} nests deeper than {DEPTH_MAX} levels")]) from None
    try:
        return tomllib.loads(text), lines
    except tomllib.TOMLDecodeError as broken:
        # `tomllib` says of a key set twice only that a value cannot be overwritten, and often at the wrong line.
        if lines.twice and "overwrite" in str(broken):
            path, line = lines.twice[0]
            problem = f"is set in line {lines.found[path]} and again in line {line}"
            raise BadSettings([(written(path), problem)]) from None
        raise BadSettings([(source, f"is not TOML: {_cut(str(broken))}")]) from None
    except ValueError:
        # Not a mistake in the TOML: Python refuses to read a whole number of thousands of digits.
        long = _LONG_NUMBER.search(text)
        at = _placed(source, _line(text, long.start()) if long else None)
        raise BadSettings([(source, f"holds a number too long to read ({at})")]) from None


def _cut(message: str) -> str:
    return message if len(message) <= 200 else f"{message[:200]}..."
