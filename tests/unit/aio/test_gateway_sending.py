from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from budao.aio.gateway import sending

DATA = b"0123456789"


class Reader:
    """A connection whose transport keeps what it is given; `room` is what the kernel would take directly."""

    def __init__(self, *, room: int = 100, waiting: int = 0, is_closing: bool = False, is_plain: bool = True) -> None:
        self.room = room
        self.got = b""
        self.was_direct = False
        self.descriptor = sending.NOT_ASKED if is_plain else sending.NONE
        self.transport = SimpleNamespace(get_write_buffer_size=lambda: waiting, is_closing=lambda: is_closing)

    def write(self, data: bytes) -> None:
        self.got += data


class Kernel:
    """Descriptors are places in a list of readers."""

    def __init__(self, readers: list[Reader]) -> None:
        self.readers = readers
        for descriptor, reader in enumerate(readers):
            if reader.descriptor == sending.NOT_ASKED:
                reader.descriptor = descriptor

    def send_all(self, descriptors: list[int], data: bytes) -> list[tuple[int, int]]:
        short = []
        for index, descriptor in enumerate(descriptors):
            reader = self.readers[descriptor]
            reader.was_direct = True
            taken = min(reader.room, len(data))
            reader.got += data[:taken]
            if taken < len(data):
                short.append((index, taken))
        return short


def send(readers: list[Reader], through: Any) -> list[Exception]:
    problems: list[Exception] = []
    writers: Any = {reader: reader.write for reader in readers}
    sending.send(writers, DATA, through, lambda _, problem: problems.append(problem))
    return problems


@given(
    st.lists(
        st.builds(
            Reader,
            room=st.integers(0, 12),
            waiting=st.sampled_from([0, 0, 5]),
            is_closing=st.booleans(),
            is_plain=st.booleans(),
        ),
        max_size=20,
    )
)
def test_everybody_gets_the_same_bytes_once_whoever_sends_them(readers: list[Reader]) -> None:
    assert send(readers, Kernel(readers).send_all) == []
    assert [reader.got for reader in readers] == [DATA] * len(readers)


def test_who_has_something_waiting_is_never_overtaken() -> None:
    readers = [Reader(waiting=each % 2) for each in range(10)]
    send(readers, Kernel(readers).send_all)
    assert [reader.was_direct for reader in readers] == [True, False] * 5


def test_a_few_readers_are_not_worth_gathering() -> None:
    readers = [Reader() for _ in range(sending.READERS_MIN - 1)]
    send(readers, Kernel(readers).send_all)
    assert not any(reader.was_direct for reader in readers)


def test_a_transport_that_refuses_is_told_of_and_the_others_go_on() -> None:
    readers = [Reader(room=each) for each in range(10)]

    def refuse(_: bytes) -> None:
        raise RuntimeError("closed")

    readers[3].write = refuse  # type: ignore[method-assign]
    assert [str(problem) for problem in send(readers, Kernel(readers).send_all)] == ["closed"]
    assert [reader.got for reader in readers if reader is not readers[3]] == [DATA] * 9
