"""What was said about one function when it was protected, and what its compiled call takes from that."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from budao.guard import Ladder, Shape, Signature
from budao.model import Checks, GuardPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What was said about one function when it was protected."""

    safe: bool | Callable[..., bool] = False
    key: Callable[..., Hashable] | None = None
    bad: Callable[[Any], bool] | None = None
    retry_after: Callable[[Any], float | None] | None = None
    discard: Callable[[Any], object] | None = None
    single_flight: bool = False
    ladder: Ladder | None = None

    def fits_a_stream(self) -> None:
        """What needs a whole answer cannot be promised for one that comes in pieces."""
        check = Checks("protect")
        for name in ("bad", "ladder"):
            check.need(getattr(self, name) is None, name, "needs a returned value, and a generator has items instead")
        check.need(not self.single_flight, "single_flight", "cannot give one generator to several readers")
        check.done()


@dataclass(frozen=True, slots=True)
class Traits:
    """What the shape of a compiled call takes from what was said about its function."""

    is_async: bool
    keyed: bool
    can_repeat: bool
    judged: bool
    has_ladder: bool


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled function that somebody may hold, and what it takes to compile it anew. Keeps nothing of it alive."""

    function: weakref.ref[Any]
    traits: Traits
    signature: Signature
    name: str
    _: KW_ONLY
    is_repeat: bool


class Span:
    """The time limit of one try, where compiled calls read it."""

    __slots__ = ("call_s",)

    def __init__(self, call_s: float) -> None:
        self.call_s = call_s


def shape_of(traits: Traits, policy: GuardPolicy, *, is_repeat: bool, can_hedge_sync: bool) -> Shape:
    """Which lines a compiled call needs under these settings. A repeat is neither repeated nor sent down a ladder."""
    is_async = traits.is_async
    can_repeat = traits.can_repeat and not is_repeat
    return Shape(
        is_async=is_async,
        keyed=traits.keyed,
        timeout=policy.timeout is not None and is_async,
        pass_on=policy.timeout is not None,
        rate=policy.rate is not None,
        room=policy.bulkhead is not None or policy.limit is not None,
        waits=policy.bulkhead is not None and policy.bulkhead.waiting_max > 0,
        retry=can_repeat and policy.retry is not None and policy.retry.attempts_max > 1,
        hedge=can_repeat and policy.hedge is not None and (is_async or can_hedge_sync),
        judged=traits.judged,
        ladder=traits.has_ladder and not is_repeat,
    )
