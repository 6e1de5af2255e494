"""A log that lives and dies with this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from budao.aio.logs.local import LocalLog, WallClock, wall
from budao.push import BookPolicy, ChannelRules, Draft, NotPlaced, Placed


class MemoryLog(LocalLog):
    """A `ChannelLog` for one process, for tests and development. Nothing in it outlives the process."""

    def __init__(
        self,
        *,
        rules: ChannelRules | None = None,
        policy: BookPolicy | None = None,
        clock: WallClock = wall,
        epochs: Callable[[], str] | None = None,
        name: str = "memory:",
    ) -> None:
        super().__init__(rules=rules, policy=policy, clock=clock, epochs=epochs, name=name)

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def publish(self, drafts: Sequence[Draft]) -> tuple[Placed | NotPlaced, ...]:
        self.check_open()
        prepared = self.book.publish(drafts, self._clock(), self._epochs())
        self._tell(prepared.appended)
        return prepared.answers

    async def aclose(self) -> None:
        await self._end("it is closed")
