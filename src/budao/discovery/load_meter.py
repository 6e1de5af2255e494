"""What a server knows of its own load: the calls it has, and how long it works on one."""

from __future__ import annotations

from budao.model import Load

SERVICE_ALPHA = 0.1
"""The share of the way to the newest service time that is gone with each call: the last twenty or so count."""


class Work:
    """One call under way at a server. Ends exactly once."""

    __slots__ = ("_began", "_idle_since", "_idled_s", "_is_open")

    def __init__(self, began: float) -> None:
        self._began = began
        self._idle_since: float | None = None
        self._idled_s = 0.0
        self._is_open = True

    def wait(self, now: float) -> None:
        """From here on the call waits for a place: in a bulkhead, for a connection of a pool. Waits do not nest."""
        self._idle_since = now

    def go_on(self, now: float) -> None:
        """The wait is over; without one, nothing happens."""
        if self._idle_since is not None:
            self._idled_s += now - self._idle_since
            self._idle_since = None

    def worked_s(self, now: float) -> float:
        """The time it was worked on until `now`."""
        until = now if self._idle_since is None else self._idle_since
        worked_s = until - self._began - self._idled_s
        return max(worked_s, 0.0)

    def close(self) -> None:
        """Marks it as ended."""
        assert self._is_open, "a call ends exactly once"
        self._is_open = False


class LoadMeter:
    """Counts the calls of a server and averages its service time: what its replies tell.

    The service time of a call is its span less the waits it is told of, and no wait for the processor is taken out: a
    process that shares one among many calls looks slower the more it has, which moves callers away from it. That errs
    to the safe side; a span divided by the calls at once would make a full server look fast. Calls that failed teach
    nothing, since a server that fails at once would look like the fastest of all.

    Units:  seconds, on any clock that does not go back.
    """

    __slots__ = ("in_flight", "service_s")

    def __init__(self) -> None:
        self.in_flight = 0
        """Calls that began and did not end, those that wait for a place included."""
        self.service_s: float | None = None
        """None until a call went well."""

    def begin(self, now: float) -> Work:
        """A call arrived."""
        self.in_flight += 1
        return Work(now)

    def learn(self, work: Work, now: float) -> None:
        """The answer of a call is ready, and it is a good one."""
        worked_s, known_s = work.worked_s(now), self.service_s
        self.service_s = worked_s if known_s is None else known_s + SERVICE_ALPHA * (worked_s - known_s)

    def load(self) -> Load | None:
        """What to tell in the reply of one of the calls, that one left out; None while no call went well."""
        return None if self.service_s is None else Load(self.in_flight - 1, self.service_s)

    def end(self, work: Work) -> None:
        """A call is over, in whatever way."""
        work.close()
        self.in_flight -= 1
