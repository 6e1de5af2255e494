"""Who is connected, and how each connection is: what an operator is answered who asks for `sessions`."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Final

from budao.aio.gateway.connection import FULL, PARKED, Connection
from budao.aio.gateway.sse import SseConnection
from budao.aio.gateway.talk import Talk
from budao.aio.gateway.vital import Vital
from budao.push import PERFECT, Grant, Stage

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway

TOLD: Final = 100
TOLD_MAX: Final = 1_000
QUIET: Final = frozenset({Stage.STANDBY, Stage.OPENING_STANDBY})


def call_roll(gateway: Gateway, said: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    """The connections of a gateway, those in worst health first: a status, and plain values.

    Shapes:  `said` may hold `session`, for that one only, and `count`, for so many (100 unless it is said, 1,000 at most).
             `connections` in the answer is how many there are, which may be more than are told.
    Units:   `rtt_s` and `score` are as of the last look, which for one that rests may be half a minute ago; `rtt_s` is null where
             the kernel was not asked, and 2 s at most. `outbox_bytes` wait in this process. `unacknowledged` are messages, of the
             channel where they are most; null for a client that acknowledges nothing.
    Cost:    a look at every connection, about 1 us each; for a person who asks, not for every second.
    """
    session, count = said.get("session"), said.get("count", TOLD)
    if not (session is None or isinstance(session, str)) or not isinstance(count, int) or isinstance(count, bool):
        happened = 'ask for {"session": "…"}, or for {"count": 100} of them, or say nothing'
        return 400, {"error": {"why": "bad-request", "happened": happened}}
    found = list(gateway.connections)
    if session is not None:
        found = [each for each in found if _session_of(each) == session]
    worst = nsmallest(max(0, min(count, TOLD_MAX)), found, key=_score_of)
    return 200, {
        "gateway": gateway.name,
        "connections": len(gateway.connections),
        "sessions": [_told(each) for each in worst],
    }


def _told(connection: Connection) -> Mapping[str, Any]:
    vital = _vital_of(connection)
    grant = _grant_of(connection)
    return {
        "session": _session_of(connection),
        "subject": "" if grant is None else grant.subject,
        "transport": connection.encoding.transport,
        "peer": connection.peer,
        "standby": isinstance(connection, Talk) and connection.session.stage in QUIET,
        "score": round(_score_of(connection), 1),
        "rtt_s": None if vital is None or vital.health is None else round(vital.expected_s, 6),
        "outbox_bytes": connection.queued_bytes(),
        "channels": len(connection.places),
        "unacknowledged": _unacknowledged(connection),
        "behind": bool(connection.holds & (FULL | PARKED)),
        "blocked": vital is not None and vital.is_blocked,
        "lost": vital is not None and vital.is_lost,
    }


def _unacknowledged(connection: Connection) -> int | None:
    """Messages that the client was sent, or will be, and has not said that it has dealt with."""
    if not isinstance(connection, Talk) or connection.session.stage in QUIET:
        return None
    channels, most = connection.gateway.hub.channels, None
    for name, seen in connection.session.channels.items():
        channel = channels.get(name)
        if seen is not None and channel is not None and channel.ring is not None:
            head = channel.ring.head
            most = max(most or 0, head.seq - seen.seq if head.epoch == seen.epoch else head.seq)
    return most


def _vital_of(connection: Connection) -> Vital | None:
    vital = connection.health
    return vital if isinstance(vital, Vital) else None


def _score_of(connection: Connection) -> float:
    vital = _vital_of(connection)
    return PERFECT if vital is None else vital.score


def _session_of(connection: Connection) -> str:
    if isinstance(connection, Talk):
        return connection.session.id
    return connection.id if isinstance(connection, SseConnection) else ""


def _grant_of(connection: Connection) -> Grant | None:
    if isinstance(connection, Talk):
        return connection.session.grant
    return connection.grant if isinstance(connection, SseConnection) else None
