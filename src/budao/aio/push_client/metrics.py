"""What a client counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from budao.measure import Histogram


@dataclass(slots=True)
class ClientMetrics:
    """Counts since the client began. Read them whenever you like."""

    connects: int = 0
    """Connections that were welcomed, standbys included."""
    resumes: int = 0
    """Of those, the ones that took a session over."""
    failures: int = 0
    """Connections that ended or could not be opened, without our asking."""
    promotions: int = 0
    """Standbys that became the connection."""
    moves: int = 0
    """Gateways that asked to move."""
    messages: int = 0
    """Messages handed to readers."""
    gaps: int = 0
    """Gaps handed to readers."""
    missed: int = 0
    """Messages that gaps named, as far as their number is known."""
    duplicates: int = 0
    """Messages and gaps that came again and were dropped."""
    broken_promises: int = 0
    """Messages that did not follow the one before. A server that does so is wrong; they were asked for again."""
    rests: int = 0
    """Times that a reader was full, so that its channel rested at the gateway."""
    publishes: int = 0
    """Messages that are durable, as far as we were told."""
    repeats: int = 0
    """Of those, the ones that had been taken by an earlier try."""
    tries: int = 0
    """Times that a message was sent."""
    publish_s: Histogram = field(default_factory=Histogram)
    """From the call to the answer, tries and reconnects included."""
    recovery_s: Histogram = field(default_factory=Histogram)
    """From the last byte of the connection that was lost to the moment that another one delivers."""
