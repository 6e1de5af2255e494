from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO, ENOSPC
from pathlib import Path

import pytest

from budao.aio.journal import JournalFolder
from budao.model import Mono
from budao.store import Commit, Grant, Keeper, Put, Span, StorePolicy, StoreRefused, Txn
from budao.wire import journal as wire

POLICY = StorePolicy()
T0 = Mono(0.0)


def put(files: JournalFolder, keeper: Keeper, *keys: str) -> None:
    commands = [Commit(Txn(then=(Put(key, b"value"),))) for key in keys]
    payload = wire.format_group(keeper.revision, list(map(wire.format_command, commands)))
    assert files.append(payload) is None
    for command in commands:
        keeper.apply(command, T0)


def filled(folder: Path, *groups: tuple[str, ...]) -> Keeper:
    files, keeper = JournalFolder.open(folder, POLICY, T0)
    for keys in groups:
        put(files, keeper, *keys)
    files.close()
    return keeper


def keys_of(keeper: Keeper) -> list[str]:
    return [entry.key for entry in keeper.read(Span.prefix("")).entries]


def reopened(folder: Path, policy: StorePolicy = POLICY) -> tuple[list[str], int, list[str]]:
    files, keeper = JournalFolder.open(folder, policy, T0)
    files.close()
    return keys_of(keeper), keeper.revision, files.notes


def newest(folder: Path) -> Path:
    return max(folder.glob("journal-*"))


def test_what_was_appended_is_there_again_and_so_are_revisions_and_leases(tmp_path: Path) -> None:
    files, keeper = JournalFolder.open(tmp_path, POLICY, T0)
    put(files, keeper, "a", "b")
    grant = Grant(0, 5.0)
    assert files.append(wire.format_group(keeper.revision, [wire.format_command(grant)])) is None
    lease = keeper.apply(grant, T0)
    files.close()
    later, again = JournalFolder.open(tmp_path, POLICY, Mono(1000.0))
    assert again.snapshot() == keeper.snapshot()
    assert again.look_up(lease.id, Mono(1000.0)).left_s == 5.0
    assert later.store == files.store
    later.close()


def test_the_last_record_cut_at_any_byte_takes_only_itself_along(tmp_path: Path) -> None:
    filled(tmp_path, ("a",), ("b",))
    raw = newest(tmp_path).read_bytes()
    before = (
        len(raw)
        - wire.RECORD.size
        - len(wire.format_group(2, [wire.format_command(Commit(Txn(then=(Put("b", b"value"),))))]))
    )
    for size in range(before, len(raw)):
        newest(tmp_path).write_bytes(raw[:size])
        keys, revision, notes = reopened(tmp_path)
        assert (keys, revision) == (["a"], 2)
        assert len(notes) == (size > before)
        assert newest(tmp_path).stat().st_size == before


def test_after_a_torn_tail_was_cut_off_the_journal_goes_on(tmp_path: Path) -> None:
    filled(tmp_path, ("a",))
    with newest(tmp_path).open("ab") as file:
        file.write(bytes(5000) + b"garbage")
    files, keeper = JournalFolder.open(tmp_path, POLICY, T0)
    assert files.torn_bytes == 5007
    put(files, keeper, "b")
    files.close()
    assert reopened(tmp_path) == (["a", "b"], 3, [])


def test_damage_in_the_middle_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    filled(tmp_path, ("a",), ("b",))
    path = newest(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"\xc4\x05value") + 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(wire.Unreadable) as refused:
        JournalFolder.open(tmp_path, POLICY, T0)
    assert refused.value.file == str(path)
    assert "record 1 is damaged" in str(refused.value)
    assert path.read_bytes() == raw
    with pytest.raises(wire.Unreadable):  # and the lock was let go of
        JournalFolder.open(tmp_path, POLICY, T0)


@pytest.mark.parametrize("name", ["journal-00000001.budao", "snapshot-00000001.budao"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    filled(tmp_path, ("a",))
    (tmp_path / name).unlink()
    with pytest.raises(wire.Unreadable, match=rf"{name}.*the file is missing"):
        JournalFolder.open(tmp_path, POLICY, T0)


@pytest.mark.parametrize("left", [[], ["journal-00000001.budao"]])
def test_a_store_whose_making_was_interrupted_is_made_anew(tmp_path: Path, left: list[str]) -> None:
    filled(tmp_path)
    for path in tmp_path.glob("*.budao"):
        if path.name not in left:
            path.unlink()
    (tmp_path / "snapshot-00000001.tmp").write_bytes(b"half")
    assert reopened(tmp_path) == ([], 1, [])
    assert not list(tmp_path.glob("*.tmp"))


def test_a_second_server_on_the_folder_is_told_who_has_it(tmp_path: Path) -> None:
    files, _ = JournalFolder.open(tmp_path, POLICY, T0)
    with pytest.raises(StoreRefused, match=f"process {os.getpid()} serves this folder already"):
        JournalFolder.open(tmp_path, POLICY, T0)
    files.close()
    reopened(tmp_path)


def test_a_second_server_is_refused_also_where_somebody_removed_the_file_that_is_locked(tmp_path: Path) -> None:
    files, _ = JournalFolder.open(tmp_path, POLICY, T0)
    (tmp_path / "lock").unlink()
    with pytest.raises(StoreRefused, match="serves this folder already"):
        JournalFolder.open(tmp_path, POLICY, T0)
    files.close()
    JournalFolder.open(tmp_path, POLICY, T0)[0].close()


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreRefused, match="open the store in"):
        JournalFolder.open(tmp_path / "file", POLICY, T0)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreRefused, match="leads nowhere, and a folder is needed"):
        JournalFolder.open(tmp_path / "link", POLICY, T0)


def test_a_folder_behind_a_link_is_the_same_folder(tmp_path: Path) -> None:
    filled(tmp_path / "store", ("a",))
    (tmp_path / "link").symlink_to(tmp_path / "store")
    files, keeper = JournalFolder.open(tmp_path / "link", POLICY, T0)
    with pytest.raises(StoreRefused, match="serves this folder already"):
        JournalFolder.open(tmp_path / "store", POLICY, T0)
    assert files.rotate(keeper.revision, POLICY) is None
    files.close()
    assert reopened(tmp_path / "store")[0] == ["a"]


def generations(folder: Path, count: int) -> Keeper:
    files, keeper = JournalFolder.open(folder, POLICY, T0)
    for number in range(count):
        put(files, keeper, f"k{number}")
        assert files.rotate(keeper.revision, POLICY) is None
        assert files.save(keeper.snapshot(), files.generation) is None
    put(files, keeper, "last")
    files.close()
    return keeper


def test_what_was_left_unfinished_goes_and_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "journal-00000002.tmp").write_bytes(b"half")
    (tmp_path / "thesis.tmp").write_bytes(b"years of work")
    filled(tmp_path, ("a",))
    assert not (tmp_path / "journal-00000002.tmp").exists()
    assert (tmp_path / "thesis.tmp").read_bytes() == b"years of work"


def test_two_generations_are_kept_and_watchers_can_resume_from_before_the_newest_snapshot(tmp_path: Path) -> None:
    keeper = generations(tmp_path, 4)
    assert sorted(path.name[:-6] for path in tmp_path.glob("*.budao")) == [
        *("journal-00000004", "journal-00000005", "snapshot-00000004", "snapshot-00000005")
    ]
    files, again = JournalFolder.open(tmp_path, POLICY, T0)
    files.close()
    assert again.snapshot() == keeper.snapshot()
    assert again.compacted == keeper.revision - 2


@pytest.mark.parametrize("damaged", ["snapshot-00000002", "snapshot-00000003", "journal-00000002"])
def test_one_damaged_file_of_the_older_generation_or_snapshot_costs_nothing(tmp_path: Path, damaged: str) -> None:
    keeper = generations(tmp_path, 2)
    path = tmp_path / f"{damaged}.budao"
    path.write_bytes(path.read_bytes()[:-3])
    keys, revision, _ = reopened(tmp_path)
    assert (keys, revision) == (keys_of(keeper), keeper.revision)


def test_a_crash_between_new_journal_and_snapshot_loses_nothing(tmp_path: Path) -> None:
    files, keeper = JournalFolder.open(tmp_path, POLICY, T0)
    put(files, keeper, "a")
    files.rotate(keeper.revision, POLICY)
    put(files, keeper, "b")
    files.rotate(keeper.revision, POLICY)
    put(files, keeper, "c")
    files.close()
    assert reopened(tmp_path) == (["a", "b", "c"], 4, [])


def test_other_bounds_of_the_store_do_not_change_what_was_acknowledged(tmp_path: Path) -> None:
    filled(tmp_path, ("a", "b", "c"))
    small = StorePolicy(entries_max=1)
    assert reopened(tmp_path, small)[:2] == (["a", "b", "c"], 4)
    assert reopened(tmp_path, small)[:2] == (["a", "b", "c"], 4)
    assert reopened(tmp_path)[:2] == (["a", "b", "c"], 4)


def test_a_group_is_replayed_by_the_bounds_that_were_in_force(tmp_path: Path) -> None:
    filled(tmp_path, ("a", "b", "c"))
    small = StorePolicy(entries_max=4)
    files, keeper = JournalFolder.open(tmp_path, small, T0)
    group = [Commit(Txn(then=(Put(key, b""),))) for key in ("x", "y")]
    assert files.append(wire.format_group(keeper.revision, list(map(wire.format_command, group)))) is None
    keeper.apply(group[0], T0)
    with pytest.raises(StoreRefused):
        keeper.apply(group[1], T0)
    files.close()
    assert reopened(tmp_path, small)[:2] == (["a", "b", "c", "x"], 5)
    assert reopened(tmp_path)[:2] == (["a", "b", "c", "x"], 5)


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """No file of this process can grow beyond that. Needs no rights, and the interpreter ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_space_a_write_is_refused_whole_and_the_next_goes_on_once_there_is_space(tmp_path: Path) -> None:
    files, keeper = JournalFolder.open(tmp_path, POLICY, T0)
    put(files, keeper, "a")
    size = files.journal_bytes
    large = wire.format_group(keeper.revision, [wire.format_command(Commit(Txn(then=(Put("b", bytes(9000)),))))])
    with files_at_most(size + 4000):
        for _ in range(2):
            failure = files.append(large)
            assert failure is not None
            assert not failure.may_have_taken_effect
            assert "takes writes again once there is space" in failure.problem
            assert newest(tmp_path).stat().st_size == size
        put(files, keeper, "small")
    put(files, keeper, "c")
    files.close()
    assert reopened(tmp_path) == (["a", "c", "small"], 4, [])


def test_without_space_a_snapshot_leaves_everything_as_it_was(tmp_path: Path) -> None:
    files, keeper = JournalFolder.open(tmp_path, POLICY, T0)
    put(files, keeper, "a")
    with files_at_most(10):
        assert files.rotate(keeper.revision, POLICY) is not None
        assert files.save(keeper.snapshot(), 2) is not None
    put(files, keeper, "b")
    files.close()
    assert not list(tmp_path.glob("*.tmp"))
    assert reopened(tmp_path) == (["a", "b"], 3, [])


class Sick(JournalFolder):
    """A disk whose fsync fails."""

    errno: int | None = None

    def _sync(self) -> None:
        if self.errno is not None:
            raise OSError(self.errno, os.strerror(self.errno))
        super()._sync()


class Forgetful(JournalFolder):
    """A folder whose names cannot be made durable."""

    forgets = False

    def _sync_names(self) -> None:
        if self.forgets:
            raise OSError(EIO, os.strerror(EIO))
        super()._sync_names()


def test_after_a_failed_fsync_the_file_is_never_written_again(tmp_path: Path) -> None:
    files, keeper = Sick.open(tmp_path, POLICY, T0)
    put(files, keeper, "a")
    payload = wire.format_group(keeper.revision, [wire.format_command(Commit(Txn(then=(Put("b", b""),))))])
    files.errno = EIO
    failure = files.append(payload)
    assert failure is not None
    assert failure.may_have_taken_effect
    files.errno = None
    again = files.append(payload)
    assert again is not None
    assert not again.may_have_taken_effect
    assert "cannot be trusted since fsync failed" in again.problem
    files.close()


def test_after_a_new_journal_whose_name_may_be_lost_nothing_is_acknowledged(tmp_path: Path) -> None:
    files, keeper = Forgetful.open(tmp_path, POLICY, T0)
    put(files, keeper, "a")
    files.forgets = True
    failure = files.rotate(keeper.revision, POLICY)
    assert failure is not None
    assert "restart it" in failure.problem
    command = wire.format_command(Commit(Txn(then=(Put("b", b"value"),))))
    refused = files.append(wire.format_group(keeper.revision, [command]))
    assert refused is not None
    assert not refused.may_have_taken_effect
    files.close()
    # Written to the old journal, it would stand before a journal that begins without it, and neither could be read.
    assert reopened(tmp_path) == (["a"], 2, [])


def test_nothing_is_acknowledged_by_a_journal_that_somebody_has_removed(tmp_path: Path) -> None:
    files, keeper = JournalFolder.open(tmp_path / "store", POLICY, T0)
    put(files, keeper, "a")
    shutil.rmtree(tmp_path / "store")
    command = wire.format_command(Commit(Txn(then=(Put("b", b"value"),))))
    for _ in range(2):
        failure = files.append(wire.format_group(keeper.revision, [command]))
        assert failure is not None
        assert "somebody has removed its journal" in failure.problem
    files.close()


def test_a_folder_that_was_moved_away_writes_nothing_into_the_one_in_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    files, keeper = JournalFolder.open(folder, POLICY, T0)
    put(files, keeper, "a")
    folder.rename(tmp_path / "moved")
    filled(folder, ("other",))
    failure = files.rotate(keeper.revision, POLICY)
    assert failure is not None
    assert "another is in its place" in failure.problem
    put(files, keeper, "b")
    files.close()
    assert reopened(folder)[0] == ["other"]
    assert reopened(tmp_path / "moved")[0] == ["a", "b"]


def test_a_record_that_no_recovery_would_believe_is_not_written(tmp_path: Path) -> None:
    files, keeper = JournalFolder.open(tmp_path, POLICY, T0)
    failure = files.append(bytes(wire.RECORD_BYTES_MAX + 1))
    assert failure is not None
    assert not failure.may_have_taken_effect
    put(files, keeper, "a")
    files.close()
    assert reopened(tmp_path) == (["a"], 2, [])


def test_an_fsync_without_space_is_taken_back(tmp_path: Path) -> None:
    files, keeper = Sick.open(tmp_path, POLICY, T0)
    size = files.journal_bytes
    payload = wire.format_group(keeper.revision, [wire.format_command(Commit(Txn(then=(Put("b", b""),))))])
    files.errno = ENOSPC
    failure = files.append(payload)
    assert failure is not None
    assert not failure.may_have_taken_effect
    assert newest(tmp_path).stat().st_size == size
    files.errno = None
    put(files, keeper, "c")
    files.close()
    assert reopened(tmp_path)[0] == ["c"]


def test_files_are_closed_in_programs_that_are_started_and_others_cannot_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    files, _ = JournalFolder.open(folder, POLICY, T0)
    assert not os.get_inheritable(files._file)
    assert not os.get_inheritable(files._lock)
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    files.close()
