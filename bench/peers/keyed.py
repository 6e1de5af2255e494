"""Memory of one idle keyed breaker: many keys, one call each, then what is still held."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from bench.peers.candidate import Unmeasurable
from bench.peers.others import SLOW_S

KeyedCall = Callable[[str], object]

HELD_MIN_BYTES = 100
"""A place in a dict (about 100 bytes with its share of the table) is the least that can tell two keys apart."""


class Keyed(NamedTuple):
    """A library that keeps one breaker per key; `make` returns a function of the key."""

    name: str
    make: Callable[[int], KeyedCall]
    """Takes how many keys it must be able to hold at once."""
    modules: tuple[str, ...] = ()


def peers() -> list[Keyed]:
    """The peers that offer one breaker per key, by whatever name they give it."""
    return [
        Keyed("nopanic keyed (slow calls)", _nopanic, ("nopanic",)),
        Keyed("purgatory factory", _purgatory, ("purgatory",)),
        Keyed("pyresilience registry", _pyresilience, ("pyresilience",)),
        Keyed("interlock registry", _interlock, ("interlock",)),
    ]


def bytes_per_key(make: Callable[[int], KeyedCall], keys_count: int) -> float:
    """Bytes still held per key after one call with each; the key strings themselves are not counted.

    Raises: Unmeasurable if so little is held that there cannot be a breaker for every key.
    """
    keys = [f"tenant-{index}" for index in range(keys_count)]
    tracemalloc.start()
    try:
        call = make(keys_count + 1)
        call("first")  # whatever is built once is not a cost of each key
        gc.collect()
        before_bytes, _ = tracemalloc.get_traced_memory()
        for key in keys:
            call(key)
        gc.collect()
        after_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    held_bytes = (after_bytes - before_bytes) / keys_count
    if held_bytes < HELD_MIN_BYTES:
        raise Unmeasurable(f"only {held_bytes:.0f} bytes are held per key: there is no breaker for each")
    return held_bytes


def _echo(key: str) -> str:
    return key


def _nopanic(keys_max: int) -> KeyedCall:
    library = import_module("nopanic")
    call: KeyedCall = library.keyed(
        lambda key: library.circuit_breaker(name=key, slow_call_duration=SLOW_S, slow_call_threshold=0.5),
        key=lambda key: key,
        maxsize=keys_max,
    )(_echo)
    return call


def _purgatory(_keys_max: int) -> KeyedCall:
    factory = import_module("purgatory").SyncCircuitBreakerFactory()

    def call(key: str) -> str:
        with factory.get_breaker(key):
            return _echo(key)

    return call


def _pyresilience(_keys_max: int) -> KeyedCall:
    library = import_module("pyresilience")
    registry = library.ResilienceRegistry()
    config = library.ResilienceConfig(circuit_breaker=library.CircuitBreakerConfig())

    def call(key: str) -> object:
        registry.register(key, config)
        return registry.decorator(key)(_echo)(key)

    return call


def _interlock(_keys_max: int) -> KeyedCall:
    library = import_module("interlock")
    config = library.Config(slow_call_duration_threshold=SLOW_S, slow_call_rate_threshold=0.5)
    registry = library.Registry(config=config)

    def call(key: str) -> object:
        return registry.get(key).call_sync(_echo, key)

    return call
