"""Tables into a program's own settings: any dataclass, with every problem at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from math import isnan
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from budao.model import BadSettings
from budao.settings.layers import did_you_mean
from budao.settings.lines import Path
from budao.settings.parsing import PROBLEMS_MAX
from budao.settings.reading import Stated, kind_of
from budao.settings.writing import written

T = TypeVar("T")

_NAMES: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a table",
    list: "an array",
}


class _Wrong(Exception):
    """This value is wrong, and its problems have been noted."""


def typed(kind: type[T], stated: Stated) -> T:
    """An instance of the dataclass `kind` from tables; a field that nobody states has its default.

    Shapes:  fields are bool, int, float, str, an Enum (by value), a Literal, another dataclass, a list, tuple or dict of
             these, or one of them or None. Frozen or not; what `__post_init__` refuses with ValueError is a problem too.
    Raises:  BadSettings with every problem, each with its path and the place that states it. Values are not repeated.
             TypeError if the dataclass has a field of another kind: a mistake in the program.
    """
    reading = _Reading(stated)
    try:
        found = reading.dataclass(kind, (), stated.tables)
    except _Wrong:
        found = None
    if reading.problems:
        raise BadSettings(reading.problems)
    assert isinstance(found, kind), "without a problem there is a value"
    return found


class _Reading:
    """One pass over the tables."""

    def __init__(self, stated: Stated) -> None:
        self._stated = stated
        self.problems: list[tuple[str, str]] = []

    def dataclass(self, kind: type[Any], path: Path, value: object) -> Any:
        """A dataclass, if every field of it is good."""
        table = value if isinstance(value, Mapping) else self._refuse(path, "a table", value)
        hints = get_type_hints(kind)
        known = {field.name: field for field in fields(kind) if field.init}
        for name in table:
            if name not in known:
                # Looking for the nearest name is slow, and nobody reads the hundred-and-first.
                near = "" if self.is_full else did_you_mean(name, known)
                self._note((*path, name), f"is not a setting{near}")
        given: dict[str, Any] = {}
        before = len(self.problems)
        for name, field in known.items():
            if name in table:
                given |= self._tried(hints[name], (*path, name), table[name])
            elif field.default is MISSING and field.default_factory is MISSING:
                self._note((*path, name), "is needed, and nobody states it")
        if len(self.problems) > before or self.is_full:
            raise _Wrong
        try:
            return kind(**given)
        except BadSettings as bad:
            for wrong, problem in bad.problems:
                parts = wrong.split(".")
                if path and len(parts) > 1 and parts[0] == path[-1]:
                    del parts[0]  # it calls itself as its table is called
                self._note((*path, *parts), problem)
        except ValueError as bad:
            self._note(path, str(bad))
        raise _Wrong

    def value(self, kind: Any, path: Path, value: object) -> Any:
        """A value of the kind that a hint names."""
        origin, inside = get_origin(kind), get_args(kind)
        if origin in {Union, UnionType}:
            return self._one_of(inside, path, value)
        if origin is Literal:
            return value if value in inside else self._refuse(path, f"one of {', '.join(map(repr, inside))}", value)
        if origin in {list, tuple, Sequence}:
            return self._array(origin, inside, path, value)
        if origin in {dict, Mapping}:
            return self._table(inside, path, value)
        if is_dataclass(kind) and isinstance(kind, type):
            return self.dataclass(kind, path, value)
        if isinstance(kind, type) and issubclass(kind, Enum):
            named = [member for member in kind if member.value == value]
            return named[0] if named else self._refuse(path, f"one of {', '.join(repr(m.value) for m in kind)}", value)
        return self._plain(kind, path, value)

    def _plain(self, kind: Any, path: Path, value: object) -> Any:
        if kind is Any:
            return value
        if kind not in _NAMES:
            raise TypeError(f"{'.'.join(path)}: settings cannot be of the type {kind!r}")
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:  # TOML knows whole numbers that no float holds
                self._note(path, "is too large a number")
                raise _Wrong from None
            return number if not isnan(number) else self._refuse(path, "a number", value)
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        return self._refuse(path, _NAMES[kind], value)

    def _one_of(self, kinds: Sequence[Any], path: Path, value: object) -> Any:
        """Of several kinds, the first that fits; None cannot be stated, only left out."""
        stated = [kind for kind in kinds if kind is not NoneType]
        before = len(self.problems)
        for kind in stated[:-1]:
            try:
                return self.value(kind, path, value)
            except _Wrong:
                del self.problems[before:]
        return self.value(stated[-1], path, value)

    def _array(self, origin: Any, inside: Sequence[Any], path: Path, value: object) -> Any:
        items = value if isinstance(value, list) else self._refuse(path, "an array", value)
        kind = inside[0] if inside else Any
        made: dict[str, Any] = {}
        for index, item in enumerate(items):
            made |= self._tried(kind, (*path, str(index)), item)
        self._need_all(made, items)
        return list(made.values()) if origin is list else tuple(made.values())

    def _table(self, inside: Sequence[Any], path: Path, value: object) -> Any:
        table = value if isinstance(value, dict) else self._refuse(path, "a table", value)
        kind = inside[1] if inside else Any
        made: dict[str, Any] = {}
        for name, item in table.items():
            made |= self._tried(kind, (*path, name), item)
        self._need_all(made, table)
        return made

    def _need_all(self, made: Sized, stated: Sized) -> None:
        if len(made) < len(stated):
            raise _Wrong

    def _tried(self, kind: Any, path: Path, value: object) -> dict[str, Any]:
        """The value under its name; nothing if it is wrong, so that the next one is looked at too."""
        try:
            return {path[-1]: self.value(kind, path, value)}
        except _Wrong:
            return {}

    def _refuse(self, path: Path, wanted: str, value: object) -> Any:
        self._note(path, f"must be {wanted}, not {kind_of(value)}")
        raise _Wrong

    @property
    def is_full(self) -> bool:
        """Whether no further problem is listed."""
        return len(self.problems) > PROBLEMS_MAX

    def _note(self, path: Path, problem: str) -> None:
        if self.is_full:
            return
        if len(self.problems) == PROBLEMS_MAX:
            self.problems.append((self._stated.source, f"and perhaps more; the first {PROBLEMS_MAX} are listed"))
            return
        place = next((self._stated.places[each] for each in _upwards(path) if each in self._stated.places), None)
        self.problems.append((written(path) or self._stated.source, f"{problem} ({place or self._stated.source})"))


def _upwards(path: Path) -> Iterator[Path]:
    return (path[:end] for end in range(len(path), 0, -1))
