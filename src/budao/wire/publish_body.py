"""The body of `POST /v1/publish`, and of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from budao.push import Draft, NotPlaced, Placed, Problem

MESSAGES_MAX = 1_000
"""Messages in one batch."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """What a body asks for: drafts, in order; one that is wrong is a `Problem` in its place, and the others go on."""

    items: tuple[Draft | Problem, ...]
    is_batch: bool

    @property
    def drafts(self) -> tuple[Draft, ...]:
        """Those that can be published."""
        return tuple(item for item in self.items if isinstance(item, Draft))


def parse_publish(body: bytes, *, messages_max: int = MESSAGES_MAX, trace: str | None = None) -> Publishing:
    """What is to be published. `trace` is the traceparent of the request, for messages that bring none.

    Raises:  RemoteWireError when the body as a whole is wrong.
    """
    raise NotImplementedError


def format_publish(publishing: Publishing, results: Sequence[Placed | NotPlaced | Problem]) -> bytes:
    """The body of the answer. `results` are those of `publishing.drafts`, in order."""
    raise NotImplementedError


def format_error(problem: Problem) -> bytes:
    """The body of an answer that is an error as a whole."""
    raise NotImplementedError
