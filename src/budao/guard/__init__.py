"""Protect one call: breaker, deadline, retry, hedge, bulkhead, adaptive limit, shedding, ladder.

The machines decide and are told the time. `Core` joins them for one resource, and `compile_call` writes the function
that runs them around a user's function. Nothing here waits, asks for the time, or knows about an event loop.
"""

from budao.guard.breaker import MOVES, Breaker, Move, Moved, Permit, State
from budao.guard.core import STREAMING, Core, KeyView, Waiter
from budao.guard.events import Adjusted, Crashed, Descended, Event, Hedged, Refused, Retried, Turned
from budao.guard.home import Follower, Home
from budao.guard.ladder import NOTHING, Ladder, Remembered, Rung, answer_of, key_of
from budao.guard.limiter import Limiter, LimiterView
from budao.guard.passage import Passage
from budao.guard.pauses import parse_pushback, parse_retry_after, pause_s
from budao.guard.repeats import Again, Discard, Pause, Repeats
from budao.guard.shape import ANY, Shape, Signature, compile_call, signature_of, source_of
from budao.guard.shedder import Shedder
from budao.guard.steps import Steps
from budao.guard.throttle import Throttle
from budao.guard.waiting import Placed, TurnedAway, WaitingRoom

__all__ = [
    "ANY",
    "MOVES",
    "NOTHING",
    "STREAMING",
    "Adjusted",
    "Again",
    "Breaker",
    "Core",
    "Crashed",
    "Descended",
    "Discard",
    "Event",
    "Follower",
    "Hedged",
    "Home",
    "KeyView",
    "Ladder",
    "Limiter",
    "LimiterView",
    "Move",
    "Moved",
    "Passage",
    "Pause",
    "Permit",
    "Placed",
    "Refused",
    "Remembered",
    "Repeats",
    "Retried",
    "Rung",
    "Shape",
    "Shedder",
    "Signature",
    "State",
    "Steps",
    "Throttle",
    "Turned",
    "TurnedAway",
    "Waiter",
    "WaitingRoom",
    "answer_of",
    "compile_call",
    "key_of",
    "parse_pushback",
    "parse_retry_after",
    "pause_s",
    "signature_of",
    "source_of",
]
