"""The `Guard` object: one objective, many protected callables; and the settings that guards and programs follow.

It joins the rooms below: derives settings, compiles a call for each function, and gives it the shell it needs, the
event loop's for coroutines and the threads' for everything else. It decides nothing itself.
"""

from budao.protect.behind import Behind
from budao.protect.block import Block
from budao.protect.clock import default_clock, strict
from budao.protect.guard import FailedIf, Guard
from budao.protect.live_settings import LiveSettings, live_guards
from budao.protect.view import GuardView

__all__ = [
    "Behind",
    "Block",
    "FailedIf",
    "Guard",
    "GuardView",
    "LiveSettings",
    "default_clock",
    "live_guards",
    "strict",
]
