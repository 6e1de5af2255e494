"""On which line of a settings text each key stands, which `tomllib` does not tell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field

DEPTH_MAX = 8
"""Tables within tables, and arrays within arrays. Twice what settings need, far less than what slows a parser down."""

Path = tuple[str, ...]

# A string that is never closed matches none of the string forms, leaves its quote as an odd sign, and ends the scan.
_TOKEN = re.compile(
    r"""
    (?P<text> \"{3} (?:[^\\]|\\.)*? \"{3,5} | '{3} .*? '{3,5} | \"(?:[^\"\\\n]|\\[^\n])*\" | '[^'\n]*' )
    | (?P<bare> [A-Za-z0-9_+:-]+ )
    | (?P<line> \n )
    | (?P<sign> [\[\]{}=,.] )
    | (?P<skip> [\x20\t\r]+ | \#[^\n]* )
    | (?P<odd> . )
    """,
    re.VERBOSE | re.DOTALL,
)


class TooDeep(Exception):
    """The text nests deeper than any settings do."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


@dataclass(slots=True)
class _Scan:
    """Where a scan stands. Tolerant: what is not TOML is for `tomllib` to refuse."""

    found: dict[Path, int] = field(default_factory=dict)
    twice: list[tuple[Path, int]] = field(default_factory=list)
    table: Path = ()
    """What the last header named; keys of a line belong to it."""
    key: list[str] = field(default_factory=list)
    is_value: bool = False
    is_header: bool = False
    nested: list[Path | None] = field(default_factory=list)
    """The path of each open inline table, None for an array."""
    line: int = 1

    def full(self) -> Path:
        prefix = self.table
        if self.nested:
            prefix = self.nested[-1] or ()
        path = () if self.is_header else prefix
        return (*path, *self.key)

    def deepen(self, size: int) -> None:
        if size > DEPTH_MAX:
            raise TooDeep(self.line)

    def name(self, token: str) -> None:
        if not self.is_value:
            self.key.append(_plain(token))
            self.deepen(len(self.key) if self.is_header else len(self.full()))

    def sign(self, sign: str) -> None:
        if sign == "[" and not self.is_value and not self.key and not self.nested:
            self.is_header = True
        elif sign in "[{":
            self.deepen(len(self.nested) + 1)
            self.nested.append(self.full() if sign == "{" else None)
            self.is_value = sign == "["
            self.key = []
        elif sign == "]" and self.is_header:
            if self.key:
                self.table = self.full()
                self.find(self.table)
                self.key = []
        elif sign in "]}":
            if self.nested:
                self.nested.pop()
            self.key, self.is_value = [], True
        elif sign == "=":
            self.keep()
            self.is_value = True
        elif sign == "," and self.nested and self.nested[-1] is not None:
            self.key, self.is_value = [], False

    def keep(self) -> None:
        path = self.full()
        if path in self.found:
            self.twice.append((path, self.line))
        self.find(path)

    def find(self, path: Path) -> None:
        for length in range(1, len(path) + 1):
            self.found.setdefault(path[:length], self.line)

    def newline(self) -> None:
        self.line += 1
        if not self.nested:
            self.key, self.is_value, self.is_header = [], False, False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Where keys stand in a text."""

    found: dict[Path, int]
    """The first line, counted from 1, that names each key or table."""
    twice: list[tuple[Path, int]]
    """Keys that are set again, with the line of the later one."""


def lines_of(text: str) -> Lines:
    """Find every key of a TOML text; as much as can be read of one that is broken.

    Raises: TooDeep, so that a parser whose work grows with the square of the depth never sees such a text.
    Cost:   one pass.
    """
    scan = _Scan()
    for kind, token in _tokens(text):
        if kind == "line":
            scan.newline()
        elif kind == "sign":
            scan.sign(token)
        elif kind == "bare":
            scan.name(token)
        elif kind == "text":
            scan.name(token)
            scan.line += token.count("\n")
        elif kind == "odd":
            break
    return Lines(found=scan.found, twice=scan.twice)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(text):
        assert match.lastgroup is not None, "every form of a token has a name"
        yield match.lastgroup, match.group()


def _plain(token: str) -> str:
    """What a key says without its quotes."""
    if token[0] == "'":
        return token.strip("'")
    if token[0] != '"':
        return token
    if "\\" not in token and not token.startswith('"""'):
        return token[1:-1]
    try:
        return str(tomllib.loads(f"key = {token}")["key"])
    except ValueError:
        return token
