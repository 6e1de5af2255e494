"""The commands that speak to a store, as a person runs them: against `budao store serve`, in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from budao.adapters.stores import open_store
from budao.aio import Directory, MemoryStore, Registrar, RemoteStore, StoreSource
from budao.apps import services
from budao.discovery import Address, Instance
from budao.store import Page, Put, Span, StoreAway, Txn
from budao.wire import format_instance, instance_key

PATIENCE_S = 30.0


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """A store in a process of its own; the URL it says."""
    command = [sys.executable, "-m", "budao", "store", "serve", str(folder), "--port", "0", "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        yield f"budao://{said['host']}:{said['port']}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        process.stdout.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("store")) as said:
        yield said


def budao(url: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    around = {**os.environ, "BUDAO_STORE": url, "COLUMNS": "140", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "budao", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=around,
        check=False,
    )


def test_settings_are_set_read_looked_back_on_and_taken_back(url: str) -> None:
    text = "[guard.inventory.breaker]\nrest_s = 30\n"
    first = budao(url, "settings", "set", "shop", "-", "--note", "calmer", given=text)
    assert (first.returncode, first.stdout) == (0, "shop: version 1 is current\n")
    assert budao(url, "settings", "set", "shop", "-", given="[guard.inventory.breaker]\nrest_s = 40\n").returncode == 0
    assert "rest_s = 40" in budao(url, "settings", "get", "shop").stdout
    assert budao(url, "settings", "get", "shop", "--version", "1").stdout == text

    back = budao(url, "settings", "rollback", "shop", "1")
    assert back.stdout == "shop: version 3 is current, back to version 1\n"
    assert budao(url, "settings", "get", "shop").stdout == text

    shown = budao(url, "settings", "history", "shop").stdout
    assert "3 (current)" in shown
    assert "calmer" in shown
    listed = json.loads(budao(url, "settings", "history", "shop", "--json").stdout)
    assert [each["number"] for each in listed] == [3, 2, 1]
    assert listed[0]["back_to"] == 1


def test_settings_that_are_wrong_are_refused_with_every_problem_and_nothing_changes(url: str) -> None:
    budao(url, "settings", "set", "wrong", "-", given="[guard.a.breaker]\nrest_s = 30\n")
    refused = budao(url, "settings", "set", "wrong", "-", given='[guard.a.breaker]\nrest_s = "x"\nwindow = 1\n')
    assert refused.returncode == 1
    assert "guard.a.breaker.rest_s" in refused.stderr
    assert "guard.a.breaker.window" in refused.stderr
    assert len(json.loads(budao(url, "settings", "history", "wrong", "--json").stdout)) == 1
    empty = budao(url, "settings", "set", "wrong", "-", given=" \n")
    assert (empty.returncode, "is empty" in empty.stderr) == (1, True)
    late = budao(url, "settings", "set", "wrong", "-", "--expect", "0", given="# nothing")
    assert late.returncode == 1
    assert "version 1 is current, not 0" in late.stderr


def test_what_is_not_there_is_said(url: str) -> None:
    none = budao(url, "settings", "get", "nobody")
    assert (none.returncode, none.stdout) == (1, "")
    assert "does not have any settings" in none.stderr
    nobody = budao(url, "drain", "nobody-1")
    assert nobody.returncode == 1
    assert "no such instance" in nobody.stderr


def with_two_instances(url: str, story: Callable[[Directory], Awaitable[None]]) -> None:
    def instance(name: str, port: int) -> Instance:
        return Instance(service="shop", id=name, addresses={"http": Address("127.0.0.1", port)}, zone="eu-1a")

    async def play() -> None:
        store = open_store(url)
        async with Registrar(store, instance("shop-1", 8001)), Registrar(store, instance("shop-2", 8002)):
            source = StoreSource(store)
            async with Directory(source, "shop", watcher="the-caller") as directory:
                await directory.ready()
                await story(directory)
            await source.aclose()
        await store.aclose()

    asyncio.run(play())


def test_a_table_shows_who_is_there(url: str) -> None:
    async def story(directory: Directory) -> None:
        shown = await asyncio.to_thread(budao, url, "services", "--once")
        assert shown.returncode == 0, shown.stderr
        assert "2 instances of 1 service" in shown.stdout
        assert "http 127.0.0.1:8002" in shown.stdout
        found = json.loads((await asyncio.to_thread(budao, url, "services", "--json")).stdout)
        assert [each["id"] for each in found["instances"]] == ["shop-1", "shop-2"]
        assert [each["name"] for each in found["watchers"]] == ["the-caller"]

    with_two_instances(url, story)


def test_an_instance_is_drained_and_everybody_has_heard_of_it(url: str) -> None:
    async def story(directory: Directory) -> None:
        done = await asyncio.to_thread(budao, url, "drain", "shop-1")
        assert done.returncode == 0, done.stderr
        assert "the-caller acknowledged after" in done.stdout
        assert [each.id for each in directory.roster.endpoints()] == ["shop-2"]

    with_two_instances(url, story)


async def watched_by_a_sleeper(url: str) -> None:
    """An instance, and somebody who follows it and never acknowledges."""
    store = open_store(url)
    lease = await store.grant(60.0)
    instance = Instance(service="slow", id="slow-1", addresses={"http": Address("127.0.0.1", 8001)})
    put = Put(instance_key("budao", "slow", "slow-1"), format_instance(instance), lease.id)
    await store.commit(Txn(then=(put,)))
    await StoreSource(store).acknowledge("slow", "sleeper", 1)
    await store.aclose()


def test_a_drain_that_is_interrupted_is_no_success(tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        asyncio.run(watched_by_a_sleeper(url))
        command = [sys.executable, "-m", "budao", "drain", "slow-1", "--store", url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as draining:
            assert draining.stdout is not None
            assert "published" in draining.stdout.readline()
            draining.send_signal(signal.SIGINT)
            assert draining.wait(PATIENCE_S) == 130


class Forgetful(MemoryStore):
    """Takes what is put, and lists nothing."""

    async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Page:
        if "watchers" in span.start:
            raise StoreAway("forgetful", "it does not list this")
        return await super().read(span, revision=revision, limit=limit)


def test_a_drain_that_could_not_ask_who_watches_is_no_success() -> None:
    async def play() -> tuple[int, list[str]]:
        store = Forgetful()
        instance = Instance(service="slow", id="slow-1", addresses={"http": Address("127.0.0.1", 8001)})
        await store.commit(Txn(then=(Put(instance_key("budao", "slow", "slow-1"), format_instance(instance)),)))
        said: list[str] = []
        done = await services.drain(
            store, "slow-1", service="", within_s=1.0, as_json=False, namespace="budao", say=said.append
        )
        return done, said

    done, said = asyncio.run(play())
    assert done == 1
    assert "it does not list this" in said[1]
    assert "ask again before you stop it" in said[2]


def test_changes_are_printed_as_they_happen(url: str) -> None:
    around = {**os.environ, "BUDAO_STORE": url}
    command = [sys.executable, "-m", "budao", "services", "watch", "--json"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=around)
    assert watching.stdout is not None
    lines = watching.stdout

    def next_event() -> dict[str, Any]:
        return dict(json.loads(lines.readline()))

    async def story(directory: Directory) -> None:
        seen = [await asyncio.to_thread(next_event) for _ in range(2)]
        assert [(each["event"], each["id"]) for each in seen] == [("came", "shop-1"), ("came", "shop-2")]

    try:
        with_two_instances(url, story)
        left = [next_event() for _ in range(4)]
        assert [(each["event"], each["stage"]) for each in left] == [("changed", "draining"), ("gone", "draining")] * 2
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(PATIENCE_S) == 0
        lines.close()


def test_a_store_that_is_not_there_is_said_in_bounded_time() -> None:
    failed = budao("budao://127.0.0.1:9", "services", "--once")
    assert failed.returncode == 1
    assert "127.0.0.1:9: connection refused, nothing listens there" in failed.stderr
    assert "`budao store serve FOLDER` runs one" in failed.stderr


def test_nobody_registered_is_said_in_words_and_not_shown_as_an_empty_table(url: str) -> None:
    shown = budao(url, "services", "--once", "--service", "nobody").stdout
    assert shown.startswith("no instance of nobody is registered\n")


def test_a_wrong_address_or_token_is_said_without_talk_of_settings() -> None:
    for store, word in (("localhost:7420", "a store is named"), ("budao://x:none", "the port is a number")):
        failed = budao(store, "services", "--once")
        assert (failed.returncode, failed.stdout) == (1, "")
        assert word in failed.stderr
        assert "settings" not in failed.stderr


def test_a_missing_token_is_said_with_where_to_give_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("a token of some length")
    with serving(tmp_path / "store", "--token-file", str(token)) as guarded:
        failed = budao(guarded, "services", "--once")
        assert failed.returncode == 1
        assert "give the token with --token-file, or in $BUDAO_STORE_TOKEN" in failed.stderr
        assert budao(guarded, "services", "--once", "--token-file", str(token)).returncode == 0


def test_a_port_that_is_taken_and_a_file_for_a_folder_are_said_with_what_to_do(url: str, tmp_path: Path) -> None:
    taken = budao(url, "store", "serve", str(tmp_path / "second"), "--port", url.rpartition(":")[2])
    assert taken.returncode == 1
    assert "another process listens there already; stop it, or choose another port" in taken.stderr
    assert not (tmp_path / "second").exists()
    (tmp_path / "file").touch()
    wrong = budao(url, "store", "serve", str(tmp_path / "file"), "--port", "0")
    assert wrong.returncode == 1
    assert "is a file, and a folder is needed" in wrong.stderr


def test_output_that_cannot_be_written_is_said_without_a_traceback(url: str) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "budao", "services", "--once", "--store", url]
        failed = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False)
    assert failed.returncode == 1
    assert failed.stderr == b"the output cannot be written: No space left on device\n"


def test_what_others_wrote_into_a_store_does_not_steer_the_terminal(url: str) -> None:
    budao(url, "settings", "set", "odd", "-", "--note", "a\x1b[31mb", given="# odd")
    assert "\x1b" not in budao(url, "settings", "history", "odd").stdout


def test_a_store_of_another_program_and_a_key_without_its_certificate_are_wrong_usage() -> None:
    assert "lives inside one program" in budao("memory:", "services").stderr
    assert "go together" in budao("budaos://127.0.0.1:9", "services", "--once", "--key", "key.pem").stderr


def test_no_store_at_all_is_wrong_usage() -> None:
    failed = budao("", "services")
    assert failed.returncode == 2
    assert "--store" in failed.stderr


def test_a_store_whose_first_line_nobody_reads_serves_all_the_same(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "budao", "store", "serve", str(tmp_path / "store"), "--port", str(port)]
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(command, stdout=writer, stderr=writer)
    os.close(writer)

    async def story() -> None:
        store = RemoteStore("127.0.0.1", port, timeout_s=PATIENCE_S)
        assert (await store.commit(Txn(then=(Put("k", b"v"),)))).held
        await store.aclose()

    try:
        asyncio.run(story())
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
