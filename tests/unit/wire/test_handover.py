"""What gateways say in a take-over, in bytes; and readers that go on in another process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import RemoteWireError
from budao.wire import framing, handover, websocket

SAID = (
    (handover.Offer({"name": "a", "used": [[1.5, b"n"]]}, (("http", False), ("tcp", True))), 2),
    (handover.Ready(), 0),
    (handover.Parcels(3, ({"kind": "ws", "unread": b"\x81"}, {})), 2),
    (handover.Held(3), 0),
    (handover.Yours(), 0),
    (handover.Serving(7, 1), 0),
    (handover.Kept("it died"), 0),
)


@pytest.mark.parametrize(("said", "descriptors"), SAID)
def test_what_is_said_is_read_as_it_was(said: handover.Said, descriptors: int) -> None:
    frame = handover.encode(said, descriptors)
    header = frame[: handover.HEADER.size]
    assert handover.decode_header(header) == (len(frame) - handover.HEADER.size, descriptors)
    assert handover.decode(frame[handover.HEADER.size :], descriptors) == said
    with pytest.raises(RemoteWireError, match="descriptors instead of"):
        handover.decode(frame[handover.HEADER.size :], descriptors + 1)


def test_a_frame_beyond_the_bounds_is_refused_before_it_is_read() -> None:
    with pytest.raises(RemoteWireError, match="beyond the bounds"):
        handover.decode_header(handover.HEADER.pack(2**32 - 1, 0))
    with pytest.raises(RemoteWireError, match="beyond the bounds"):
        handover.decode_header(handover.HEADER.pack(1, 254))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        handover.decode(raw, 0)
    except RemoteWireError:
        return


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),
        st.lists(st.binary(max_size=200).map(lambda raw: bytes(each & 0x7F for each in raw)), min_size=1, max_size=3),
    ),
    max_size=4,
)


@given(MESSAGES, st.binary(min_size=4, max_size=4), st.floats(0.0, 1.0), st.booleans(), st.booleans())
def test_a_reader_of_websockets_goes_on_wherever_another_one_stopped(
    messages: list[tuple[int, list[bytes]]], mask: bytes, share: float, pings: bool, is_server: bool
) -> None:
    stream, key = b"", mask if is_server else None
    for opcode, parts in messages:
        for index, part in enumerate(parts):
            stream += websocket.frame(opcode if index == 0 else 0, part, mask=key, fin=index == len(parts) - 1)
            if pings:
                stream += websocket.frame(9, b"?", mask=key)
    cut = int(len(stream) * share)
    whole = websocket.Reader(4096, is_server=is_server).feed(stream)
    first, second = websocket.Reader(4096, is_server=is_server), websocket.Reader(4096, is_server=is_server)
    found = first.feed(stream[: cut // 2]) + first.feed(stream[cut // 2 : cut])
    unread = first.unread()
    assert unread is not None
    assert second.feed(unread) == []
    assert found + second.feed(stream[cut:]) == whole


def test_a_reader_amid_a_compressed_message_or_after_its_end_does_not_go_on_elsewhere() -> None:
    from budao.wire import deflate

    reader = websocket.Reader(4096, is_server=True, inflate=deflate.Inflate(4096))
    reader.feed(websocket.frame(1, deflate.compress(b"x" * 300), mask=b"mask", rsv1=True)[:-2])
    assert reader.unread() is None
    ended = websocket.Reader(4096, is_server=True)
    ended.feed(websocket.close_frame(1000, mask=b"mask"))
    assert ended.unread() is None


@given(st.lists(st.binary(max_size=300), max_size=5), st.floats(0.0, 1.0))
def test_a_reader_of_frames_goes_on_wherever_another_one_stopped(payloads: list[bytes], share: float) -> None:
    stream = b"".join(map(framing.frame, payloads))
    cut = int(len(stream) * share)
    first, second = framing.Reader(4096), framing.Reader(4096)
    found = [*map(bytes, first.feed(stream[: cut // 2])), *map(bytes, first.feed(stream[cut // 2 : cut]))]
    assert second.feed(first.unread()) == []
    assert [*found, *map(bytes, second.feed(stream[cut:]))] == payloads
