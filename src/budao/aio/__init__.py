"""The same machines on an event loop: timers, waiting, retries, hedges, streams, background tasks.

Whatever waits is here or in `threads`; nothing here decides.
"""

from budao.aio.background import Background
from budao.aio.calls import Suspended, crowd, descend, repeat, reset_anywhere
from budao.aio.duel import as_coroutine
from budao.aio.flight import single
from budao.aio.lag import LagProbe
from budao.aio.streams import stream

__all__ = [
    "Background",
    "LagProbe",
    "Suspended",
    "as_coroutine",
    "crowd",
    "descend",
    "repeat",
    "reset_anywhere",
    "single",
    "stream",
]
