"""A SQLAlchemy engine, sync or async, whose statements and new connections go through a guard.

    guard_engine(create_engine(...), guard)

A statement is told apart by its kind and its first table ("SELECT orders"), a new connection is "CONNECT". A refusal
leaves the cursor unused, so the transaction can be rolled back and the connection goes on being good.

What does not fit: a statement is part of a transaction, so it is never repeated and never hedged; nothing here can cut
it off, so set the driver's own timeout too; fetching rows, COMMIT and ROLLBACK are not guarded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import Engine, event, exc
from sqlalchemy.util import await_only

from budao.model import CallRefused
from budao.protect import Guard

if TYPE_CHECKING:
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["guard_engine", "is_failure", "statement_key"]

KIND: Final = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*([A-Za-z]+)", re.DOTALL)
TABLE: Final = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+(?:ONLY\s+)?([\w.\"`\[\]]{1,128})", re.IGNORECASE)
KINDS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "REPLACE", "CALL"})
SQLITE_ERROR: Final = 1


@lru_cache(maxsize=1024)
def statement_key(statement: str) -> str:
    """The kind of a statement and the first table it names; "OTHER" for what is neither reading nor writing rows."""
    kind = KIND.match(statement)
    word = kind[1].upper() if kind else ""
    if word not in KINDS:
        return "OTHER"
    table = TABLE.search(statement)
    return f"{word} {table[1].translate(_BARE)}" if table else word


_BARE: Final = str.maketrans("", "", '"`[]')


def is_failure(error: BaseException) -> bool:
    """Whether an exception says that the database cannot serve, rather than what it thinks of the statement.

    Takes the driver's own exception or SQLAlchemy's. By DB-API: operational, interface and internal errors.
    """
    origin = getattr(error, "orig", None) or error
    if isinstance(origin, OSError | exc.TimeoutError | exc.DisconnectionError):
        return True
    # SQLite says "operational" for a table that is missing, too; its plain code 1 is about the statement.
    if getattr(origin, "sqlite_errorcode", None) == SQLITE_ERROR:
        return False
    names = {each.__name__ for each in type(origin).__mro__}
    return bool(names & {"OperationalError", "InterfaceError", "InternalError"})


def guard_engine(
    engine: Engine | AsyncEngine,
    guard: Guard,
    *,
    key: Callable[[str], str] = statement_key,
    failed_if: Callable[[BaseException], bool] = is_failure,
) -> Callable[[], None]:
    """Put `guard` between an engine and its database. The answer takes it away again.

    `key` gets the text of a statement. `failed_if` gets the driver's exception and tells failures from answers.
    With an async engine a call that waits for a place does so without holding up the loop.
    """
    on: Engine = engine if isinstance(engine, Engine) else engine.sync_engine
    is_async = on.dialect.is_async
    slot = f"budao {guard.name} {id(guard)}"  # one engine may have several guards

    def begin(name: str) -> _Block:
        block = _Block(guard.block(name), is_async)
        block.enter()
        return block

    def before(conn: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool) -> None:
        _settle(conn.info.pop(slot, None), None)
        conn.info[slot] = begin(key(statement))

    def after(conn: Any, _cursor: Any, _statement: str, _parameters: Any, _context: Any, _many: bool) -> None:
        _settle(conn.info.pop(slot, None), None)

    def failed(trouble: ExceptionContext) -> None:
        error = trouble.original_exception
        if trouble.connection is not None and not isinstance(error, CallRefused):
            # Invalidating a connection empties its info, so this comes first; SQLAlchemy invalidates after this event.
            _settle(trouble.connection.info.pop(slot, None), _judged(error, failed_if, trouble.is_disconnect))

    def connect(dialect: Any, _record: Any, args: list[Any], parameters: dict[str, Any]) -> Any:
        block = begin("CONNECT")
        try:
            connection = dialect.connect(*args, **parameters)
        except BaseException as error:
            block.leave(_judged(error, failed_if, False))
            raise
        block.leave(None)
        return connection

    hooks = (
        (on, "before_cursor_execute", before),
        (on, "after_cursor_execute", after),
        (on, "handle_error", failed),
        (on, "do_connect", connect),
    )
    for target, name, hook in hooks:
        event.listen(target, name, hook)

    def stop() -> None:
        for target, name, hook in hooks:
            event.remove(target, name, hook)

    return stop


def _judged(
    error: BaseException, failed_if: Callable[[BaseException], bool], is_disconnect: bool
) -> BaseException | None:
    """What the guard hears of an exception: nothing, if it is an answer. A cancelled call it must hear of."""
    if not isinstance(error, Exception) or is_disconnect or failed_if(error):
        return error
    return None


def _settle(block: _Block | None, error: BaseException | None) -> None:
    if block is not None:
        block.leave(error)


class _Block:
    """A guarded block that is entered by one event and left by another."""

    __slots__ = ("_block", "_is_async")

    def __init__(self, block: object, is_async: bool) -> None:
        self._block = block
        self._is_async = is_async

    def enter(self) -> None:
        if self._is_async:
            await_only(cast("AbstractAsyncContextManager[object]", self._block).__aenter__())
        else:
            cast("AbstractContextManager[object]", self._block).__enter__()

    def leave(self, error: BaseException | None) -> None:
        told: tuple[type[BaseException] | None, BaseException | None, TracebackType | None] = (None, None, None)
        if error is not None:
            told = type(error), error, error.__traceback__
        if self._is_async:
            await_only(cast("AbstractAsyncContextManager[object]", self._block).__aexit__(*told))
        else:
            cast("AbstractContextManager[object]", self._block).__exit__(*told)
