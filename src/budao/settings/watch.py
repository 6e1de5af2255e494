"""When to look at a file that others change, and what to believe of what is seen.

A file is asked for its signature and read only if that is new. Three things make this less simple than it sounds. A
signature can stay the same while the file changes, if both happen within one tick of the file system's clock; so a new
signature is doubted for a while, and the file read again. A writer may be half done; so new content counts once two
reads agree on it. A file may be away for a moment between two versions; so being away, too, counts once it is seen twice.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import sha256

from budao.model import BadSettings, Checks, Mono


@dataclass(frozen=True, slots=True)
class Signature:
    """Fact: a look found the file there. Equal marks mean that nothing seems to have changed."""

    mark: Hashable


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Fact: a look, or a read, found no file that can be read."""

    problem: str


@dataclass(frozen=True, slots=True)
class Content:
    """Fact: the file was read from end to end."""

    raw: bytes
    is_steady: bool = True
    """Whether its signature was the same before and after."""


@dataclass(frozen=True, slots=True)
class Look:
    """Effect: ask for the signature; answer with `Signature` or `Unreadable`."""


@dataclass(frozen=True, slots=True)
class Read:
    """Effect: read the file; answer with `Content` or `Unreadable`."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Effect: this is what the file says now; it is not what was told last."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """Effect: why the file cannot be read, or None once it can again."""

    problem: str | None


Fact = Signature | Unreadable | Content
Effect = Look | Read | Tell | Report


class Watch:
    """A machine that follows one file.

    Units:   `every_s` is the pause between looks; `settle_s` the pause before a second look that confirms a first;
             `doubt_s` how long a new signature is doubted, which must exceed the tick of the file system's clock (two
             seconds on FAT, less elsewhere).
    Raises:  BadSettings for a pause that is not above 0.
    """

    def __init__(self, now: Mono, *, every_s: float = 1.0, settle_s: float = 0.1, doubt_s: float = 2.0) -> None:
        check = Checks("watch")
        check.number("every_s", every_s, 0.001, 86_400.0)
        check.number("settle_s", settle_s, 0.001, 3_600.0)
        check.number("doubt_s", doubt_s, 0.0, 3_600.0)
        if check.problems:
            raise BadSettings(check.problems)
        self.every_s, self.settle_s, self.doubt_s = every_s, min(settle_s, every_s), doubt_s
        self.problem: str | None = None
        """Why the file cannot be read, as reported last."""
        self._wake_at = now
        self._is_first = True
        self._signature: Signature | None = None
        self._seen_at = now
        self._read_at = now
        self._told: bytes | None = None
        self._likely: bytes | str | None = None
        """What a first look saw and a second has not confirmed: content as its digest, or a problem."""

    def wake_at(self) -> Mono:
        """When to look next."""
        return self._wake_at

    def wake(self, now: Mono) -> tuple[Effect, ...]:
        """Time has passed."""
        if now < self._wake_at:
            return ()
        self._wake_at = Mono(now + self.every_s)
        return (Look(),)

    def handle(self, fact: Fact, now: Mono) -> tuple[Effect, ...]:
        """Something was seen."""
        if isinstance(fact, Signature):
            return self._signed(fact, now)
        effects = self._read(fact, now) if isinstance(fact, Content) else self._missed(fact, now)
        self._is_first = False
        return effects

    def _signed(self, seen: Signature, now: Mono) -> tuple[Effect, ...]:
        if seen != self._signature:
            self._signature, self._seen_at = seen, now
        elif self._read_at - self._seen_at >= self.doubt_s and self._likely is None:
            return ()
        self._read_at = now
        return (Read(),)

    def _read(self, content: Content, now: Mono) -> tuple[Effect, ...]:
        if not content.is_steady:
            self._signature, self._likely = None, None
            self._look_soon(now)
            return ()
        effects: tuple[Effect, ...] = ()
        if self.problem is not None:
            self.problem = None
            effects = (Report(None),)
        digest = sha256(content.raw).digest()
        if digest == self._told:
            self._likely = None
        elif self._is_confirmed(digest, now):
            self._told = digest
            effects += (Tell(content.raw),)
        return effects

    def _missed(self, missed: Unreadable, now: Mono) -> tuple[Effect, ...]:
        self._signature = None
        if missed.problem == self.problem:
            self._likely = None
            return ()
        if not self._is_confirmed(missed.problem, now):
            return ()
        self.problem = missed.problem
        return (Report(missed.problem),)

    def _is_confirmed(self, seen: bytes | str, now: Mono) -> bool:
        # The first look of all is believed, so that a process starts with its settings in force.
        if self._is_first or seen == self._likely:
            self._likely = None
            return True
        self._likely = seen
        self._look_soon(now)
        return False

    def _look_soon(self, now: Mono) -> None:
        self._wake_at = min(self._wake_at, Mono(now + self.settle_s))
