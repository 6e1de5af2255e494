"""The instant a measure is told."""

from __future__ import annotations

from typing import TypeAlias

from budao.model import Mono, Wall

Instant: TypeAlias = Mono | Wall
"""Seconds on either clock. One measure is told one clock throughout: a window that spans a restart is told `Wall`."""
