"""Our own rows. The guard is loaded by name, so the peers can be measured while it is being changed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bench.peers.candidate import AsyncCall, Candidate, Feature, SyncCall, Unmeasurable
from bench.peers.keyed import Keyed, KeyedCall
from bench.peers.stacks import CONCURRENT_MAX, TIMEOUT_S

FULL = "budao guard, full"
STACK = "budao guard, four policies"
KEYED = "budao guard, keyed"

_FULL_FEATURES = frozenset(
    {
        Feature.FAILED_RATE,
        Feature.SLOW_RATE,
        Feature.QUANTILES,
        Feature.DEADLINE,
        Feature.GENERATIONS,
        Feature.PROBE_CAP,
    }
)

_STACK_FEATURES = frozenset(
    {
        Feature.FAILED_RATE,
        Feature.SLOW_RATE,
        Feature.GENERATIONS,
        Feature.PROBE_CAP,
        Feature.RETRY,
        Feature.BULKHEAD,
        Feature.TIMEOUT,
    }
)


def variants() -> list[Candidate]:
    """What each part of the guard costs: every row has one part more than the row named, or than the row before.

    The row named FULL stands in the first table and is held against the bars; the others appear only in the table of
    parts. Retries cost nothing until a call fails, so the rows with one have a function marked safe.
    """
    _front_door()
    model = import_module("budao.model")
    slow = model.BreakerPolicy(slow_s=0.2)
    plain = {"breaker": slow, "threshold": model.ThresholdPolicy(), "retry": None}
    rows: list[tuple[str, frozenset[Feature], dict[str, Any], dict[str, Any]]] = [
        ("no part but sampling and deadline check", frozenset({Feature.DEADLINE}), {"breaker": None, "retry": None}, {}),
        ("breaker: failed, slow, stuck in flight", _FULL_FEATURES, {"breaker": slow, "retry": None}, {}),
        (FULL, _FULL_FEATURES, plain, {}),
        ("full + key", _FULL_FEATURES, plain, {"key": lambda *_: "one"}),
        ("full + a predicate on the result", _FULL_FEATURES, plain, {"bad": lambda _: False}),
        ("full + bulkhead", _FULL_FEATURES, plain | {"bulkhead": model.BulkheadPolicy()}, {}),
        ("full + rate limit (takes the lock)", _FULL_FEATURES, plain | {"rate": _rate(model)}, {}),
        ("full + retry", _FULL_FEATURES, plain | {"retry": model.RetryPolicy()}, {"safe": True}),
        ("full + timeout, deadline passed on", _FULL_FEATURES, plain | {"timeout": model.TimeoutPolicy()}, {}),
        ("full + timeout + hedge", _FULL_FEATURES, plain | {"timeout": model.TimeoutPolicy(),
                                                              "hedge": model.HedgePolicy()}, {"safe": True}),
    ]  # fmt: skip
    made = [_row(name, features, model.GuardPolicy(**policy), said) for name, features, policy, said in rows]
    return [
        *made,
        Candidate("derived from an objective: full + timeout", _FULL_FEATURES, _derived_sync, _derived_async),
    ]


def _rate(model: Any) -> Any:
    return model.RatePolicy(calls_per_s=1e9, burst=1_000_000)


def _row(name: str, features: frozenset[Feature], policy: Any, said: dict[str, Any]) -> Candidate:
    def wrap(fn: Any) -> Any:
        return _front_door().Guard("bench", policy=policy).protect(fn, **said)

    return Candidate(name, features, wrap, wrap)


def stack() -> Candidate:
    """Retry, breaker, bulkhead and timeout in one guard."""
    _front_door()
    return Candidate(STACK, _STACK_FEATURES, _stack_sync, _stack_async)


def keyed() -> Keyed:
    """One breaker per key, idle after one call each."""
    _front_door()
    return Keyed(KEYED, _keyed)


def _derived(fn: Any) -> Any:
    budao = _front_door()
    return budao.Guard("bench", objective=budao.Latency(0.99, under_s=0.2))(fn)


def _derived_sync(fn: SyncCall) -> SyncCall:
    wrapped: SyncCall = _derived(fn)
    return wrapped


def _derived_async(fn: AsyncCall) -> AsyncCall:
    wrapped: AsyncCall = _derived(fn)
    return wrapped


def _stack(fn: Any) -> Any:
    model = import_module("budao.model")
    policy = model.GuardPolicy(
        retry=model.RetryPolicy(attempts_max=3),
        breaker=model.BreakerPolicy(),
        bulkhead=model.BulkheadPolicy(calls_max=CONCURRENT_MAX),
        timeout=model.TimeoutPolicy(call_s=TIMEOUT_S),
    )
    return _front_door().Guard("bench", policy=policy).protect(fn, safe=True)


def _stack_sync(fn: SyncCall) -> SyncCall:
    wrapped: SyncCall = _stack(fn)
    return wrapped


def _stack_async(fn: AsyncCall) -> AsyncCall:
    wrapped: AsyncCall = _stack(fn)
    return wrapped


def _keyed(keys_max: int) -> KeyedCall:
    model = import_module("budao.model")
    guard = _front_door().Guard("bench", policy=model.GuardPolicy(keys_max=keys_max))
    call: KeyedCall = guard.protect(lambda key: key, key=lambda key: key)
    return call


def _front_door() -> Any:
    """The package, once it can guard a call.

    Raises: Unmeasurable if it cannot be imported or has no Guard.
    """
    try:
        budao = import_module("budao")
    except ImportError as error:
        raise Unmeasurable(f"budao cannot be imported here: {error}") from error
    for name in ("Guard", "Latency"):
        if not hasattr(budao, name):
            raise Unmeasurable(f"budao has no {name} to measure")
    return budao
