"""Programs: one short function per process, and the `budao` command line.

Here the rooms meet. Nothing imports this room.
"""

from budao.apps.command import main

__all__ = ["main"]
