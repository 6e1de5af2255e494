"""Frames between clusters: round trips, any pieces, garbage."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.discovery import Address, Instance
from budao.discovery.federation import Delta, Span, Write
from budao.discovery.federation_peering import Ack, Bye, Digest, Frame, Hello, Piece, Ping
from budao.model import RemoteWireError
from budao.wire.federation import FRAME_BYTES_MAX, LENGTH_BYTES, Decoder, format_frame, parse_frame
from budao.wire.packing import pack

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20)
COUNTERS = st.integers(0, 2**53)
POSITIONS = st.tuples(COUNTERS, COUNTERS)
VECTORS = st.dictionaries(NAMES, POSITIONS, max_size=5)
EPOCHS = st.dictionaries(NAMES, COUNTERS, max_size=5)


def instance(service: str, id_: str) -> Instance:
    return Instance(service=service, id=id_, addresses={"http": Address("10.0.0.1", 80)}, metadata={"é": "ü"})


@st.composite
def spans(draw: st.DrawFn) -> Span:
    base = draw(st.none() | st.integers(0, 1_000))
    counters = sorted(draw(st.sets(st.integers((base or 0) + 1, 5_000), max_size=5)))
    writes = []
    for counter in counters:
        service, id_, cluster = draw(NAMES), draw(NAMES), draw(NAMES)
        kind = draw(st.sampled_from(["claim", "gone", "removal", "removal gone"]))
        if kind == "claim":
            writes.append(Write(counter, (service, id_, ""), instance(service, id_)))
        else:
            position = draw(POSITIONS) if kind == "removal" else None
            writes.append(Write(counter, (service, id_, "" if kind == "gone" else cluster), position))
    return Span(draw(NAMES), draw(COUNTERS), base, 5_000, tuple(writes))


DELTAS = st.builds(Delta, st.lists(spans(), max_size=3).map(tuple), EPOCHS)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Hello, NAMES, COUNTERS, st.text(st.characters(codec="ascii"), max_size=40)),
    st.builds(Digest, VECTORS, EPOCHS),
    st.builds(Piece, DELTAS, st.booleans()),
    st.builds(Ack, VECTORS),
    st.builds(Ping, st.dictionaries(NAMES, st.floats(0.0, 1e9), max_size=5)),
    st.builds(Bye, st.text(st.characters(codec="utf-8"), max_size=100)),
)


@given(st.lists(FRAMES, max_size=4), st.integers(1, 50))
def test_frames_come_out_as_they_went_in_whatever_the_pieces(frames: list[Frame], step: int) -> None:
    raw = b"".join(map(format_frame, frames))
    decoder, found = Decoder(FRAME_BYTES_MAX), []
    for at in range(0, len(raw), step):
        decoder.feed(raw[at : at + step])
        while (frame := decoder.next()) is not None:
            found.append(frame)
    assert found == frames


@given(st.binary(max_size=200))
def test_garbage_is_a_frame_or_an_error_of_ours(raw: bytes) -> None:
    decoder = Decoder()
    decoder.feed(raw)
    try:
        while decoder.next() is not None:
            pass
    except RemoteWireError:
        pass


@given(FRAMES, st.data())
def test_a_frame_with_a_wrong_byte_is_a_frame_or_an_error_of_ours(frame: Frame, data: st.DataObject) -> None:
    payload = bytearray(format_frame(frame)[LENGTH_BYTES:])
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with suppress(RemoteWireError):
        parse_frame(bytes(payload))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    st.integers(0, 7),
)
def test_a_value_of_the_wrong_shape_is_an_error_of_ours(value: object, kind: int) -> None:
    rest = value if isinstance(value, list) else [value]
    with suppress(RemoteWireError):
        parse_frame(pack([kind, *rest]))


def test_an_older_or_newer_version_is_told_so() -> None:
    with pytest.raises(RemoteWireError, match=r"speaks version 7 .* this side 1; update"):
        parse_frame(pack([0, "budao-federation", 7, "whatever", "follows"]))
    with pytest.raises(RemoteWireError, match="another protocol"):
        parse_frame(pack([0, "budao-store", 1, 1, ""]))


def test_another_protocol_on_the_port_is_named_and_never_held() -> None:
    decoder = Decoder()
    decoder.feed(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(RemoteWireError, match="another protocol, or does one side speak TLS"):
        decoder.next()


def test_a_token_is_in_no_repr() -> None:
    assert "secret" not in repr(Hello("east", 1, "secret"))


def test_a_counter_nothing_could_be_added_to_is_refused() -> None:
    with pytest.raises(RemoteWireError, match="an epoch cannot be"):
        parse_frame(pack([3, {"east": [2**63, 1]}]))
