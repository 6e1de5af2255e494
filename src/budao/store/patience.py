"""How long to wait before a store that failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from budao.model import Checks, Mono


@dataclass(frozen=True, slots=True, kw_only=True)
class PatiencePolicy:
    """Pauses that grow with each failure in a row.

    Units:   seconds.
    """

    pause_first_s: float = 0.05
    """Upper end of the first pause."""
    pause_max_s: float = 2.0
    """No pause is longer; and what goes well for this long has ended the row of failures."""

    def __post_init__(self) -> None:
        check = Checks("patience")
        check.number("pause_first_s", self.pause_first_s, 0.0, 3_600.0, open_low=True)
        check.number("pause_max_s", self.pause_max_s, 0.0, 3_600.0, open_low=True)
        if not check.problems:
            check.need(
                self.pause_first_s <= self.pause_max_s,
                "pause_max_s",
                f"{self.pause_max_s:g} s is shorter than pause_first_s, {self.pause_first_s:g} s",
            )
        check.done()


class Patience:
    """A machine that counts failures in a row. Full jitter: a pause is drawn evenly from 0 to a ceiling that doubles.

    One success does not end the row: a store that answers and fails in turn would be asked without any pause.

    Source:  Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), full jitter.
    """

    def __init__(self, policy: PatiencePolicy | None = None) -> None:
        self.policy = PatiencePolicy() if policy is None else policy
        self._failed = 0
        self._well_since: Mono | None = None

    def went_well(self, now: Mono) -> None:
        """The store answered."""
        if self._well_since is None:
            self._well_since = now

    def pause_s(self, now: Mono, rng: Random) -> float:
        """The store failed: how long to wait now."""
        if self._well_since is not None and now - self._well_since >= self.policy.pause_max_s:
            self._failed = 0
        self._well_since = None
        doublings = min(self._failed, 64)  # a float power of two overflows near 1024; no ceiling is that far away
        self._failed += 1
        return rng.uniform(0.0, min(self.policy.pause_max_s, self.policy.pause_first_s * 2.0**doublings))
