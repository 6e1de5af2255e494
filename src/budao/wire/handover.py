"""What two gateway processes say to each other while one takes over from the other, in bytes: msgpack lists in frames.

A frame is a header (length, number of descriptors) and one list, which begins with its kind. Descriptors travel beside the first
byte of their frame. Both processes are of one user on one machine, and still nothing is believed that does not parse.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from budao.model import RemoteWireError
from budao.wire.packing import pack, unpack

HEADER: Final = struct.Struct(">IH")
FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
DESCRIPTORS_MAX: Final = 253
"""What the kernel takes at once (SCM_MAX_FD)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Old to new: what it goes on with, and its listeners, one descriptor each: kind and whether it is encrypted."""

    about: Mapping[str, Any]
    listeners: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """New to old: it could serve."""


@dataclass(frozen=True, slots=True)
class Parcels:
    """Old to new: connections, a state and a descriptor each. Messages count from 0."""

    number: int
    states: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Held:
    """New to old: it holds this message, and touches nothing of it."""

    number: int


@dataclass(frozen=True, slots=True)
class Yours:
    """Old to new: everything is its own from now on."""


@dataclass(frozen=True, slots=True)
class Serving:
    """New to old: it serves; so many connections, and so many it could not bring to life."""

    served: int
    failed: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Old to new: it came to nothing; the old one goes on."""

    problem: str


Said = Offer | Ready | Parcels | Held | Yours | Serving | Kept


def encode(said: Said, descriptors: int = 0) -> bytes:
    """A whole frame.

    Raises:  LocalWireError for a state that holds what is no plain value.
    """
    plain: list[Any]
    match said:
        case Offer():
            plain = ["offer", dict(said.about), [list(each) for each in said.listeners]]
        case Ready():
            plain = ["ready"]
        case Parcels():
            plain = ["parcels", said.number, [dict(each) for each in said.states]]
        case Held():
            plain = ["held", said.number]
        case Yours():
            plain = ["yours"]
        case Serving():
            plain = ["serving", said.served, said.failed]
        case Kept():
            plain = ["kept", said.problem]
    body = pack(plain)
    assert len(body) <= FRAME_BYTES_MAX and descriptors <= DESCRIPTORS_MAX, "bounded by whoever fills a frame"
    return HEADER.pack(len(body), descriptors) + body


def decode_header(header: bytes) -> tuple[int, int]:
    """Length of the body, and how many descriptors come with it.

    Raises:  RemoteWireError beyond a bound.
    """
    length, descriptors = HEADER.unpack(header)
    if length > FRAME_BYTES_MAX or descriptors > DESCRIPTORS_MAX:
        raise RemoteWireError(f"a frame of {length} bytes and {descriptors} descriptors is beyond the bounds")
    return length, descriptors


def decode(body: bytes | memoryview, descriptors: int) -> Said:
    """What a body says.

    Raises:  RemoteWireError for anything else, and where the descriptors do not fit.
    """
    said = _parse(unpack(body))
    wanted = len(said.listeners) if isinstance(said, Offer) else len(said.states) if isinstance(said, Parcels) else 0
    if descriptors != wanted:
        raise RemoteWireError(f"{type(said).__name__} came with {descriptors} descriptors instead of {wanted}")
    return said


def _parse(plain: object) -> Said:
    match plain:
        case ["offer", dict(about), list(listeners)] if _texts(about):
            return Offer(about, tuple(_listener(each) for each in listeners))
        case ["ready"]:
            return Ready()
        case ["parcels", int(number), list(states)] if all(_texts(each) for each in states):
            return Parcels(number, tuple(states))
        case ["held", int(number)]:
            return Held(number)
        case ["yours"]:
            return Yours()
        case ["serving", int(served), int(failed)]:
            return Serving(served, failed)
        case ["kept", str(problem)]:
            return Kept(problem)
    raise RemoteWireError("this is nothing that gateways say in a take-over; are both of one version?")


def _texts(each: object) -> bool:
    return isinstance(each, dict) and all(isinstance(key, str) for key in each)


def _listener(each: object) -> tuple[str, bool]:
    match each:
        case [str(kind), bool(is_tls)]:
            return kind, is_tls
    raise RemoteWireError("this is no listener")
