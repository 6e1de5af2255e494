"""Real files that change under a running watch. Each wait is for something that must happen."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from budao.model import BreakerPolicy, GuardPolicy
from budao.settings import Change, Settings, diff
from budao.threads import FileWatch, Following, follow

PATIENCE_S = 30.0
SOON_S = 0.01


@contextmanager
def watching(path: Path, **also: Any) -> Iterator[tuple[FileWatch, Queue[bytes], Queue[str | None]]]:
    """A watch, what it tells and what it reports."""
    told: Queue[bytes] = Queue()
    troubles: Queue[str | None] = Queue()
    with FileWatch(path, told.put, on_trouble=troubles.put, every_s=SOON_S, **also) as watch:
        yield watch, told, troubles


# Asked by way of a function, so that a type checker does not take an answer to hold for the rest of a test.
def trouble(watch: FileWatch) -> str | None:
    return watch.trouble


def error(of: FileWatch | Following) -> Exception | None:
    return of.last_error


def problems(following: Following) -> tuple[tuple[str, str], ...]:
    return following.problems


def replace_file(path: Path, text: str) -> None:
    """As careful programs do: write beside it, then rename over it."""
    beside = path.with_name("beside")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def test_content_is_told_before_the_watch_is_returned_and_again_at_each_change(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    with watching(path) as (watch, told, _):
        assert told.get_nowait() == b"one"
        path.write_bytes(b"two")
        assert told.get(timeout=PATIENCE_S) == b"two"
        replace_file(path, "three")
        assert told.get(timeout=PATIENCE_S) == b"three"
        path.write_bytes(b"THREE")
        assert told.get(timeout=PATIENCE_S) == b"THREE", "same size, maybe within one tick of the file system's clock"
        assert error(watch) is None
        assert trouble(watch) is None
    assert not watch.is_alive
    assert told.empty()


def test_a_file_that_goes_is_reported_and_one_that_comes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with watching(path) as (watch, told, troubles):
        assert troubles.get_nowait() == "No such file or directory"
        assert trouble(watch) == "No such file or directory"
        replace_file(path, "one")
        assert troubles.get(timeout=PATIENCE_S) is None
        assert told.get(timeout=PATIENCE_S) == b"one"
        path.unlink()
        assert troubles.get(timeout=PATIENCE_S) == "No such file or directory"
        replace_file(path, "one")
        assert troubles.get(timeout=PATIENCE_S) is None
        assert trouble(watch) is None
        replace_file(path, "two")
        assert told.get(timeout=PATIENCE_S) == b"two", "and the old content was not told a second time"


def test_a_directory_swapped_behind_a_symbolic_link_is_noticed(tmp_path: Path) -> None:
    # The way Kubernetes updates a mounted ConfigMap: file -> ..data/file, ..data -> a directory with a date in its name.
    for version in ("one", "two"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "budao.toml").write_text(version, encoding="utf-8")
    (tmp_path / "..data").symlink_to("..one")
    path = tmp_path / "budao.toml"
    path.symlink_to("..data/budao.toml")
    with watching(path) as (_, told, _):
        assert told.get_nowait() == b"one"
        (tmp_path / "..data_tmp").symlink_to("..two")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        assert told.get(timeout=PATIENCE_S) == b"two"


@pytest.mark.parametrize("kind", ["directory", "pipe", "loop", "below a file"])
def test_what_is_no_file_is_reported_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to("file")
    else:
        path.write_bytes(b"")
        path /= "file"
    with watching(path) as (watch, told, troubles):
        said = {"loop": "Too many levels of symbolic links", "below a file": "Not a directory"}
        assert troubles.get_nowait() == said.get(kind, "is not a regular file")
        assert told.empty()
        assert watch.is_alive


def test_a_pipe_that_takes_the_files_place_between_look_and_read_does_not_stop_the_watch(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    with watching(path) as (watch, _, _):
        watch.close()
        path.unlink()
        os.mkfifo(path)
        assert str(watch._read()) == "Unreadable(problem='is not a regular file')"


def test_a_large_file_is_told_as_just_too_large(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with watching(path, bytes_max=10) as (_, told, _):
        assert told.get_nowait() == b"x" * 11


def test_a_callback_that_raises_is_remembered_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"bad")
    told: Queue[bytes] = Queue()

    def take(raw: bytes) -> None:
        told.put(raw)
        if raw == b"bad":
            raise LookupError("bad")

    with FileWatch(path, take, every_s=SOON_S) as watch:
        assert told.get_nowait() == b"bad"
        assert isinstance(error(watch), LookupError)
        path.write_bytes(b"good")
        assert told.get(timeout=PATIENCE_S) == b"good"
    assert error(watch) is None
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_watch_can_be_closed_twice_and_by_its_own_callback(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    closed = threading.Event()
    watches: list[FileWatch] = []

    def take(raw: bytes) -> None:
        if raw == b"two":
            watches[0].close()
            closed.set()

    watches.append(FileWatch(path, take, every_s=SOON_S))
    path.write_bytes(b"two")
    assert closed.wait(PATIENCE_S)
    watches[0].close()
    watches[0].close()
    assert not watches[0].is_alive


class Pretend:
    """A guard that only keeps its policy."""

    def __init__(self, name: str, coded: GuardPolicy | None = None) -> None:
        self.name = name
        self.coded = coded or GuardPolicy()
        self.policy = self.coded
        self.taken: Queue[GuardPolicy] = Queue()

    def preview(self, settings: Settings) -> tuple[Change, ...]:
        return diff(self.policy, settings.policy_for(self.name, self.coded))

    def reconfigure(self, settings: Settings) -> tuple[Change, ...]:
        changes = self.preview(settings)
        self.policy = settings.policy_for(self.name, self.coded)
        self.taken.put(self.policy)
        return changes

    def rest_s(self) -> float:
        assert self.policy.breaker is not None
        return self.policy.breaker.rest_s


class Spoken(logging.Handler):
    """Every line of a log, as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Queue[str] = Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put(f"{record.levelname}: {record.getMessage()}")


@pytest.fixture
def spoken() -> Iterator[Queue[str]]:
    handler, logger = Spoken(), logging.getLogger("budao.settings")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.setLevel(before)
    logger.removeHandler(handler)


def rest(seconds: object, name: str = "inventory") -> str:
    return f"[guard.{name}.breaker]\nrest_s = {seconds}\n"


def test_guards_follow_a_file_through_bad_good_replaced_removed_and_back(tmp_path: Path, spoken: Queue[str]) -> None:
    path = tmp_path / "budao.toml"
    path.write_text(rest("'thirty'"), encoding="utf-8")
    inventory, payments = Pretend("inventory"), Pretend("payments")
    with follow(path, iter([inventory, payments]), every_s=SOON_S) as following:
        # bad
        assert problems(following) == (
            ("guard.inventory.breaker.rest_s", f"must be a number, not a text ({path}, line 2)"),
        )
        assert spoken.get_nowait().startswith(f"ERROR: {path}: 1 problem in the settings, nothing was changed")
        assert inventory.policy == inventory.coded
        assert following.settings == Settings(source=str(path))

        # good, written in place
        path.write_text(rest(30), encoding="utf-8")
        inventory.taken.get(timeout=PATIENCE_S)
        payments.taken.get(timeout=PATIENCE_S)
        assert spoken.get(timeout=PATIENCE_S) == f"INFO: {path}: inventory: breaker.rest_s: 60 -> 30"
        assert inventory.rest_s() == 30.0
        assert payments.policy == payments.coded

        # replaced by a bad one, twice with the same content, which is said once
        replace_file(path, rest(-1))
        assert "must be above 0" in spoken.get(timeout=PATIENCE_S)
        assert problems(following)[0][0] == "guard.inventory.breaker.rest_s"
        replace_file(path, rest(-1))
        assert inventory.rest_s() == 30.0
        assert following.settings.guards["inventory"].numbers == {"breaker.rest_s": 30.0}

        # removed
        path.unlink()
        said = "cannot be read: No such file or directory"
        assert spoken.get(timeout=PATIENCE_S) == f"WARNING: {path}: {said}; what is in force stays in force"
        assert problems(following)[-1] == (str(path), said)
        assert inventory.rest_s() == 30.0

        # back
        replace_file(path, rest(40))
        assert spoken.get(timeout=PATIENCE_S) == f"INFO: {path}: can be read again"
        assert spoken.get(timeout=PATIENCE_S) == f"INFO: {path}: inventory: breaker.rest_s: 30 -> 40"
        inventory.taken.get(timeout=PATIENCE_S)
    assert problems(following) == ()
    assert error(following) is None
    assert following.changes == {"inventory": (Change(path="breaker.rest_s", old=30.0, new=40.0),)}
    assert inventory.rest_s() == 40.0
    assert spoken.empty()


def test_a_file_that_one_guard_cannot_take_changes_no_guard(tmp_path: Path, spoken: Queue[str]) -> None:
    path = tmp_path / "budao.toml"
    path.write_text(rest(500, "defaults"), encoding="utf-8")
    able, unable = Pretend("able"), Pretend("unable", GuardPolicy(breaker=BreakerPolicy(rest_max_s=100.0)))
    with follow(path, [able, unable], every_s=SOON_S) as following:
        assert problems(following) == (
            ("guard.defaults.breaker.rest_max_s", f"100 s is shorter than rest_s, 500 s ({path}, line 1)"),
        )
        assert able.policy == able.coded
        path.write_text(rest(90, "defaults"), encoding="utf-8")
        able.taken.get(timeout=PATIENCE_S)
        unable.taken.get(timeout=PATIENCE_S)
    assert able.rest_s() == unable.rest_s() == 90.0
    assert problems(following) == ()


def test_a_table_that_no_guard_claims_is_pointed_out(tmp_path: Path, spoken: Queue[str]) -> None:
    path = tmp_path / "budao.toml"
    path.write_text(rest(60, "inventry"), encoding="utf-8")
    with follow(path, [Pretend("inventory")], every_s=SOON_S) as following:
        assert problems(following) == ()
    assert spoken.get_nowait() == (f"WARNING: {path}, line 1: no guard is named 'inventry'; did you mean inventory?")


def test_a_guard_that_breaks_is_reported_and_the_file_is_followed_on(tmp_path: Path, spoken: Queue[str]) -> None:
    class Broken(Pretend):
        def reconfigure(self, settings: Settings) -> tuple[Change, ...]:
            if settings.policy_for(self.name, self.coded).keys_max == 13:
                raise ZeroDivisionError
            return super().reconfigure(settings)

    path = tmp_path / "budao.toml"
    path.write_text("[guard.a]\nkeys_max = 13\n", encoding="utf-8")
    guard = Broken("a")
    with follow(path, [guard], every_s=SOON_S) as following:
        assert isinstance(error(following), ZeroDivisionError)
        path.write_text("[guard.a]\nkeys_max = 14\n", encoding="utf-8")
        assert guard.taken.get(timeout=PATIENCE_S).keys_max == 14
    assert error(following) is None


def test_closing_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        many: list[Following] = [stack.enter_context(follow(tmp_path / "none", [])) for _ in range(10)]
        assert threading.active_count() == before + 10
    assert threading.active_count() == before
    assert all(each.problems[0][1] == "cannot be read: No such file or directory" for each in many)
