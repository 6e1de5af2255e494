"""What can follow a settings file."""

from __future__ import annotations

from typing import Protocol

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
