"""The SQLAlchemy adapter on real SQLite files; a database locked by somebody else is the failure."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, exc, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from budao.adapters.sqlalchemy import guard_engine, statement_key
from budao.guard import State
from budao.model import BreakerOpen, BreakerPolicy, BulkheadPolicy, GuardPolicy, Mode, NoRoom, TimedOut, TimeoutPolicy
from budao.protect import Guard

ORDERS = Table("orders", MetaData(), Column("id", Integer, primary_key=True), Column("what", String, unique=True))


def a_guard(**parts: Any) -> Guard:
    given = {
        "breaker": BreakerPolicy(calls_min=3, window_s=60.0, rest_s=60.0),
        "retry": None,
    }
    return Guard("database", policy=GuardPolicy(**(given | parts)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "orders.db"
    plain = create_engine(f"sqlite:///{path}")
    ORDERS.metadata.create_all(plain)
    plain.dispose()
    return path


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.0})
    yield engine
    engine.dispose()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else writes, and takes their time."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def keys(guard: Guard) -> dict[str, Any]:
    return {each.key: each for each in guard.snapshot().keys}


def test_statements_are_told_apart_by_kind_and_table(engine: Engine) -> None:
    guard = a_guard()
    guard_engine(engine, guard)
    with engine.begin() as connection:
        connection.execute(insert(ORDERS), [{"what": "tea"}, {"what": "cups"}])
        assert connection.scalar(select(func.count()).select_from(ORDERS)) == 2
        assert connection.scalars(select(ORDERS.c.what).order_by("id")).all() == ["tea", "cups"]
    found = keys(guard)
    assert found["CONNECT"].ok == 1
    assert found["INSERT orders"].ok == 1
    assert found["SELECT orders"].ok == 2
    assert all(each.in_flight == 0 for each in found.values())


def test_what_the_database_thinks_of_a_statement_is_no_failure(engine: Engine) -> None:
    guard = a_guard()
    guard_engine(engine, guard)
    with engine.begin() as connection:
        connection.execute(insert(ORDERS).values(what="tea"))
    for _ in range(5):
        with pytest.raises(exc.IntegrityError), engine.begin() as connection:
            connection.execute(insert(ORDERS).values(what="tea"))
        with pytest.raises(exc.OperationalError, match="no such table"), engine.begin() as connection:
            connection.execute(text("SELECT 1 FROM nowhere"))
    found = keys(guard)
    assert all(each.failed == 0 and each.state is State.CLOSED for each in found.values())
    assert found["SELECT nowhere"].ok == 5


def test_a_locked_database_opens_the_breaker_and_is_used_again_once_it_is_free(engine: Engine, path: Path) -> None:
    guard = a_guard()
    guard_engine(engine, guard)
    with engine.connect() as warm:
        warm.execute(text("SELECT 1"))

    def order(what: str) -> None:
        with engine.begin() as connection:
            connection.execute(insert(ORDERS).values(what=what))

    with locked(path):
        for number in range(3):
            with pytest.raises(exc.OperationalError, match="locked"):
                order(f"cup {number}")
        with pytest.raises(BreakerOpen):
            order("one more")
    found = keys(guard)
    assert found["INSERT orders"].failed == 3
    assert found["INSERT orders"].state is State.OPEN
    assert found["SELECT"].state is State.CLOSED
    guard.reset()
    order("tea")
    with engine.connect() as connection:
        assert connection.scalars(select(ORDERS.c.what)).all() == ["tea"]
    assert all(each.in_flight == 0 for each in keys(guard).values())
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool counts


def test_a_refused_statement_leaves_its_transaction_usable(engine: Engine) -> None:
    guard = a_guard()
    guard_engine(engine, guard)
    with engine.connect() as connection:
        connection.execute(insert(ORDERS).values(what="tea"))
        guard.set_mode(Mode.FORCED_OPEN)
        with pytest.raises(BreakerOpen):
            connection.execute(select(ORDERS))
        guard.set_mode(Mode.ENFORCING)
        connection.execute(insert(ORDERS).values(what="cups"))
        connection.commit()
        assert connection.scalars(select(ORDERS.c.what).order_by("id")).all() == ["tea", "cups"]


def test_a_database_that_cannot_be_opened_is_a_failed_connect(tmp_path: Path) -> None:
    guard = a_guard()
    engine = create_engine(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")
    guard_engine(engine, guard)
    for _ in range(3):
        with pytest.raises(exc.OperationalError, match="unable to open"):
            engine.connect()
    with pytest.raises(BreakerOpen):
        engine.connect()
    assert keys(guard)["CONNECT"].failed == 3


def test_the_guard_can_be_taken_away_again(engine: Engine) -> None:
    guard = a_guard()
    stop = guard_engine(engine, guard)
    stop()
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert "SELECT" not in keys(guard)
    assert "CONNECT" not in keys(guard)


# ------------------------------------------------------------------------------------------------------------ async


def opened(path: Path) -> AsyncEngine:
    return create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 0.0})


def test_an_async_engine_is_guarded_too(path: Path) -> None:
    async def story() -> None:
        guard = a_guard()
        engine = opened(path)
        guard_engine(engine, guard)
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
        with locked(path):
            for _ in range(3):
                with pytest.raises(exc.OperationalError, match="locked"):
                    async with engine.begin() as connection:
                        await connection.execute(insert(ORDERS).values(what="cups"))
            with pytest.raises(BreakerOpen):
                async with engine.begin() as connection:
                    await connection.execute(insert(ORDERS).values(what="cups"))
        await engine.dispose()
        found = keys(guard)
        assert found["SELECT"].ok == 1
        assert found["INSERT orders"].failed == 3
        assert all(each.in_flight == 0 for each in found.values())

    asyncio.run(story())


LONG = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT count(*) FROM n")


async def under_way(guard: Guard, key: str) -> None:
    while key not in keys(guard) or not keys(guard)[key].in_flight:  # noqa: ASYNC110 - a guard has nothing to wait for
        await asyncio.sleep(0.005)


def test_an_async_statement_is_cut_off_at_the_end_of_its_time(path: Path) -> None:
    async def story() -> None:
        guard = a_guard(timeout=TimeoutPolicy(call_s=0.1, total_s=0.1))
        engine = opened(path)
        guard_engine(engine, guard)
        async with engine.connect() as connection:
            with pytest.raises(TimedOut):
                await connection.execute(LONG)
        found = keys(guard)["WITH n"]
        assert (found.failed, found.in_flight) == (1, 0)
        await engine.dispose()

    asyncio.run(story())


def test_cancelled_statements_give_their_place_back_and_are_no_failures(path: Path) -> None:
    async def story() -> None:
        guard = a_guard(bulkhead=BulkheadPolicy(calls_max=1))
        engine = opened(path)
        guard_engine(engine, guard)

        async def count() -> None:
            async with engine.connect() as connection:
                await connection.execute(LONG)

        for _ in range(3):
            counting = asyncio.create_task(count())
            await under_way(guard, "WITH n")
            with pytest.raises(NoRoom):
                await count()
            counting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await counting
            assert all(each.in_flight == 0 for each in guard.snapshot().keys)
        assert all(each.failed == 0 for each in guard.snapshot().keys)
        await engine.dispose()

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("statement", "key"),
    [
        ("SELECT * FROM orders WHERE id = ?", "SELECT orders"),
        ("select 1", "SELECT"),
        ('INSERT INTO "Orders" (what) VALUES (?)', "INSERT Orders"),
        ("UPDATE shop.orders SET what = ?", "UPDATE shop.orders"),
        ("DELETE FROM [orders]", "DELETE orders"),
        ("-- why\n/* and\nhow */ SELECT a FROM b", "SELECT b"),
        ("(SELECT a FROM b) UNION SELECT c FROM d", "SELECT b"),
        ("CREATE TABLE orders (id INTEGER)", "OTHER"),
        ("SAVEPOINT sa_savepoint_1", "OTHER"),
        ("", "OTHER"),
    ],
)
def test_a_key_is_the_kind_of_a_statement_and_its_first_table(statement: str, key: str) -> None:
    assert statement_key(statement) == key
