"""`budao settings get|set|history|rollback`: settings in a store, for all programs that follow them."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from budao.aio import Overtaken, Store, StoredSettings
from budao.apps.stores import shown
from budao.model import BadSettings
from budao.settings import TEXT_BYTES_MAX, Version, guard_settings, read_text


def check(text: str, source: str = "the text") -> None:
    """Whether programs can take the text: TOML, and right in every part that speaks of guards.

    What else a program of yours reads from it, only that program can judge; it keeps what it has if it cannot take it.
    """
    stated = read_text(text, source=source)
    if set(stated.tables) <= {"guard"}:
        guard_settings(stated)


def author() -> str:
    """Who is at the keyboard, for the history."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()


async def get(store: Store, name: str, *, number: int, as_json: bool, namespace: str) -> int:
    """Prints the text of a version: as it is, so that it can be edited and set again."""
    version = await StoredSettings(store, name, namespace=namespace).get(number)
    if version is None:
        what = f"version {number}" if number else "any settings"
        print(f"{name}: the store does not have {what}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(plain(version) | {"text": version.text}, ensure_ascii=False))
    else:
        print(version.text, end="" if version.text.endswith("\n") else "\n")
    return 0


async def put(
    store: Store, name: str, file: Path, *, note: str, expected: int | None, as_json: bool, namespace: str
) -> int:
    """Makes a text the current version."""
    raw = sys.stdin.buffer.read(TEXT_BYTES_MAX + 1) if str(file) == "-" else _read(file)
    if raw is None:
        return 1
    source = "the text" if str(file) == "-" else str(file)
    stored = StoredSettings(store, name, check=partial(check, source=source), namespace=namespace)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        print(f"{file}: is not UTF-8; nothing was changed", file=sys.stderr)
        return 1
    if not text.strip():
        # Most often a pipe whose first command failed; it would take everything back everywhere.
        print(
            f"{file}: is empty, nothing was changed; to take all settings back, set a text of one comment",
            file=sys.stderr,
        )
        return 1
    return await _made(lambda: stored.set(text, by=author(), note=note, expected=expected), name, as_json=as_json)


async def roll_back(store: Store, name: str, number: int, *, as_json: bool, namespace: str) -> int:
    """Makes an earlier text current again."""
    stored = StoredSettings(store, name, check=check, namespace=namespace)
    return await _made(lambda: stored.roll_back(number, by=author()), name, as_json=as_json)


async def history(store: Store, name: str, *, as_json: bool, namespace: str) -> int:
    """Prints which versions are kept, the newest first."""
    versions = await StoredSettings(store, name, namespace=namespace).history()
    if as_json:
        print(json.dumps([plain(version) for version in versions], indent=1, ensure_ascii=False))
        return 0
    if not versions:
        print(f"{name}: the store has no settings under this name", file=sys.stderr)
        return 1
    made = Table(title=f"settings {name}", title_justify="left")
    made.add_column("version", justify="right")
    for column in ("at", "by", "note", "lines"):
        made.add_column(column, overflow="fold")
    for index, version in enumerate(versions):
        at = datetime.fromtimestamp(version.at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        number = Text(f"{version.number}{' (current)' if index == 0 else ''}")
        lines = str(len(version.text.splitlines()))
        made.add_row(number, Text(at), Text(shown(version.by)), Text(shown(version.note)), Text(lines))
    Console().print(made)
    return 0


def plain(version: Version) -> dict[str, Any]:
    """A version for JSON, without its text."""
    return {
        "number": version.number,
        "at": version.at,
        "by": version.by,
        "note": version.note,
        "back_to": version.back_to,
    }


async def _made(make: Callable[[], Any], name: str, *, as_json: bool) -> int:
    try:
        version: Version = await make()
    except (BadSettings, Overtaken) as refused:
        print(refused, file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(plain(version), ensure_ascii=False))
    else:
        print(f"{name}: version {version.number} is current" + (f", {version.note}" if version.back_to else ""))
    return 0


def _read(file: Path) -> bytes | None:
    try:
        with file.open("rb") as opened:
            return opened.read(TEXT_BYTES_MAX + 1)
    except OSError as problem:
        print(f"{file}: cannot be read: {problem.strerror}", file=sys.stderr)
        return None
