"""Guarded generators."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from budao.guard import Core, Passage
from budao.threads.calls import crowd


def stream(
    function: Callable[..., Generator[Any, Any, Any]], find: Callable[..., Core], clock: Callable[[], float]
) -> Callable[..., Generator[Any, Any, Any]]:
    """The same stream, guarded: it is let in at the first item asked for, and judged by how soon that item comes.

    A reader that stops early is no failure, nor is an exception that the reader throws in and gets back.
    """
    wait = crowd(clock)

    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        core = find(args, kwargs)
        source = function(*args, **kwargs)  # before anything is taken: the arguments may not fit
        passage = Passage(core)
        passage.enter(clock())
        if passage.is_crowded:
            passage.started = wait(core, passage.permit, passage.started)
        sent: Any = None
        thrown: BaseException | None = None
        try:
            while True:
                try:
                    item = source.send(sent) if thrown is None else source.throw(thrown)
                except StopIteration as stop:
                    passage.leave(None, clock())
                    return stop.value
                passage.answered(clock())
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
            source.close()

    return guarded
