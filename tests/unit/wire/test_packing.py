from __future__ import annotations

import tracemalloc

import pytest

from budao.model import RemoteWireError
from budao.wire.packing import UNCHECKED_BYTES_MAX, pack, unpack


@pytest.mark.parametrize("size", [0, UNCHECKED_BYTES_MAX - 10, UNCHECKED_BYTES_MAX, 70_000])
def test_a_value_of_any_length_comes_back(size: int) -> None:
    value = [1, [b"x" * size, {"a": [None, True, 0.5]}], "é" * size]
    assert unpack(pack(value)) == value
    assert unpack(memoryview(pack(value))) == value


@pytest.mark.parametrize("size", [4_096, 65_536])
def test_lengths_within_lengths_that_nothing_follows_take_no_room(size: int) -> None:
    raw = (b"\xdd" + size.to_bytes(4, "big")) * (size // 8)
    raw += bytes(size - len(raw))
    tracemalloc.start()
    try:
        with pytest.raises(RemoteWireError, match="are not one msgpack value"):
            unpack(raw)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20 * size


@pytest.mark.parametrize("raw", [b"", b"\x00\x00", pack([bytes(2_000)])[:-1], pack([bytes(2_000)]) + b"\x00"])
def test_more_or_less_than_one_value_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteWireError):
        unpack(raw)


def test_a_long_value_with_text_that_is_none_is_refused() -> None:
    with pytest.raises(RemoteWireError):
        unpack(b"\x92\xda\x08\x00" + b"a" * 2_048 + b"\xa1\xff")
