"""One guarded call that is held open by hand: a block, a stream, a request that a server answers."""

from __future__ import annotations

from math import inf

from budao.guard.core import STREAMING, Core
from budao.model import Dropped, context


class Passage:
    """From being let in to leaving, settled exactly once.

    `until` is when the answer must have begun; `outer` is when the whole of it must be there, which only a caller's
    deadline says: how long a stream may take is not how long a call may take.

    `enter` lets the call in or raises; a shell then waits for a place if `is_crowded`; `leave` ends it. In between,
    `answered` stops the latency clock at the first sign of an answer, `failed` and `drop` say what no exception says.
    """

    __slots__ = (
        "_bad",
        "_dropped",
        "_is_over",
        "_settled",
        "_was_bad",
        "core",
        "is_crowded",
        "outer",
        "permit",
        "started",
        "until",
    )

    def __init__(self, core: Core) -> None:
        self.core = core
        self.until = self.outer = inf
        self._bad = self._was_bad = self._dropped = self._settled = self._is_over = False

    def enter(self, now: float, until: float = inf) -> None:
        """Lets the call in.

        Raises: CallRefused.
        """
        core = self.core
        limit = self.outer = min(until, context.deadline.get())
        if now < core.quiet_until and now < limit:
            self.permit = None
        else:
            self.permit = core.enter(now, limit)
        if core.bucket is not None:
            core.pay(self.permit, now)
        timeout = core.home.policy.timeout
        self.until = min(limit, now + timeout.call_s) if timeout is not None else limit
        self.started = now
        core.in_flight[now] = None
        self.is_crowded = len(core.in_flight) > core.calls_max or bool(core.waiters)

    def answered(self, now: float) -> None:
        """The answer began to come: its latency is known, and the place is still held."""
        if self._settled:
            return
        self.core.in_flight[self.started] = STREAMING
        self._settle(now)

    def failed(self) -> None:
        """The call counts as failed, although nothing was raised."""
        self._bad = True

    def drop(self) -> None:
        """The call says nothing about the other side."""
        self._dropped = True

    def leave(self, error: BaseException | None, now: float) -> None:
        """The call is over. Further calls change nothing."""
        if self._is_over:
            return
        self._is_over = True
        core = self.core
        core.in_flight.pop(self.started, None)
        if core.waiters:
            core.release(now)
        if self._settled:
            is_failure = isinstance(error, Exception) and core.home.is_failure(error)
            if not self._dropped and not self._was_bad and (self._bad or is_failure):
                core.broke(now, self.started, self.permit)
            return
        was_said = self._dropped or (self._bad and isinstance(error, Exception))
        if error is not None and not was_said:
            self._settled = True
            core.fail(self.permit, self.started, error, now)
        else:
            self._settle(now)

    def _settle(self, now: float) -> None:
        self._settled = True
        core = self.core
        if self._dropped:
            core.drop(self.permit, self.started, Dropped.CANCELLED, now)
        else:
            self._was_bad = self._bad
            core.done(self.permit, self.started, now, failed=self._bad)
