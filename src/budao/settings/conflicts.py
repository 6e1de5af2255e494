"""Parts of one policy that are each right and cannot work together: a line that nothing will ever cross."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from budao.model import GuardPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A number that can never have an effect, and why."""

    path: str
    problem: str
    between: tuple[str, ...]
    """The numbers to blame. A file that states none of them did not cause this."""
    given: tuple[str, ...] = ()
    """Numbers without blame that it also depends on. A file that does not state them leaves it open."""


def conflicts(policy: GuardPolicy) -> tuple[Conflict, ...]:
    """Everything in a policy that can never happen. Says nothing where it depends on how calls behave."""
    return (
        *_never_trips(policy),
        *_never_slow(policy),
        *_never_hedges(policy),
        *_never_limits(policy),
        *_waits(policy),
    )


def _never_trips(policy: GuardPolicy) -> Iterator[Conflict]:
    rate, breaker = policy.rate, policy.breaker
    if rate is None or breaker is None:
        return
    # Each call counted as often as it may be sent, so that "never" holds whichever way repeats are counted.
    sent_per_call = (policy.retry.attempts_max if policy.retry else 1) + (1 if policy.hedge else 0)
    calls = rate.calls_per_s * breaker.window_s + rate.burst
    if calls * sent_per_call < breaker.calls_min:
        sent = f", sent {sent_per_call} times each" if sent_per_call > 1 else ""
        yield Conflict(
            path="rate.calls_per_s",
            problem=f"the breaker can never open: {rate.calls_per_s:g} calls a second are at most {calls:g} in its window "
            f"of {breaker.window_s:g} s{sent}, and it asks for calls_min = {breaker.calls_min}",
            between=("rate.calls_per_s", "breaker.calls_min", "breaker.window_s"),
        )


def _never_slow(policy: GuardPolicy) -> Iterator[Conflict]:
    timeout, breaker = policy.timeout, policy.breaker
    # Only slow_s is to blame: somebody who shortens the timeout in an outage must not be held up by the other line.
    if timeout is not None and breaker is not None and timeout.call_s <= breaker.slow_s < inf:
        yield Conflict(
            path="breaker.slow_s",
            problem=f"{breaker.slow_s:g} s decides nothing: timeout.call_s ends a call after {timeout.call_s:g} s",
            between=("breaker.slow_s",),
            given=("timeout.call_s",),
        )


def _never_hedges(policy: GuardPolicy) -> Iterator[Conflict]:
    timeout, hedge = policy.timeout, policy.hedge
    if timeout is not None and hedge is not None and hedge.delay_min_s >= timeout.call_s:
        yield Conflict(
            path="hedge.delay_min_s",
            problem=f"no second call is ever sent: timeout.call_s ends the first after {timeout.call_s:g} s, before "
            f"{hedge.delay_min_s:g} s have passed",
            between=("hedge.delay_min_s",),
            given=("timeout.call_s",),
        )


def _never_limits(policy: GuardPolicy) -> Iterator[Conflict]:
    bulkhead, limit = policy.bulkhead, policy.limit
    if bulkhead is not None and limit is not None and limit.calls_min >= bulkhead.calls_max:
        yield Conflict(
            path="limit.calls_min",
            problem=f"the limit decides nothing: it never goes below {limit.calls_min} calls, and the bulkhead never "
            f"above calls_max = {bulkhead.calls_max}",
            between=("limit.calls_min", "bulkhead.calls_max"),
        )


def _waits(policy: GuardPolicy) -> Iterator[Conflict]:
    bulkhead = policy.bulkhead
    if bulkhead is not None and bulkhead.waiting_max > 0 and bulkhead.wait_max_s == 0:
        yield Conflict(
            path="bulkhead.waiting_max",
            problem=f"{bulkhead.waiting_max} places to wait in, and wait_max_s = 0 lets nobody wait",
            between=("bulkhead.waiting_max", "bulkhead.wait_max_s"),
        )
