"""Settings from a file, the environment and a store, as a running program meets them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from budao import Guard
from budao.aio import MemoryStore, Overtaken, StoredSettings
from budao.model import BadSettings
from budao.protect import LiveSettings, live_guards
from budao.settings import VERSIONS_MAX, Stated, current_key, read_text, typed
from budao.store import Page, Put, Span, Txn

PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Shop:
    greeting: str = "hello"
    items_max: int = 10


build: Callable[[Stated], Shop] = partial(typed, Shop)


async def until(live: LiveSettings[Shop], claim: Callable[[Shop], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        async for value in live.latest.watch():
            if claim(value):
                return


def test_each_layer_lies_over_the_one_before_and_a_change_is_swapped_whole(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('greeting = "from the file"\nitems_max = 20\n')

    async def play() -> None:
        store = MemoryStore()
        stored = StoredSettings(store, "shop")
        environ = {"SHOP__ITEMS_MAX": "30"}
        async with LiveSettings(
            build, file=file, environ=environ, prefix="SHOP", store=store, name="shop", every_s=0.02
        ) as live:
            assert live.value == Shop(greeting="from the file", items_max=30)
            await stored.set("items_max = 40")
            await until(live, lambda shop: shop.items_max == 40)
            assert live.value.greeting == "from the file"
            file.write_text('greeting = "changed"\n')
            await until(live, lambda shop: shop.greeting == "changed")
            assert live.value == Shop(greeting="changed", items_max=40)
            assert live.problems == ()

    asyncio.run(play())


def test_a_bad_text_in_the_store_changes_nothing_and_keeps_no_program_from_starting() -> None:
    async def play() -> None:
        store = MemoryStore()
        stored = StoredSettings(store, "shop")
        async with LiveSettings(build, environ={}, store=store, name="shop") as running:
            await stored.set("items_max = 40")
            await until(running, lambda shop: shop.items_max == 40)
            await stored.set('items_max = "many"\ngreting = "x"')
            async with asyncio.timeout(PATIENCE_S):
                while not running.problems:  # noqa: ASYNC110 -- nobody is woken by a value that stays
                    await asyncio.sleep(0.005)
            assert running.value.items_max == 40
            assert running.version == 1
            assert dict(running.problems) == {
                "items_max": "must be a whole number, not a text (the store, version 2, line 1)",
                "greting": "is not a setting; did you mean greeting? (the store, version 2, line 2)",
            }
        async with LiveSettings(build, environ={}, store=store, name="shop") as started:
            assert started.value == Shop()
            assert started.problems
            await stored.roll_back(1)
            await until(started, lambda shop: shop.items_max == 40)
            assert started.version == 3

    asyncio.run(play())


def test_something_else_under_the_key_is_said_and_changes_nothing() -> None:
    async def play() -> None:
        store = MemoryStore()
        await store.commit(Txn(then=(Put(current_key("shop"), b"\xff not ours"),)))
        async with LiveSettings(build, environ={}, store=store, name="shop") as live:
            assert live.value == Shop()
            assert "is no version of settings" in live.problems[0][1]

    asyncio.run(play())


def test_a_mistake_in_the_file_or_the_environment_stops_a_program_at_its_start(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("items_max = true\n")

    async def play() -> None:
        with pytest.raises(BadSettings, match="SHOP__ITEMS_MAX"):
            LiveSettings(build, environ={"SHOP__ITEMS_MAX": "many"}, prefix="SHOP")
        with pytest.raises(BadSettings, match="items_max"):
            async with LiveSettings(build, file=file, environ={}):
                pass

    asyncio.run(play())


class Odd(MemoryStore):
    """Raises what no store should, as often as it is told."""

    failures = 0

    async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Page:
        if self.failures:
            self.failures -= 1
            raise TypeError("what no store should raise")
        return await super().read(span, revision=revision, limit=limit)


def test_a_store_that_raises_what_no_store_should_is_followed_all_the_same() -> None:
    async def play() -> None:
        store = Odd()
        await StoredSettings(store, "shop").set("items_max = 40")
        store.failures = 2
        async with LiveSettings(build, environ={}, store=store, name="shop") as live:
            await until(live, lambda shop: shop.items_max == 40)
            assert live.problems == ()

    asyncio.run(play())


def test_a_start_that_is_cancelled_leaves_no_thread_and_no_task_behind(tmp_path: Path) -> None:
    file = tmp_path / "cancelled.toml"
    file.write_text("")

    class Silent(MemoryStore):
        async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Page:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

    asked = asyncio.Event()

    async def story() -> None:
        live = LiveSettings(lambda stated: stated, file=file, environ={}, store=Silent())
        starting = asyncio.create_task(live.__aenter__())
        await asked.wait()
        starting.cancel()
        await asyncio.wait([starting])
        assert asyncio.all_tasks() == {asyncio.current_task(), *own}
        assert not any(file.name in thread.name for thread in threading.enumerate())

    async def run() -> None:
        own.add(asyncio.current_task())
        await asyncio.wait_for(story(), PATIENCE_S)

    own: set[asyncio.Task[None] | None] = set()
    asyncio.run(run())


def test_what_a_file_says_as_the_block_ends_is_told_to_nobody(tmp_path: Path) -> None:
    file = tmp_path / "late.toml"
    file.write_text("a = 1")
    told: list[Stated] = []

    async def story() -> None:
        async with LiveSettings(lambda stated: stated, file=file, environ={}, on_value=told.append) as live:
            count = len(told)
            asyncio.get_running_loop().call_soon(live._take_file, b"a = 2")
        await asyncio.sleep(0)
        assert len(told) == count

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_guards_follow_the_store_all_or_none() -> None:
    async def play() -> None:
        inventory, payments = Guard("inventory"), Guard("payments")
        store = MemoryStore()
        stored = StoredSettings(store, "main")
        async with live_guards([inventory, payments], environ={}, store=store) as live:
            await stored.set("[guard.inventory.breaker]\nrest_s = 7\n")
            async with asyncio.timeout(PATIENCE_S):
                await live.latest.changed(live.value)
            breaker = inventory.policy.breaker
            assert breaker is not None
            assert breaker.rest_s == 7.0
            await stored.set("[guard.inventory.breaker]\nrest_s = 8\n[guard.payments.breaker]\nrest_s = 100000\n")
            async with asyncio.timeout(PATIENCE_S):
                while not live.problems:  # noqa: ASYNC110 -- nobody is woken by a value that stays
                    await asyncio.sleep(0.005)
            breaker = inventory.policy.breaker
            assert breaker is not None
            assert breaker.rest_s == 7.0

    asyncio.run(play())


def test_two_people_who_change_at_once_make_two_versions_and_one_who_looked_away_is_told() -> None:
    async def play() -> None:
        store = MemoryStore()
        stored = StoredSettings(store, "shop")
        made = await asyncio.gather(*(stored.set(f"items_max = {index}", by=f"p{index}") for index in range(5)))
        assert sorted(version.number for version in made) == [1, 2, 3, 4, 5]
        with pytest.raises(Overtaken, match="version 5 is current, not 3"):
            await stored.set("items_max = 9", expected=3)
        history = await stored.history()
        assert [version.number for version in history] == [5, 4, 3, 2, 1]
        assert {version.by for version in history} == {f"p{index}" for index in range(5)}

    asyncio.run(play())


def test_a_history_is_bounded_and_a_version_that_is_gone_cannot_be_gone_back_to() -> None:
    async def play() -> None:
        stored = StoredSettings(MemoryStore(), "shop")
        for index in range(VERSIONS_MAX + 3):
            await stored.set(f"items_max = {index}")
        assert len(await stored.history()) == VERSIONS_MAX
        with pytest.raises(BadSettings, match="version 3 is not kept"):
            await stored.roll_back(3)
        back = await stored.roll_back(4)
        assert (back.number, back.back_to, back.text) == (VERSIONS_MAX + 4, 4, "items_max = 3")

    asyncio.run(play())


def test_what_the_check_refuses_is_never_written() -> None:
    async def play() -> None:
        store = MemoryStore()
        stored = StoredSettings(store, "shop", check=lambda text: build(read_text(text, source="set")))
        with pytest.raises(BadSettings):
            await stored.set("items_max = 1.5")
        assert await stored.get() is None

    asyncio.run(play())
