"""Guarded async generators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from math import inf
from typing import Any

from budao.aio.calls import crowd
from budao.guard import Core, Passage
from budao.model import TimedOut


def stream(
    function: Callable[..., AsyncGenerator[Any, Any]], find: Callable[..., Core], clock: Callable[[], float]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """The same stream, guarded: it is let in at the first item asked for, and judged by how soon that item comes.

    A reader that stops early is no failure, nor is an exception that the reader throws in and gets back.
    """
    wait = crowd(clock)

    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        core = find(args, kwargs)
        source = function(*args, **kwargs)  # before anything is taken: the arguments may not fit
        passage = Passage(core)
        passage.enter(clock())
        if passage.is_crowded:
            passage.started = await wait(core, passage.permit, passage.started)
        sent: Any = None
        thrown: BaseException | None = None
        is_first = True
        try:
            while True:
                try:
                    if is_first and passage.until != inf:
                        item = await _in_time(source, passage, clock)
                    elif thrown is None:
                        item = await source.asend(sent)
                    else:
                        item = await source.athrow(thrown)
                except StopAsyncIteration:
                    passage.leave(None, clock())
                    return
                if is_first:
                    passage.answered(clock())
                    is_first = False
                sent, thrown = None, None
                try:
                    sent = yield item
                except GeneratorExit:
                    passage.leave(None, clock())
                    raise
                except BaseException as error:  # noqa: BLE001 - what the reader throws in belongs to the source
                    thrown = error
        except BaseException as error:
            passage.leave(None if error is thrown else error, clock())
            raise
        finally:
            await source.aclose()

    return guarded


async def _in_time(source: AsyncGenerator[Any, Any], passage: Passage, clock: Callable[[], float]) -> Any:
    limit = asyncio.timeout(max(0.0, passage.until - clock()))
    try:
        async with limit:
            return await anext(source)
    except TimeoutError as error:
        if limit.expired():
            raise TimedOut(passage.core.home.name, passage.until - passage.started) from error
        raise
