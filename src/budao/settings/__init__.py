"""Text into frozen settings: parse, check, diff, and back to text.

A settings file speaks of guards by name. What it says is laid over the policy a guard would have without it, and either
all of it is good or none of it is taken. Nothing here opens a file: `budao.threads` does, told by `Watch` when to look.
"""

from budao.settings.adjustable import Adjustable
from budao.settings.changes import Change, describe, diff
from budao.settings.conflicts import Conflict, conflicts
from budao.settings.layers import EVERY, SOURCE, GuardSettings, Settings
from budao.settings.lines import DEPTH_MAX
from budao.settings.parsing import BYTES_MAX, GUARDS_MAX, PROBLEMS_MAX, parse
from budao.settings.watch import Content, Effect, Look, Read, Report, Signature, Tell, Unreadable, Watch
from budao.settings.writing import dump

__all__ = [
    "BYTES_MAX",
    "DEPTH_MAX",
    "EVERY",
    "GUARDS_MAX",
    "PROBLEMS_MAX",
    "SOURCE",
    "Adjustable",
    "Change",
    "Conflict",
    "Content",
    "Effect",
    "GuardSettings",
    "Look",
    "Read",
    "Report",
    "Settings",
    "Signature",
    "Tell",
    "Unreadable",
    "Watch",
    "conflicts",
    "describe",
    "diff",
    "dump",
    "parse",
]
