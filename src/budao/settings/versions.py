"""Settings kept in a store: versions with a history, and the way back.

A name has one current version, and a bounded number of earlier ones beside it. Each change is one transaction on the
condition that nobody else changed it meanwhile, so that the history has no hole and no fork. Going back is a change
like any other: the old text becomes a new version, and the history says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Final
from urllib.parse import quote

from budao.model import BadSettings, Wall
from budao.store import Condition, Delete, Entry, Put, Span, Txn, absent, unchanged

VERSIONS_MAX: Final = 50
"""How many versions of one name are kept, the current one included."""
TEXT_BYTES_MAX: Final = 262_144
"""Of one version. A store takes values of a mebibyte; a settings text that long is a mistake."""
NOTE_MAX: Final = 200
NAME_MAX: Final = 100
NUMBER_MAX: Final = 999_999_999_999
"""No version has a larger number: a key holds twelve digits."""
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One text that was in force, or is.

    Units:   `at` by the clock of whoever wrote it; two machines may disagree, the numbers do not.
    """

    number: int
    text: str
    at: Wall
    by: str = ""
    note: str = ""
    back_to: int = 0
    """The version whose text this is, where somebody went back; else 0."""


def current_key(name: str, namespace: str = "budao") -> str:
    """Where the current version stands.

    Raises:  BadSettings for a name that is empty, long, or not printable.
    """
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise BadSettings([("name", f"the name of settings has 1 to {NAME_MAX} printable characters")])
    return f"{namespace}/settings/{quote(name, safe='')}/current"


def version_key(name: str, number: int, namespace: str = "budao") -> str:
    """Where one version stands; the digits keep the order of the keys that of the numbers."""
    return f"{_versions(name, namespace)}{number:012d}"


def versions_span(name: str, namespace: str = "budao") -> Span:
    """All versions of a name that are kept."""
    return Span.prefix(_versions(name, namespace))


def written_version(version: Version) -> bytes:
    """A version as it is kept.

    Raises:  BadSettings if it is too long to keep.
    """
    size = len(version.text.encode())
    if size > TEXT_BYTES_MAX:
        raise BadSettings([("text", f"{size} bytes are more than {TEXT_BYTES_MAX}")])
    shortened = asdict(version) | {"by": version.by[:NOTE_MAX], "note": version.note[:NOTE_MAX]}
    return json.dumps({"format": _FORMAT} | shortened, ensure_ascii=False).encode()


def read_version(entry: Entry) -> Version:
    """A version from what is kept.

    Raises:  BadSettings if something else stands there; the text is not repeated.
    """
    try:
        found = json.loads(entry.value)
        if found["format"] != _FORMAT:
            raise BadSettings([(entry.key, f"is of format {found['format']!r:.40}, and this program reads {_FORMAT}")])
        return Version(
            number=_count(found, "number", 1),
            text=_text(found, "text"),
            at=_instant(found, "at"),
            by=_text(found, "by"),
            note=_text(found, "note"),
            back_to=_count(found, "back_to", 0),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as broken:
        if isinstance(broken, BadSettings):
            raise
        raise BadSettings([(entry.key, "is no version of settings; somebody wrote something else there")]) from None


def change(
    name: str, text: str, current: Entry | None, now: Wall, *, by: str = "", note: str = "", namespace: str = "budao"
) -> tuple[Version, Txn]:
    """The next version, and the transaction that makes it current unless somebody else was quicker.

    Raises:  BadSettings if the text is too long, or what is there now cannot be read.
    """
    version = Version(number=_next(current), text=text, at=now, by=by, note=note)
    return version, _make_current(name, version, current, namespace)


def going_back(
    name: str, wanted: Version, current: Entry | None, now: Wall, *, by: str = "", namespace: str = "budao"
) -> tuple[Version, Txn]:
    """The text of an earlier version as the next one."""
    number = _next(current)
    note = f"back to version {wanted.number}"
    version = Version(number=number, text=wanted.text, at=now, by=by, note=note, back_to=wanted.number)
    return version, _make_current(name, version, current, namespace)


def history(entries: Iterable[Entry]) -> tuple[Version, ...]:
    """Versions from what is kept, the newest first."""
    return tuple(sorted(map(read_version, entries), key=lambda version: -version.number))


def _next(current: Entry | None) -> int:
    return read_version(current).number + 1 if current is not None else 1


def _make_current(name: str, version: Version, current: Entry | None, namespace: str) -> Txn:
    key, raw = current_key(name, namespace), written_version(version)
    still: Condition = absent(key) if current is None else unchanged(current)
    then: list[Put | Delete] = [Put(key, raw), Put(version_key(name, version.number, namespace), raw)]
    if version.number > VERSIONS_MAX:
        # Everything older at once, so that a hole left by somebody's own delete does not keep one for ever.
        oldest = version_key(name, version.number - VERSIONS_MAX + 1, namespace)
        then.append(Delete(Span(_versions(name, namespace), oldest)))
    return Txn(when=(still,), then=tuple(then))


def _versions(name: str, namespace: str) -> str:
    return f"{current_key(name, namespace).removesuffix('current')}versions/"


def _count(found: dict[str, Any], name: str, low: int) -> int:
    value = found[name]
    if type(value) is not int or not low <= value <= NUMBER_MAX:
        raise ValueError(name)
    return value


def _text(found: dict[str, Any], name: str) -> str:
    value = found[name]
    if not isinstance(value, str):
        raise TypeError(name)
    value.encode()  # raises for half a surrogate pair, which JSON can say and no file can hold
    return value


def _instant(found: dict[str, Any], name: str) -> Wall:
    value = found[name]
    if type(value) not in {int, float} or not isfinite(value):
        raise ValueError(name)
    return Wall(float(value))
