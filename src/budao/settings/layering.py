"""One value from several layers that change by themselves: a file, the environment, a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from budao.model import BadSettings
from budao.settings.reading import Stated, is_objective, merged, read_text
from budao.settings.versions import Version

T = TypeVar("T")


class Layers(Generic[T]):
    """Holds what each layer says, and the last value that was good as a whole.

    The order is: the defaults in the code, the file, the environment, the store; what comes later wins. `build` makes the
    value of all of them together, and raises BadSettings if it cannot.

    Raises:  BadSettings if the environment alone gives no value: a mistake that is there from the start should stop a
             program while somebody is looking.
    """

    def __init__(self, build: Callable[[Stated], T], *, environment: Stated) -> None:
        self._build = build
        self._file: bytes | None = None
        self._file_name = ""
        self._environment = environment
        self._version: Version | None = None
        self._unreadable: tuple[tuple[str, str], ...] = ()
        self.value: T = build(self._merged())
        self.problems: tuple[tuple[str, str], ...] = ()
        """Why what the layers say now is not in force; empty if it is."""
        self.version = 0
        """The number of the store's version in force; 0 for none."""

    def file_said(self, raw: bytes | None, name: str) -> bool:
        """The file has a new content, or is gone for good; the answer is whether `value` is new."""
        self._file, self._file_name = raw, name
        return self._take()

    def store_said(self, said: Version | BadSettings | None) -> bool:
        """The store has another version, or none, or something that cannot be read; whether `value` is new."""
        self._unreadable = said.problems if isinstance(said, BadSettings) else ()
        if not isinstance(said, BadSettings):
            self._version = said
        return self._take()

    def _take(self) -> bool:
        try:
            value = self._build(self._merged())
        except BadSettings as bad:
            self.problems = bad.problems + self._unreadable
            return False
        self.problems = self._unreadable
        self.version = self._version.number if self._version else 0
        is_new = value != self.value
        self.value = value
        return is_new

    def _merged(self) -> Stated:
        layers: list[Stated] = []
        if self._file is not None:
            layers.append(read_text(self._file, source=self._file_name))
        layers.append(self._environment)
        if self._version is not None:
            layers.append(read_text(self._version.text, source=f"the store, version {self._version.number}"))
        return merged(layers, is_whole=is_objective)
