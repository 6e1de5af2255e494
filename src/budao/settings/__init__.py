"""Text into frozen settings: parse, check, diff, and back to text.

A settings file speaks of guards by name. What it says is laid over the policy a guard would have without it, and either
all of it is good or none of it is taken. Environment variables and a store may be laid over the file. Nothing here opens a file: `budao.threads` does, told by `Watch` when to look.
"""

from budao.settings.adjustable import Adjustable, checked, taken
from budao.settings.changes import Change, describe, diff
from budao.settings.conflicts import Conflict, conflicts
from budao.settings.layering import Layers
from budao.settings.layers import EVERY, SOURCE, GuardSettings, Settings
from budao.settings.lines import DEPTH_MAX
from budao.settings.parsing import GUARDS_MAX, PROBLEMS_MAX, guard_settings, parse
from budao.settings.reading import BYTES_MAX, PREFIX, Stated, is_objective, merged, read_environment, read_text
from budao.settings.typed import typed
from budao.settings.versions import (
    TEXT_BYTES_MAX,
    VERSIONS_MAX,
    Version,
    change,
    current_key,
    going_back,
    history,
    read_version,
    version_key,
    versions_span,
)
from budao.settings.watch import Content, Effect, Look, Read, Report, Signature, Tell, Unreadable, Watch
from budao.settings.writing import dump

__all__ = [
    "BYTES_MAX",
    "DEPTH_MAX",
    "EVERY",
    "GUARDS_MAX",
    "PREFIX",
    "PROBLEMS_MAX",
    "SOURCE",
    "TEXT_BYTES_MAX",
    "VERSIONS_MAX",
    "Adjustable",
    "Change",
    "Conflict",
    "Content",
    "Effect",
    "GuardSettings",
    "Layers",
    "Look",
    "Read",
    "Report",
    "Settings",
    "Signature",
    "Stated",
    "Tell",
    "Unreadable",
    "Version",
    "Watch",
    "change",
    "checked",
    "conflicts",
    "current_key",
    "describe",
    "diff",
    "dump",
    "going_back",
    "guard_settings",
    "history",
    "is_objective",
    "merged",
    "parse",
    "read_environment",
    "read_text",
    "read_version",
    "taken",
    "typed",
    "version_key",
    "versions_span",
]
