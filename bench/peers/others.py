"""The baselines and the peers, each set up the way its own documentation shows.

Modules are loaded by name when a row is built: most peers ship no types, and a missing one only costs its row.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from importlib import import_module

from bench.peers.candidate import AsyncCall, Candidate, Failed, Feature, SyncCall

BARE = "bare function"
WRAPPER = "functools.wraps wrapper"
NOPANIC_SLOW = "nopanic (slow calls)"

SLOW_S = 0.2
WINDOW_S = 30.0

F, C, S, D, K, G, P, R = (
    Feature.FAILED_RATE,
    Feature.CONSECUTIVE,
    Feature.SLOW_RATE,
    Feature.DEADLINE,
    Feature.KEYED,
    Feature.GENERATIONS,
    Feature.PROBE_CAP,
    Feature.RETRY,
)


def baselines() -> list[Candidate]:
    """What every row is compared with: no wrapper, and a wrapper that does nothing."""
    return [
        Candidate(BARE, frozenset(), lambda fn: fn, lambda fn: fn, (), _raise, _raise_async),
        Candidate(WRAPPER, frozenset(), _wrap_sync, _wrap_async, (), _wrapped_raise, _wrapped_raise_async),
    ]


def peers() -> list[Candidate]:
    """One row per peer, more where a setting changes what it does on every call."""
    return [
        Candidate("circuitbreaker", frozenset({C}), _circuitbreaker, _circuitbreaker_async, ("circuitbreaker",)),
        Candidate("purgatory", frozenset({C}), _purgatory, _purgatory_async, ("purgatory",)),
        Candidate("nopanic", frozenset({F, P}), _nopanic, _nopanic_async, ("nopanic",)),
        Candidate(NOPANIC_SLOW, frozenset({F, S, P}), _nopanic_slow, _nopanic_slow_async, ("nopanic",)),
        Candidate(
            "nopanic (slow calls, deadline)",
            frozenset({F, S, D, P}),
            _nopanic_deadline,
            _nopanic_deadline_async,
            ("nopanic",),
        ),
        Candidate(
            "nopanic (slow calls, keyed)", frozenset({F, S, K, P}), _nopanic_keyed, _nopanic_keyed_async, ("nopanic",)
        ),
        Candidate("pybreaker", frozenset({C}), _pybreaker, _pybreaker_async, ("pybreaker",)),
        Candidate("aiobreaker", frozenset({C}), _aiobreaker, _aiobreaker_async, ("aiobreaker",)),
        Candidate("hyx", frozenset({C}), None, _hyx, ("hyx",)),
        Candidate("pyresilience", frozenset({C}), _pyresilience, _pyresilience_async, ("pyresilience",)),
        Candidate(
            "pyresilience (window 1000)",
            frozenset({F, S}),
            _pyresilience_window,
            _pyresilience_window_async,
            ("pyresilience",),
        ),
        Candidate("interlock (100 calls)", frozenset({F, S, G, P}), _interlock, _interlock_async, ("interlock",)),
        Candidate(
            "interlock (30 s)", frozenset({F, S, G, P}), _interlock_timed, _interlock_timed_async, ("interlock",)
        ),
        Candidate("stamina", frozenset({R}), _stamina, _stamina_async, ("stamina",)),
        Candidate("tenacity", frozenset({R}), _tenacity, _tenacity_async, ("tenacity",)),
    ]


def _wrap_sync(fn: SyncCall) -> SyncCall:
    @functools.wraps(fn)
    def wrapper(*args: int, **kwargs: int) -> int:
        return fn(*args, **kwargs)

    return wrapper


def _wrap_async(fn: AsyncCall) -> AsyncCall:
    @functools.wraps(fn)
    async def wrapper(*args: int, **kwargs: int) -> int:
        return await fn(*args, **kwargs)

    return wrapper


def _raise(number: int) -> int:
    raise Failed(number)


async def _raise_async(number: int) -> int:
    raise Failed(number)


# The least a refusal can cost: the wrapper raises by itself and never reaches the function.


@functools.wraps(_raise)
def _wrapped_raise(*args: int, **kwargs: int) -> int:
    raise Failed("refused")


@functools.wraps(_raise_async)
async def _wrapped_raise_async(*args: int, **kwargs: int) -> int:
    raise Failed("refused")


def _circuitbreaker(fn: SyncCall) -> SyncCall:
    wrapped: SyncCall = import_module("circuitbreaker").CircuitBreaker(name="bench")(fn)
    return wrapped


def _circuitbreaker_async(fn: AsyncCall) -> AsyncCall:
    wrapped: AsyncCall = import_module("circuitbreaker").CircuitBreaker(name="bench")(fn)
    return wrapped


def _purgatory(fn: SyncCall) -> SyncCall:
    wrapped: SyncCall = import_module("purgatory").SyncCircuitBreakerFactory()("bench")(fn)
    return wrapped


def _purgatory_async(fn: AsyncCall) -> AsyncCall:
    wrapped: AsyncCall = import_module("purgatory").AsyncCircuitBreakerFactory()("bench")(fn)
    return wrapped


def _nopanic(fn: SyncCall) -> SyncCall:
    wrapped: SyncCall = import_module("nopanic").circuit_breaker(name="bench")(fn)
    return wrapped


def _nopanic_async(fn: AsyncCall) -> AsyncCall:
    wrapped: AsyncCall = import_module("nopanic").circuit_breaker(name="bench")(fn)
    return wrapped


def _nopanic_slow(fn: SyncCall) -> SyncCall:
    wrapped: SyncCall = import_module("nopanic").circuit_breaker(
        name="bench", slow_call_duration=SLOW_S, slow_call_threshold=0.5
    )(fn)
    return wrapped


def _nopanic_slow_async(fn: AsyncCall) -> AsyncCall:
    wrapped: AsyncCall = import_module("nopanic").circuit_breaker(
        name="bench", slow_call_duration=SLOW_S, slow_call_threshold=0.5
    )(fn)
    return wrapped


def _nopanic_deadline(fn: SyncCall) -> SyncCall:
    nopanic = import_module("nopanic")
    breaker = nopanic.circuit_breaker(name="bench", slow_call_duration=SLOW_S, slow_call_threshold=0.5)
    wrapped: SyncCall = nopanic.compose(nopanic.deadline(1.0), breaker)(fn)
    return wrapped


def _nopanic_deadline_async(fn: AsyncCall) -> AsyncCall:
    nopanic = import_module("nopanic")
    breaker = nopanic.circuit_breaker(name="bench", slow_call_duration=SLOW_S, slow_call_threshold=0.5)
    wrapped: AsyncCall = nopanic.compose(nopanic.deadline(1.0), breaker)(fn)
    return wrapped


def _nopanic_keyed(fn: SyncCall) -> SyncCall:
    nopanic = import_module("nopanic")
    wrapped: SyncCall = nopanic.keyed(
        lambda _key: nopanic.circuit_breaker(name="bench", slow_call_duration=SLOW_S, slow_call_threshold=0.5),
        key=lambda number: number,
    )(fn)
    return wrapped


def _nopanic_keyed_async(fn: AsyncCall) -> AsyncCall:
    nopanic = import_module("nopanic")
    wrapped: AsyncCall = nopanic.keyed(
        lambda _key: nopanic.circuit_breaker(name="bench", slow_call_duration=SLOW_S, slow_call_threshold=0.5),
        key=lambda number: number,
    )(fn)
    return wrapped


def _pybreaker(fn: SyncCall) -> SyncCall:
    wrapped: SyncCall = import_module("pybreaker").CircuitBreaker(name="bench")(fn)
    return wrapped


def _pybreaker_async(fn: AsyncCall) -> AsyncCall:
    # Its decorator counts a coroutine as a success before it has run, so the block form is its only
    # working one on asyncio.
    breaker = import_module("pybreaker").CircuitBreaker(name="bench")

    @functools.wraps(fn)
    async def wrapper(number: int) -> int:
        with breaker.calling():
            return await fn(number)

    return wrapper


def _aiobreaker(fn: SyncCall) -> SyncCall:
    wrapped: SyncCall = import_module("aiobreaker").CircuitBreaker(timeout_duration=timedelta(seconds=60))(fn)
    return wrapped


def _aiobreaker_async(fn: AsyncCall) -> AsyncCall:
    wrapped: AsyncCall = import_module("aiobreaker").CircuitBreaker(timeout_duration=timedelta(seconds=60))(fn)
    return wrapped


def _hyx(fn: AsyncCall) -> AsyncCall:
    wrapped: AsyncCall = import_module("hyx.circuitbreaker").consecutive_breaker()(fn)
    return wrapped


def _pyresilience(fn: SyncCall) -> SyncCall:
    library = import_module("pyresilience")
    wrapped: SyncCall = library.resilient(circuit_breaker=library.CircuitBreakerConfig())(fn)
    return wrapped


def _pyresilience_async(fn: AsyncCall) -> AsyncCall:
    library = import_module("pyresilience")
    wrapped: AsyncCall = library.resilient(circuit_breaker=library.CircuitBreakerConfig())(fn)
    return wrapped


def _pyresilience_window(fn: SyncCall) -> SyncCall:
    library = import_module("pyresilience")
    config = library.CircuitBreakerConfig(
        sliding_window_size=1000, minimum_calls=20, slow_call_duration=SLOW_S, slow_call_rate_threshold=0.5
    )
    wrapped: SyncCall = library.resilient(circuit_breaker=config)(fn)
    return wrapped


def _pyresilience_window_async(fn: AsyncCall) -> AsyncCall:
    library = import_module("pyresilience")
    config = library.CircuitBreakerConfig(
        sliding_window_size=1000, minimum_calls=20, slow_call_duration=SLOW_S, slow_call_rate_threshold=0.5
    )
    wrapped: AsyncCall = library.resilient(circuit_breaker=config)(fn)
    return wrapped


def _interlock(fn: SyncCall) -> SyncCall:
    library = import_module("interlock")
    config = library.Config(slow_call_duration_threshold=SLOW_S, slow_call_rate_threshold=0.5)
    wrapped: SyncCall = library.CircuitBreaker(name="bench", config=config)(fn)
    return wrapped


def _interlock_async(fn: AsyncCall) -> AsyncCall:
    library = import_module("interlock")
    config = library.Config(slow_call_duration_threshold=SLOW_S, slow_call_rate_threshold=0.5)
    wrapped: AsyncCall = library.CircuitBreaker(name="bench", config=config)(fn)
    return wrapped


def _interlock_timed(fn: SyncCall) -> SyncCall:
    library = import_module("interlock")
    config = library.Config(
        window_type=library.WindowType.TIME_BASED,
        window_size=int(WINDOW_S),
        slow_call_duration_threshold=SLOW_S,
        slow_call_rate_threshold=0.5,
    )
    wrapped: SyncCall = library.CircuitBreaker(name="bench", config=config)(fn)
    return wrapped


def _interlock_timed_async(fn: AsyncCall) -> AsyncCall:
    library = import_module("interlock")
    config = library.Config(
        window_type=library.WindowType.TIME_BASED,
        window_size=int(WINDOW_S),
        slow_call_duration_threshold=SLOW_S,
        slow_call_rate_threshold=0.5,
    )
    wrapped: AsyncCall = library.CircuitBreaker(name="bench", config=config)(fn)
    return wrapped


def _stamina(fn: SyncCall) -> SyncCall:
    wrapped: SyncCall = import_module("stamina").retry(on=ConnectionError, attempts=3)(fn)
    return wrapped


def _stamina_async(fn: AsyncCall) -> AsyncCall:
    wrapped: AsyncCall = import_module("stamina").retry(on=ConnectionError, attempts=3)(fn)
    return wrapped


def _tenacity(fn: SyncCall) -> SyncCall:
    library = import_module("tenacity")
    wrapped: SyncCall = library.retry(
        stop=library.stop_after_attempt(3), retry=library.retry_if_exception_type(ConnectionError), reraise=True
    )(fn)
    return wrapped


def _tenacity_async(fn: AsyncCall) -> AsyncCall:
    library = import_module("tenacity")
    wrapped: AsyncCall = library.retry(
        stop=library.stop_after_attempt(3), retry=library.retry_if_exception_type(ConnectionError), reraise=True
    )(fn)
    return wrapped
