"""The same machines for threaded programs: one lock, no event loop.

Whatever waits is here or in `aio`; nothing here decides.
"""

from budao.threads.background import submit, thread
from budao.threads.calls import crowd, descend, race, repeat
from budao.threads.files import FileWatch, Following, follow
from budao.threads.flight import single
from budao.threads.streams import stream

__all__ = [
    "FileWatch",
    "Following",
    "crowd",
    "descend",
    "follow",
    "race",
    "repeat",
    "single",
    "stream",
    "submit",
    "thread",
]
