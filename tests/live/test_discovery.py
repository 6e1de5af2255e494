"""Services register, are found, drain, die and come back, on every store there is."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from budao.adapters.stores import open_store
from budao.aio import Directory, MemoryStore, Registrar, RemoteStore, Store, StoreSource, in_thread
from budao.discovery import (
    Address,
    DirectoryPolicy,
    DuplicateInstance,
    Instance,
    RegistrarPolicy,
    Roster,
)
from budao.model import Stage
from budao.store import Batch, Put, Span, StoreAway, Txn
from budao.wire import Watcher, format_instance, instance_key, parse_instance, watcher_key
from tests.live.etcd_server import Cluster
from tests.live.store_process import serving

PATIENCE_S = 30.0
QUICK = RegistrarPolicy(ttl_s=2.0, renew_every_s=0.5, pause_max_s=0.3, taken_every_s=0.1, enter_max_s=PATIENCE_S)


def copy(name: str, service: str = "orders", incarnation: str = "", **more: str) -> Instance:
    return Instance(
        service=service,
        id=name,
        addresses={"http": Address("127.0.0.1", 80)},
        incarnation=incarnation,
        metadata=more,
    )


@contextmanager
def some_url(kind: str, folder: Path) -> Iterator[str]:
    if kind == "memory":
        yield "memory:"
    elif kind == "server":
        with serving(folder / "store") as server:
            yield f"budao://127.0.0.1:{server.port}"
    else:
        with Cluster(folder) as cluster:
            yield "etcd://" + ",".join(cluster.endpoints)


@pytest.fixture(params=["memory", "server", "etcd"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with some_url(request.param, tmp_path) as found:
        yield found


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = open_store(url)
    try:
        yield store
    finally:
        await store.aclose()


async def until(directory: Directory, holds: Callable[[Roster], bool]) -> Roster:
    async with asyncio.timeout(PATIENCE_S):
        async for roster in directory.latest.watch():
            if holds(roster):
                return roster
    raise AssertionError("a watch never ends")


async def acknowledged(source: StoreSource, service: str, holds: Callable[[tuple[Watcher, ...]], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S), aclosing(source.watchers(service)) as watching:
        async for watchers in watching:
            if holds(watchers):
                return


def ids(roster: Roster) -> list[str]:
    return [instance.id for instance in roster.instances]


def test_an_instance_is_found_drains_is_acknowledged_and_leaves(url: str) -> None:
    async def run() -> None:
        async with opened(url) as store:
            source = StoreSource(store)
            async with Directory(source, "orders", watcher="me") as directory:
                assert ids(await directory.ready()) == []
                async with Registrar(store, copy("a")) as registrar:
                    roster = await until(directory, lambda roster: ids(roster) == ["a"])
                    assert roster.instances == (registrar.instance,)
                    revision = await registrar.announce(Stage.DRAINING)
                    roster = await until(directory, lambda roster: roster.endpoints() == ())
                    assert (roster.revision, roster.instances) == (revision, (registrar.instance,))
                    await acknowledged(
                        source,
                        "orders",
                        lambda found: [(each.name, each.revision >= revision) for each in found] == [("me", True)],
                    )
                    assert await registrar.announce(Stage.DRAINING) == revision
                await until(directory, lambda roster: ids(roster) == [])
                assert directory.roster.doubted == frozenset()
            await acknowledged(source, "orders", lambda found: found == ())
            await source.aclose()

    asyncio.run(run())


def test_whoever_leaves_without_a_drain_is_not_taken_for_dead(url: str) -> None:
    async def run() -> None:
        async with opened(url) as store, Directory(StoreSource(store), "orders") as directory:
            registrars = [Registrar(store, copy(name)) for name in "abc"]
            for registrar in registrars:
                await registrar.__aenter__()
            await until(directory, lambda roster: ids(roster) == ["a", "b", "c"])
            for registrar in registrars:
                await registrar.__aexit__(None, None, None)
            await until(directory, lambda roster: ids(roster) == [])
            assert directory.machine.counts.expired == 0

    asyncio.run(run())


def test_names_with_odd_characters_and_huge_metadata_arrive_whole(url: str) -> None:
    odd = copy("50%/é ✓\\\"'", service="a/b %2F", big="\x01ü" * 5_000)

    async def run() -> None:
        async with (
            opened(url) as store,
            Directory(StoreSource(store), odd.service, watcher="w/%") as directory,
            Registrar(store, odd) as one,
        ):
            roster = await until(directory, lambda roster: len(roster.instances) == 1)
            assert roster.instances == (one.instance,)
            await acknowledged(StoreSource(store), odd.service, lambda found: [each.name for each in found] == ["w/%"])

    asyncio.run(run())


def test_what_cannot_be_read_is_left_out_counted_and_harms_nobody(url: str) -> None:
    async def run() -> None:
        async with opened(url) as store:
            garbage = (
                Put(instance_key("budao", "orders", "bad"), b"\xff garbage"),
                Put("budao/instances/orders/a%2fb", b"{}"),
                Put(instance_key("budao", "orders", "liar"), b'{"format":1,"service":"x","id":"y"}'),
                Put(watcher_key("budao", "orders", "bad"), b"[]"),
            )
            await store.commit(Txn(then=garbage))
            source = StoreSource(store)
            async with Directory(source, "orders", watcher="me") as directory, Registrar(store, copy("a")):
                await until(directory, lambda roster: ids(roster) == ["a"])
                await acknowledged(source, "orders", lambda found: [each.name for each in found] == ["me"])
            assert source.unreadable == 4
            await source.aclose()

    asyncio.run(run())


PROCESS = """
import asyncio, sys
from budao.adapters.stores import open_store
from budao.aio import Registrar
from budao.discovery import Address, Instance, RegistrarPolicy

async def main():
    store = open_store(sys.argv[1])
    instance = Instance(service="orders", id=sys.argv[2], addresses={"http": Address("127.0.0.1", 80)})
    async with Registrar(store, instance, policy=RegistrarPolicy(ttl_s=2.0, renew_every_s=0.5)):
        print("registered", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@contextmanager
def registered_process(url: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", PROCESS, url, name], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"registered\n"
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        process.stdout.close()


@pytest.mark.parametrize("kind", ["server", "etcd"])
def test_a_killed_process_is_gone_after_its_lease_and_a_restart_under_its_id_waits_for_that(
    kind: str, tmp_path: Path
) -> None:
    async def run(url: str) -> None:
        async with opened(url) as store, Directory(StoreSource(store), "orders") as directory:
            with registered_process(url, "a") as process:
                first = await until(directory, lambda roster: ids(roster) == ["a"])
                process.send_signal(signal.SIGKILL)
                async with Registrar(store, copy("a"), policy=QUICK) as again:
                    await until(directory, lambda roster: again.instance in roster.instances)
                    assert again.instance.incarnation != first.instances[0].incarnation
            assert directory.machine.counts.expired == 1

    with some_url(kind, tmp_path) as url:
        asyncio.run(run(url))


def test_a_second_process_under_a_living_id_is_told_who_has_it(url: str) -> None:
    async def run() -> None:
        async with opened(url) as store, Registrar(store, copy("a", incarnation="first"), policy=QUICK) as first:
            with pytest.raises(DuplicateInstance, match="port 80, incarnation first, and still was"):
                async with Registrar(store, copy("a", incarnation="second"), policy=QUICK):
                    raise AssertionError("two of one id")
            async with Directory(StoreSource(store), "orders") as directory:
                assert (await directory.ready()).instances == (first.instance,)

    asyncio.run(run())


def test_a_lease_that_was_lost_is_followed_by_a_new_one(url: str) -> None:
    async def run() -> None:
        async with opened(url) as store, Directory(StoreSource(store), "orders") as directory:
            registrar = Registrar(store, copy("a"), policy=QUICK)
            async with registrar:
                before = await until(directory, lambda roster: ids(roster) == ["a"])
                await store.revoke(registrar.machine.lease)
                await until(directory, lambda roster: ids(roster) == ["a"] and roster.revision > before.revision)
                assert await registrar.announce(Stage.READY) > before.revision
                assert registrar.problem is None

    asyncio.run(run())


def test_while_the_store_is_away_everybody_is_served_and_afterwards_everybody_is_there(tmp_path: Path) -> None:
    async def run() -> None:
        with serving(tmp_path / "store") as server:
            store = RemoteStore("127.0.0.1", server.port, timeout_s=1.0, away_max_s=0.5)
            lost: list[Roster] = []

            async def look(directory: Directory) -> None:
                async for roster in directory.latest.watch():
                    lost.extend([roster] if ids(roster) != ["a", "b"] else [])

            try:
                async with (
                    Registrar(store, copy("a"), policy=QUICK) as one,
                    Registrar(store, copy("b"), policy=QUICK) as two,
                    Directory(StoreSource(store), "orders") as directory,
                ):
                    await until(directory, lambda roster: ids(roster) == ["a", "b"])
                    looking = asyncio.create_task(look(directory))
                    server.kill()
                    await until(directory, lambda roster: roster.stale_since is not None)
                    assert directory.problem is not None
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await one.announce(Stage.DRAINING)
                    # The leases would have run out by now; nobody could renew them.
                    await asyncio.sleep(2.0)
                    await asyncio.to_thread(server.start)
                    await until(directory, lambda roster: roster.stale_since is None)
                    assert await one.announce(Stage.READY) > 0
                    assert await two.announce(Stage.READY) > 0
                    await until(directory, lambda roster: roster.doubted == frozenset())
                    looking.cancel()
                    assert ids(directory.roster) == ["a", "b"]
                    assert lost == []
            finally:
                await store.aclose()

    asyncio.run(run())


def test_a_store_that_is_away_keeps_no_service_from_starting() -> None:
    async def run() -> None:
        store = MemoryStore()
        store.go_away("no route")
        policy = RegistrarPolicy(enter_max_s=0.05, pause_max_s=0.05)
        async with Registrar(store, copy("a"), policy=policy) as registrar:
            assert registrar.problem is not None
            async with Directory(StoreSource(store), "orders", policy=DirectoryPolicy(ready_max_s=0.05)) as directory:
                with pytest.raises(StoreAway, match="no list of service orders within"):
                    await directory.ready()
                assert directory.roster.endpoints() == ()
                store.come_back()
                await until(directory, lambda roster: ids(roster) == ["a"])
        await store.aclose()

    asyncio.run(run())


def test_a_directory_whose_name_no_store_takes_follows_and_is_left_all_the_same() -> None:
    async def play() -> None:
        store = MemoryStore()
        async with (
            Registrar(store, copy("a")),
            Directory(StoreSource(store), "orders", watcher="w" * 3_000) as directory,
        ):
            roster = await directory.ready()
            assert [each.id for each in roster.instances] == ["a"]
        await store.aclose()

    asyncio.run(play())


def test_a_watcher_whose_lease_was_lost_says_again_where_it_stands() -> None:
    async def run() -> None:
        store = MemoryStore()
        source = StoreSource(store, ttl_s=0.3)
        async with Directory(source, "orders", watcher="me"):
            await acknowledged(source, "orders", lambda found: len(found) == 1)
            await store.revoke(source._lease)
            await acknowledged(source, "orders", lambda found: len(found) == 0)
            await acknowledged(source, "orders", lambda found: len(found) == 1)
        await source.aclose()
        await store.aclose()

    asyncio.run(run())


def test_a_store_that_forgets_every_lease_costs_nobody_its_place() -> None:
    async def run() -> None:
        store = MemoryStore()
        names = ["a", "b", "c", "d", "e"]
        registrars = [Registrar(store, copy(name), policy=QUICK) for name in names]
        async with Directory(StoreSource(store), "orders") as directory:
            for registrar in registrars:
                await registrar.__aenter__()
            await until(directory, lambda roster: ids(roster) == names)
            for registrar in registrars:
                await store.revoke(registrar.machine.lease)
            # The first one looked like a single death; with the second it no longer did.
            await until(directory, lambda roster: ids(roster) == names and roster.doubted != frozenset())
            await until(directory, lambda roster: ids(roster) == names and roster.doubted == frozenset())
            assert directory.machine.counts.doubted >= 2
            for registrar in registrars:
                await registrar.__aexit__(None, None, None)
        await store.aclose()

    asyncio.run(run())


def test_a_directory_that_was_open_for_a_moment_leaves_no_watcher_behind(url: str) -> None:
    async def run() -> None:
        async with opened(url) as store:
            source = StoreSource(store)
            for _ in range(3):
                async with Directory(source, "orders", watcher="brief") as directory:
                    await directory.ready()
                    await asyncio.sleep(0)
            async with Directory(source, "orders", watcher="long"):
                await acknowledged(source, "orders", lambda found: [each.name for each in found] == ["long"])
            await source.aclose()

    asyncio.run(run())


def test_a_directory_of_threads_lives_on_a_loop_of_its_own(url: str) -> None:
    seen: list[Roster] = []

    @asynccontextmanager
    async def both() -> AsyncIterator[Directory]:
        async with opened(url) as store, Registrar(store, copy("a")), Directory(StoreSource(store), "orders") as inside:
            await inside.ready()
            yield inside

    make: Callable[[], AbstractAsyncContextManager[Directory]] = both
    with in_thread(make) as directory:
        reader = threading.Thread(target=lambda: seen.append(directory.roster))
        reader.start()
        reader.join()
    assert ids(seen[0]) == ["a"]


def test_what_fails_while_a_thread_opens_a_directory_reaches_the_thread() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise KeyError("nothing there")
        yield

    before = threading.active_count()
    with pytest.raises(KeyError, match="nothing there"), in_thread(broken):
        raise AssertionError("it did not open")
    deadline = time.monotonic() + PATIENCE_S
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_instance_that_others_drain_stays_drained_also_when_its_lease_is_lost() -> None:
    async def play() -> None:
        store = MemoryStore()
        instance = Instance(service="orders", id="a", addresses={"http": Address("10.0.0.1", 80)})
        async with Registrar(store, instance) as registrar:
            entry = (await store.read(Span.one(registrar.key))).first
            assert entry is not None
            drained = replace(parse_instance(entry.value), stage=Stage.DRAINING)
            await store.commit(Txn(then=(Put(entry.key, format_instance(drained), entry.lease),)))
            async with asyncio.timeout(PATIENCE_S):
                await registrar.ordered.wait()
            assert registrar.instance.stage is Stage.DRAINING
            await store.revoke(entry.lease)
            async with asyncio.timeout(PATIENCE_S):
                while not (page := await store.read(Span.one(registrar.key))).entries:  # noqa: ASYNC110 -- nobody tells
                    await asyncio.sleep(0.005)
            assert parse_instance(page.entries[0].value) == drained

    asyncio.run(play())


def test_an_instance_is_drained_by_others_also_after_its_store_raised_what_it_should_not() -> None:
    class Odd(MemoryStore):
        watches = 0

        def watch(self, span: Span, *, after: int) -> AsyncIterator[Batch]:
            self.watches += 1
            if self.watches == 1:
                raise RuntimeError("a mistake of its own")
            return super().watch(span, after=after)

    async def play() -> None:
        store = Odd()
        async with Registrar(store, copy("a"), policy=RegistrarPolicy(pause_max_s=0.01)) as registrar:
            async with asyncio.timeout(PATIENCE_S):
                while store.watches < 1:  # noqa: ASYNC110 -- nobody tells
                    await asyncio.sleep(0.005)
            entry = (await store.read(Span.one(registrar.key))).first
            assert entry is not None
            drained = replace(parse_instance(entry.value), stage=Stage.DRAINING)
            await store.commit(Txn(then=(Put(entry.key, format_instance(drained), entry.lease),)))
            async with asyncio.timeout(PATIENCE_S):
                await registrar.ordered.wait()

    asyncio.run(play())
