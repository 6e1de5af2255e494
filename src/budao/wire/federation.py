"""What clusters of a federation say to each other, as frames: a length of 4 bytes, big-endian, and msgpack.

`Hello` keeps its form in every version, so that any two can tell each other that they do not fit. Everything is checked
here; what comes out is typed and within its bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from budao.discovery import Instance, federation, federation_peering
from budao.model import LocalWireError, RemoteWireError
from budao.wire.instances import format_instance, parse_instance
from budao.wire.packing import pack, unpack
from budao.wire.store_codec import Plain, flag, many, octets, parts, span_s, text, wrong

PROTOCOL: Final = "budao-federation"
LENGTH_BYTES: Final = 4
HELLO_BYTES_MAX: Final = 4096
"""Before it is known who speaks, a frame is at most this long."""
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
"""No frame is longer. Writes in one are bounded too, by the policy's `writes_max`, so this is seldom near."""
NAME_BYTES_MAX: Final = 255
CLUSTERS_MAX: Final = 10_000
COUNT_MAX: Final = 2**62
"""No epoch or counter is larger, so that one can always be added to it."""

HELLO, DIGEST, PIECE, ACK, PING, BYE = range(6)


def format_frame(frame: federation_peering.Frame) -> bytes:
    """A whole frame.

    Raises:  LocalWireError for what no frame can hold.
    """
    payload = pack(_plain(frame))
    if len(payload) > FRAME_BYTES_MAX:
        raise LocalWireError(f"a frame of {len(payload)} bytes, the bound is {FRAME_BYTES_MAX}; lower writes_max")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def parse_frame(payload: bytes) -> federation_peering.Frame:
    """The frame in a payload, its length left out.

    Raises:  RemoteWireError, saying which part is wrong.
    """
    value = unpack(payload)
    if type(value) is not list or not value:
        raise wrong("a frame", value)
    kind, rest = value[0], value[1:]
    if type(kind) is not int:
        raise wrong("the kind of a frame", kind)
    if kind == HELLO:
        return _parse_hello(rest)
    if kind == DIGEST:
        vector, forgotten = parts(rest, 2, "a digest")
        return federation_peering.Digest(_parse_vector(vector), _parse_epochs(forgotten))
    if kind == PIECE:
        spans, forgotten, is_last = parts(rest, 3, "a piece of a delta")
        delta = federation.Delta(tuple(map(_parse_span, many(spans, "spans"))), _parse_epochs(forgotten))
        return federation_peering.Piece(delta, flag(is_last, "the end of a delta"))
    if kind == ACK:
        return federation_peering.Ack(_parse_vector(parts(rest, 1, "an acknowledgement")[0]))
    if kind == PING:
        ages = _mapping(parts(rest, 1, "a ping")[0], "ages")
        return federation_peering.Ping({_name(each, "a cluster"): _age_s(age) for each, age in ages.items()})
    if kind == BYE:
        return federation_peering.Bye(text(parts(rest, 1, "a bye")[0], "a reason")[:500])
    raise RemoteWireError(f"a frame of kind {kind}, which this version does not know")


class Decoder:
    """Cuts a stream of bytes, which may come in any pieces, into frames.

    Cost:    bytes are held only until their frame is whole, so memory is bounded by `frame_bytes_max` and one piece.
    """

    def __init__(self, frame_bytes_max: int = HELLO_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        """A longer frame is garbage. Raised once it is known who speaks."""
        self._held = bytearray()

    def feed(self, piece: bytes) -> None:
        """Takes in what came."""
        self._held += piece

    def next(self) -> federation_peering.Frame | None:
        """The next frame that is whole, or None.

        Raises:  RemoteWireError for garbage. The decoder is of no use after that.
        """
        held = self._held
        if len(held) < LENGTH_BYTES:
            return None
        size = int.from_bytes(held[:LENGTH_BYTES], "big")
        if not 0 < size <= self.frame_bytes_max:
            begin = bytes(held[:8])
            raise RemoteWireError(
                f"a frame of {size} bytes, at most {self.frame_bytes_max} are taken; it begins {begin!r}: "
                "is this another protocol, or does one side speak TLS and the other not?"
            )
        end = LENGTH_BYTES + size
        if len(held) < end:
            return None
        payload = bytes(held[LENGTH_BYTES:end])
        del held[:end]
        return parse_frame(payload)


# ------------------------------------------------------------------------------------------------------------- out


def _plain(frame: federation_peering.Frame) -> Plain:
    match frame:
        case federation_peering.Hello(cluster, epoch, token, version):
            return [HELLO, PROTOCOL, version, cluster, epoch, token]
        case federation_peering.Digest(vector, forgotten):
            return [DIGEST, _plain_vector(vector), dict(forgotten)]
        case federation_peering.Piece(delta, is_last):
            return [PIECE, list(map(_plain_span, delta.spans)), dict(delta.forgotten), is_last]
        case federation_peering.Ack(vector):
            return [ACK, _plain_vector(vector)]
        case federation_peering.Ping(ages_s):
            return [PING, dict(ages_s)]
        case federation_peering.Bye(why):
            return [BYE, why[:500]]


def _plain_vector(vector: federation.Vector) -> Plain:
    return {cluster: list(position) for cluster, position in vector.items()}


def _plain_span(span: federation.Span) -> Plain:
    return [span.cluster, span.epoch, span.base, span.counter, list(map(_plain_write, span.writes))]


def _plain_write(write: federation.Write) -> Plain:
    if isinstance(write.value, Instance):
        # The instance says its service and id itself.
        return [write.counter, format_instance(write.value)]
    value = None if write.value is None else list(write.value)
    return [write.counter, *write.slot, value]


# -------------------------------------------------------------------------------------------------------------- in


def _parse_hello(rest: list[Plain]) -> federation_peering.Hello:
    if len(rest) < 2 or rest[0] != PROTOCOL:
        raise RemoteWireError(f"a hello of another protocol than {PROTOCOL}")
    version = number(rest[1], "a version")
    if version != federation_peering.VERSION:
        ours = federation_peering.VERSION
        raise RemoteWireError(
            f"the peer speaks version {version} of the protocol, this side {ours}; update the older one"
        )
    cluster, epoch, token = parts(rest[2:], 3, "a hello")
    return federation_peering.Hello(
        _name(cluster, "a cluster"), number(epoch, "an epoch"), text(token, "a token"), version
    )


def _parse_vector(value: Plain) -> dict[str, federation.Position]:
    found = _mapping(value, "a vector")
    return {_name(cluster, "a cluster"): _position(position) for cluster, position in found.items()}


def _parse_epochs(value: Plain) -> dict[str, int]:
    return {_name(name, "a cluster"): number(epoch, "an epoch") for name, epoch in _mapping(value, "epochs").items()}


def _parse_span(value: Plain) -> federation.Span:
    cluster, epoch, base, counter, writes = parts(value, 5, "a span")
    first, last = 0 if base is None else number(base, "a base"), number(counter, "a counter")
    found, before = [], first
    for each in many(writes, "writes"):
        write = _parse_write(each)
        if not before < write.counter <= last:
            raise RemoteWireError(
                f"write {write.counter} of a span stands behind {before}, and the span ends at {last}"
            )
        before = write.counter
        found.append(write)
    return federation.Span(
        _name(cluster, "a cluster"), number(epoch, "an epoch"), None if base is None else first, last, tuple(found)
    )


def _parse_write(value: Plain) -> federation.Write:
    if type(value) is list and len(value) == 2:
        instance = parse_instance(octets(value[1], "an instance"))
        return federation.Write(number(value[0], "a counter"), (instance.service, instance.id, ""), instance)
    counter, service, id_, cluster, removed = parts(value, 5, "a write")
    slot = (_name(service, "a service"), _name(id_, "an id"), _name(cluster, "a cluster") if cluster != "" else "")
    position = None if removed is None else _position(removed)
    if position is not None and not slot[2]:
        raise RemoteWireError("a removal names no cluster")
    return federation.Write(number(counter, "a counter"), slot, position)


def _position(value: Plain) -> federation.Position:
    epoch, counter = parts(value, 2, "a position")
    return number(epoch, "an epoch"), number(counter, "a counter")


def number(value: Plain, what: str) -> int:
    """A whole number from 0 that can still be counted on."""
    if type(value) is not int or not 0 <= value <= COUNT_MAX:
        raise wrong(what, value)
    return value


def _name(value: Plain, what: str) -> str:
    name = text(value, what)
    if not name or len(name.encode()) > NAME_BYTES_MAX or not name.isprintable():
        raise wrong(what, name)
    return name


def _age_s(value: Plain) -> float:
    age_s = span_s(value, "an age")
    if age_s < 0:
        raise wrong("an age", value)
    return age_s


def _mapping(value: Plain, what: str) -> Mapping[Plain, Plain]:
    if type(value) is not dict or len(value) > CLUSTERS_MAX:
        raise wrong(what, value)
    return value
