"""Where a client's token comes from. It is shown to gateways and to nobody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from budao.model import BadSettings

TokenSource = str | Callable[[], str | Awaitable[str]]


class Token:
    """A token as it is, or one that is fetched when it is first needed and again after it was refused."""

    def __init__(self, source: TokenSource | None) -> None:
        if source is not None and not callable(source) and not _is_token(source):
            raise BadSettings([("token", "is no printable ASCII text, nor a function that gives one; it is not shown")])
        self._source = source
        self._latest: str | None = None

    def __repr__(self) -> str:
        return "Token(...)"

    @property
    def is_there(self) -> bool:
        """Whether there is any."""
        return self._source is not None

    @property
    def can_refresh(self) -> bool:
        """Whether another one can be had."""
        return callable(self._source)

    def refuse(self) -> None:
        """A gateway did not accept the latest one."""
        self._latest = None

    async def get(self) -> str | None:
        """The token to show.

        Raises:  whatever the source raises; ValueError for what can be no token.
        """
        if not callable(self._source):
            return self._source
        if self._latest is None:
            found = self._source()
            token = await found if isawaitable(found) else found
            if not _is_token(token):
                raise ValueError("what the source of tokens gave is no printable text")
            self._latest = token
        return self._latest


def _is_token(token: object) -> bool:
    return isinstance(token, str) and bool(token) and token.isascii() and token.isprintable()
