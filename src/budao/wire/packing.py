"""Plain values into msgpack and back. The package is an extra, so it is looked for when the first value is packed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from budao.model import BadSettings, LocalWireError, RemoteWireError

if TYPE_CHECKING:
    from types import ModuleType

UNCHECKED_BYTES_MAX: Final = 1024
"""A longer value is walked through before it is built: see `unpack`."""


@cache
def _msgpack() -> ModuleType:
    try:
        import msgpack  # type: ignore[import-untyped]
    except ImportError as missing:
        raise BadSettings([("store", "needs the package msgpack: pip install 'budao[store]'")]) from missing
    found: ModuleType = msgpack
    return found


def pack(value: object) -> bytes:
    """Bytes of None, numbers, text, bytes, lists and maps of them.

    Raises:  LocalWireError for what msgpack cannot say: a number beyond 64 bits, half a surrogate pair.
    """
    try:
        packed: bytes = _msgpack().packb(value)
    except (ValueError, OverflowError, TypeError) as problem:
        raise LocalWireError(f"this cannot be sent or kept: {problem}") from problem
    return packed


def unpack(raw: bytes | memoryview, *, unique: bool = False) -> Any:
    """The value that exactly these bytes hold. With `unique`, a map has text for keys, and each once.

    Raises:  RemoteWireError for anything else than one whole value.
    """
    msgpack = _msgpack()
    try:
        if len(raw) > UNCHECKED_BYTES_MAX:
            # An array is given its room when its length is read, and one may stand in another a thousand times: 4 KiB of
            # lengths that nothing follows took 30 MiB and 40 ms. What is there in full asks for no more than it holds.
            walk = msgpack.Unpacker(max_buffer_size=len(raw))
            walk.feed(raw)
            walk.skip()
        return msgpack.unpackb(raw, object_pairs_hook=_unique) if unique else msgpack.unpackb(raw)
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.exceptions.UnpackException) as problem:
        raise RemoteWireError(f"{len(raw)} bytes are not one msgpack value: {str(problem)[:100]}") from problem


def _unique(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs) or not all(type(key) is str for key in found):
        raise ValueError("a map says a key twice, or has one that is not text")
    return found


def array_header(count: int) -> bytes:
    """What stands before `count` values that were packed one by one, to make them a list."""
    header: bytes = _msgpack().Packer(autoreset=True).pack_array_header(count)
    return header
