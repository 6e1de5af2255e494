"""What travels with a call without being an argument: its deadline, its priority, its trace.

Context variables follow a call through awaits, tasks and copied contexts, which is what a deadline must do.
"""

from __future__ import annotations

from contextvars import ContextVar
from math import inf

from budao.model.outcome import Priority

deadline: ContextVar[float] = ContextVar("budao_deadline", default=inf)
"""The instant (Mono seconds) after which nobody waits for this call's answer any more; inf for "no deadline"."""

priority: ContextVar[Priority] = ContextVar("budao_priority", default=Priority.HIGH)
"""How much this call matters; set from a header by the server adapters, passed on by the client adapters."""

trace: ContextVar[str] = ContextVar("budao_trace", default="")
"""The W3C `traceparent` of the request being served, or "" outside one."""


def trace_id() -> str:
    """The 32 hex digits of the current trace, or "" if there is none."""
    parts = trace.get().split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""
