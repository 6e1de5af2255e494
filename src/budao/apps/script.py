"""What the inventory service goes through while the demo runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

SECONDS_MIN = 5
SECONDS_MAX = 600


class Manner(Enum):
    """How the inventory service treats whoever asks it."""

    WELL = "well"
    SLOW = "slow"
    HANGING = "hanging"
    FAILING = "failing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of the demo. Units: whole seconds since its start; `end_s` is outside."""

    name: str
    manner: Manner
    says: str
    """What the inventory service does, in a few words."""
    start_s: int
    end_s: int

    @property
    def is_ill(self) -> bool:
        return self.manner is not Manner.WELL


# Name, manner, words, and the share of the time. The ill phases together take three fifths.
_PARTS = (
    ("healthy", Manner.WELL, "answers in about 20 ms", 0.18),
    ("slow", Manner.SLOW, "answers in 0.6 to 1.2 s", 0.2),
    ("hanging", Manner.HANGING, "accepts, never answers", 0.2),
    ("failing", Manner.FAILING, "answers 500 at once", 0.2),
    ("recovered", Manner.WELL, "answers in about 20 ms again", 0.22),
)


def phases(seconds: int) -> tuple[Phase, ...]:
    """The five phases, laid end to end over `seconds`. Each starts on a whole second, so every second has one phase."""
    assert SECONDS_MIN <= seconds <= SECONDS_MAX, "the command line checks this"
    ends: list[int] = []
    share_gone = 0.0
    for index, (*_, share) in enumerate(_PARTS):
        share_gone += share
        after, left = (ends[-1] if ends else 0) + 1, len(_PARTS) - 1 - index
        ends.append(min(seconds - left, max(after, round(seconds * share_gone))))
    starts = [0, *ends[:-1]]
    return tuple(
        Phase(name=name, manner=manner, says=says, start_s=start, end_s=end)
        for (name, manner, says, _), start, end in zip(_PARTS, starts, ends, strict=True)
    )


def phase_at(script: tuple[Phase, ...], at_s: float) -> Phase:
    """The phase in force; before the first it is the first, after the last the last."""
    return next((phase for phase in script if at_s < phase.end_s), script[-1])
