"""Four policies around one call, outermost first: retry, breaker, bulkhead, timeout.

Each peer stacks them its own way; where a library has no retry or breaker of its own, its documented partner
stands in. The function never fails with the retried type, so a stack is paid for and never waits.
"""

from __future__ import annotations

import asyncio
import functools
from importlib import import_module

from bench.peers.candidate import AsyncCall, Candidate, Feature, SyncCall

NOPANIC = "nopanic"

CONCURRENT_MAX = 64
TIMEOUT_S = 1.0

_AROUND = frozenset({Feature.RETRY, Feature.BULKHEAD, Feature.TIMEOUT})


def stacks() -> list[Candidate]:
    """The four-policy stacks of the peers which offer one."""
    by_rate = _AROUND | {Feature.FAILED_RATE}
    in_a_row = _AROUND | {Feature.CONSECUTIVE}
    by_hand = ("tenacity", "circuitbreaker")
    return [
        Candidate(NOPANIC, by_rate | {Feature.PROBE_CAP}, _nopanic, _nopanic_async, ("nopanic",)),
        Candidate("pyresilience", in_a_row, _pyresilience, _pyresilience_async, ("pyresilience",)),
        Candidate("hyx", in_a_row, None, _hyx, ("hyx",)),
        Candidate(
            "interlock pipeline",
            by_rate | {Feature.SLOW_RATE, Feature.GENERATIONS, Feature.PROBE_CAP},
            _interlock,
            _interlock_async,
            ("interlock", "tenacity"),
        ),
        Candidate("by hand: tenacity, circuitbreaker, asyncio", in_a_row, None, _by_hand, by_hand),
    ]


def _nopanic(fn: SyncCall) -> SyncCall:
    library = import_module("nopanic")
    wrapped: SyncCall = library.compose(
        library.retry(attempts=3, on=ConnectionError),
        library.circuit_breaker(name="bench"),
        library.bulkhead(CONCURRENT_MAX, max_wait=0),
        library.timeout(TIMEOUT_S),
    )(fn)
    return wrapped


def _nopanic_async(fn: AsyncCall) -> AsyncCall:
    library = import_module("nopanic")
    wrapped: AsyncCall = library.compose(
        library.retry(attempts=3, on=ConnectionError),
        library.circuit_breaker(name="bench"),
        library.bulkhead(CONCURRENT_MAX, max_wait=0),
        library.timeout(TIMEOUT_S),
    )(fn)
    return wrapped


def _pyresilience(fn: SyncCall) -> SyncCall:
    library = import_module("pyresilience")
    wrapped: SyncCall = library.resilient(
        retry=library.RetryConfig(max_attempts=3, retry_on=(ConnectionError,)),
        circuit_breaker=library.CircuitBreakerConfig(),
        bulkhead=library.BulkheadConfig(max_concurrent=CONCURRENT_MAX),
        timeout=library.TimeoutConfig(seconds=TIMEOUT_S),
    )(fn)
    return wrapped


def _pyresilience_async(fn: AsyncCall) -> AsyncCall:
    library = import_module("pyresilience")
    wrapped: AsyncCall = library.resilient(
        retry=library.RetryConfig(max_attempts=3, retry_on=(ConnectionError,)),
        circuit_breaker=library.CircuitBreakerConfig(),
        bulkhead=library.BulkheadConfig(max_concurrent=CONCURRENT_MAX),
        timeout=library.TimeoutConfig(seconds=TIMEOUT_S),
    )(fn)
    return wrapped


def _hyx(fn: AsyncCall) -> AsyncCall:
    # Its timeout decorator asks for the running loop, so this must be built inside one.
    timed = import_module("hyx.timeout").timeout(TIMEOUT_S)(fn)
    held = import_module("hyx.bulkhead").bulkhead(CONCURRENT_MAX, CONCURRENT_MAX)(timed)
    broken = import_module("hyx.circuitbreaker").consecutive_breaker()(held)
    wrapped: AsyncCall = import_module("hyx.retry").retry(on=ConnectionError, attempts=3)(broken)
    return wrapped


def _interlock(fn: SyncCall) -> SyncCall:
    library = import_module("interlock")
    retry_unless_open = import_module("interlock.integrations.tenacity").retry_unless_open
    wrapped: SyncCall = (
        library.Pipeline.builder()
        .retry(attempts=3, retry=retry_unless_open(ConnectionError))
        .circuit_breaker(library.CircuitBreaker(name="bench"))
        .bulkhead(CONCURRENT_MAX)
        .timeout(TIMEOUT_S)
        .build()
    )(fn)
    return wrapped


def _interlock_async(fn: AsyncCall) -> AsyncCall:
    library = import_module("interlock")
    retry_unless_open = import_module("interlock.integrations.tenacity").retry_unless_open
    wrapped: AsyncCall = (
        library.Pipeline.builder()
        .retry(attempts=3, retry=retry_unless_open(ConnectionError))
        .circuit_breaker(library.CircuitBreaker(name="bench"))
        .bulkhead(CONCURRENT_MAX)
        .timeout(TIMEOUT_S)
        .build()
    )(fn)
    return wrapped


def _by_hand(fn: AsyncCall) -> AsyncCall:
    tenacity = import_module("tenacity")
    places = asyncio.Semaphore(CONCURRENT_MAX)

    @functools.wraps(fn)
    async def held(number: int) -> int:
        async with places, asyncio.timeout(TIMEOUT_S):
            return await fn(number)

    broken = import_module("circuitbreaker").CircuitBreaker(name="bench")(held)
    wrapped: AsyncCall = tenacity.retry(
        stop=tenacity.stop_after_attempt(3), retry=tenacity.retry_if_exception_type(ConnectionError), reraise=True
    )(broken)
    return wrapped
