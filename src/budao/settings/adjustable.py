"""What can follow a settings file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from budao.model import BadSettings
from budao.settings.changes import Change
from budao.settings.layers import Settings


class Adjustable(Protocol):
    """Something with a name in the file: a guard.

    Two steps, since several share one file: all are asked before the first is changed.
    """

    @property
    def name(self) -> str: ...

    def preview(self, settings: Settings) -> tuple[Change, ...]:
        """What `reconfigure` would change. Changes nothing.

        Raises: BadSettings, if these settings cannot be in force together with what the code says.
        """
        ...

    def reconfigure(self, settings: Settings) -> tuple[Change, ...]:
        """Take these settings as a whole, and say what changed.

        May be called on any thread. Cannot fail where `preview` did not.
        """
        ...


def checked(settings: Settings, guards: Iterable[Adjustable]) -> Settings:
    """The settings, if every guard can take them.

    Raises:  BadSettings with every problem of every guard; none of them has been changed.
    """
    problems: dict[tuple[str, str], None] = {}
    for guard in guards:
        try:
            guard.preview(settings)
        except BadSettings as bad:
            problems |= dict.fromkeys(bad.problems)
    if problems:
        raise BadSettings(list(problems))
    return settings


def taken(settings: Settings, guards: Iterable[Adjustable]) -> dict[str, tuple[Change, ...]]:
    """Gives `checked` settings to every guard: what changed, by the names of the guards that it changed."""
    changes = {guard.name: guard.reconfigure(settings) for guard in guards}
    return {name: changed for name, changed in changes.items() if changed}
