"""How a connection ends: the code, and what it tells the client to do next.

Every code of ours says one of: come back now, come back later, do not come back. Codes of RFC 6455 that can reach a client are
here as well, since a client must know what to do about each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Advice(Enum):
    """What a client should do after the end."""

    NOW = "now"
    """Come back at once, with jitter; here or, better, at another gateway."""
    LATER = "later"
    """Come back after the time that is said."""
    NEVER = "never"
    """Do not come back before a person or a program has changed something: a new token, a smaller message."""


@dataclass(frozen=True, slots=True)
class Ending:
    """One way for a connection to end."""

    code: int
    why: str
    advice: Advice


_ALL: Final = (
    Ending(1000, "done", Advice.NEVER),
    Ending(1001, "going-away", Advice.NOW),
    Ending(1002, "protocol-error", Advice.NEVER),
    Ending(1003, "unsupported", Advice.NEVER),
    Ending(1006, "cut", Advice.NOW),
    Ending(1007, "bad-text", Advice.NEVER),
    Ending(1008, "refused", Advice.NEVER),
    Ending(1009, "too-large", Advice.NEVER),
    Ending(1011, "mistake", Advice.LATER),
    Ending(4100, "moved", Advice.NOW),
    Ending(4101, "slow", Advice.NOW),
    Ending(4102, "silent", Advice.NOW),
    Ending(4103, "blocked", Advice.NOW),
    Ending(4104, "replaced", Advice.NEVER),
    Ending(4200, "full", Advice.LATER),
    Ending(4201, "paced", Advice.LATER),
    Ending(4202, "rate", Advice.LATER),
    Ending(4203, "log-away", Advice.LATER),
    Ending(4300, "unauthorized", Advice.NEVER),
    Ending(4301, "expired", Advice.NEVER),
    Ending(4302, "forbidden", Advice.NEVER),
    Ending(4303, "bad-frame", Advice.NEVER),
    Ending(4304, "bad-ticket", Advice.NOW),
    Ending(4305, "version", Advice.NEVER),
)

BY_CODE: Final = {ending.code: ending for ending in _ALL}
BY_WHY: Final = {ending.why: ending for ending in _ALL}


def advice_for(code: int) -> Advice:
    """What a client does about a code. One it does not know is taken by its hundred: 41xx now, 42xx later, 43xx never."""
    known = BY_CODE.get(code)
    if known is not None:
        return known.advice
    return {41: Advice.NOW, 42: Advice.LATER, 43: Advice.NEVER}.get(code // 100, Advice.NOW)
