"""What holds of every stream of bytes, however it is cut: the readers of a gateway and their inverses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from budao.wire import deflate, framing, http1, sse, websocket

BYTES_MAX = 2_000
CUTS = st.lists(st.integers(0, 400), max_size=12)
PAYLOADS = st.lists(st.binary(max_size=300), max_size=6)


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    return [raw[a:b] for a, b in pairwise(edges)]


def heard(feed: Callable[[bytes], list[object]], parts: list[bytes]) -> tuple[list[object], str]:
    """All that is read, what came before an error included, and the error."""
    found: list[object] = []
    for part in parts:
        try:
            found += feed(part)
        except (websocket.BadFrame, http1.BadRequest, framing.BadFraming) as bad:
            return [*found, *bad.before], str(bad)
    return found, ""


@given(PAYLOADS, CUTS)
def test_frames_come_back_however_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    reader = framing.Reader(300)
    raw = b"".join(map(framing.frame, payloads))
    assert [bytes(view) for part in pieces(raw, cuts) for view in reader.feed(part)] == payloads
    assert not reader.is_mid_frame


@given(st.binary(max_size=80), CUTS)
def test_any_bytes_are_the_same_frames_however_they_are_cut(raw: bytes, cuts: list[int]) -> None:
    whole = heard(lambda data: [bytes(view) for view in framing.Reader(40).feed(data)], [raw])
    reader = framing.Reader(40)
    found = heard(lambda data: [bytes(view) for view in reader.feed(data)], pieces(raw, cuts))
    assert ([bytes(each) for each in found[0]], found[1]) == ([bytes(each) for each in whole[0]], whole[1])


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[websocket.Event]]:
    """Messages of a client in fragments, some compressed, with control frames between them; and what they say."""
    raw, said = b"", list[websocket.Event]()
    for _ in range(draw(st.integers(0, 4))):
        is_text = draw(st.booleans())
        payload = draw(st.text(max_size=60)).encode() if is_text else draw(st.binary(max_size=400))
        packs = draw(st.booleans())
        sent = deflate.compress(payload) if packs else payload
        parts = pieces(sent, draw(st.lists(st.integers(0, 60), max_size=3)))
        for at, part in enumerate(parts):
            opcode = 0 if at else websocket.TEXT if is_text else websocket.BINARY
            mask = draw(st.binary(min_size=4, max_size=4))
            raw += websocket.frame(opcode, part, mask=mask, fin=at == len(parts) - 1, rsv1=packs and not at)
            if at < len(parts) - 1 and draw(st.booleans()):
                raw += websocket.frame(websocket.PING, part[:125], mask=mask)
                said.append(websocket.WsPing(part[:125]))
        said.append(websocket.Text(payload) if is_text else websocket.Binary(payload))
    return raw, said


def websocket_reader() -> websocket.Reader:
    return websocket.Reader(BYTES_MAX, is_server=True, inflate=deflate.Inflate(BYTES_MAX))


@given(conversations(), CUTS)
def test_messages_come_back_however_they_are_sent_and_cut(
    conversation: tuple[bytes, list[websocket.Event]], cuts: list[int]
) -> None:
    raw, said = conversation
    reader = websocket_reader()
    assert [event for part in pieces(raw, cuts) for event in reader.feed(part)] == said
    assert not reader.is_mid_message


@given(conversations(), st.integers(0, 600), st.binary(max_size=3), CUTS)
def test_a_spoilt_conversation_is_understood_the_same_however_it_is_cut(
    conversation: tuple[bytes, list[websocket.Event]], at: int, spoilt: bytes, cuts: list[int]
) -> None:
    raw = conversation[0][:at] + spoilt + conversation[0][at + len(spoilt) :]
    whole, cut = websocket_reader(), websocket_reader()
    once, apart = heard(whole.feed, [raw]), heard(cut.feed, pieces(raw, cuts))
    assert once[0] == apart[0]
    # A text may be known to be bad before its message is known to be too large, or the other way round.
    assert bool(once[1]) == bool(apart[1])


@given(conversations(), st.integers(0, 900))
def test_another_reader_goes_on_where_one_stopped(conversation: tuple[bytes, list[websocket.Event]], cut: int) -> None:
    raw, said = conversation
    first, second = websocket_reader(), websocket_reader()
    found = first.feed(raw[:cut])
    unread = first.unread()
    if unread is None:  # amid a compressed message: nobody else has its window
        second = first
    else:
        assert second.feed(unread) == []
        assert second.is_mid_message == first.is_mid_message
    assert found + second.feed(raw[cut:]) == said


@given(PAYLOADS, st.integers(0, 900))
def test_another_reader_of_frames_goes_on_where_one_stopped(payloads: list[bytes], cut: int) -> None:
    raw = b"".join(map(framing.frame, payloads))
    first, second = framing.Reader(300), framing.Reader(300)
    found = [bytes(view) for view in first.feed(raw[:cut])]
    assert second.feed(first.unread()) == []
    assert found + [bytes(view) for view in second.feed(raw[cut:])] == payloads


@given(st.binary(max_size=9_000), st.binary(min_size=4, max_size=4))
def test_masking_is_one_exclusive_or_a_byte(payload: bytes, mask: bytes) -> None:
    assert websocket.unmask(payload, mask) == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@given(st.binary(max_size=3_000), st.integers(8, 15), st.integers(1, 9))
def test_what_is_compressed_comes_back_within_its_bound(payload: bytes, bits: int, level: int) -> None:
    packed = deflate.compress(payload, window_bits=bits, level=level)
    inflate = deflate.Inflate(len(payload), window_bits=bits)
    assert inflate.feed(packed) + inflate.end() == payload


REQUESTS = st.lists(
    st.sampled_from(
        [
            b"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
            b"GET /d HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nrest",
            b"GET /e HTTP/1.0\r\n\r\n",
        ]
    ),
    max_size=4,
)


def joined(found: list[object]) -> list[object]:
    """With neighbouring pieces of a body made one."""
    out: list[object] = []
    for each in found:
        if isinstance(each, http1.Body) and out and isinstance(out[-1], http1.Body):
            out[-1] = http1.Body(out[-1].data + each.data)
        else:
            out.append(each)
    return out


@given(REQUESTS, st.integers(0, 300), st.binary(max_size=3), CUTS)
def test_requests_are_understood_the_same_however_they_are_cut(
    requests: list[bytes], at: int, spoilt: bytes, cuts: list[int]
) -> None:
    raw = b"".join(requests)
    raw = raw[:at] + spoilt + raw[at + len(spoilt) :]
    whole, cut = http1.RequestReader(http1.HeadPolicy()), http1.RequestReader(http1.HeadPolicy())
    once, apart = heard(whole.feed, [raw]), heard(cut.feed, pieces(raw, cuts))
    assert joined(once[0]) == joined(apart[0])
    assert bool(once[1]) == bool(apart[1])
    if not once[1]:
        assert whole.is_mid_request == cut.is_mid_request
        assert whole.taken_over() == cut.taken_over()


LINES = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=("Cs",)), max_size=20)


@given(st.lists(st.tuples(st.binary(max_size=60), LINES, LINES), max_size=5), CUTS)
def test_events_come_back_however_they_are_cut(events: list[tuple[bytes, str, str]], cuts: list[int]) -> None:
    raw = b"".join(sse.event(data, id=last, event=name) for data, last, name in events)
    reader = sse.Reader(1_000)
    expected = [
        sse.Event(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), name or "message", last)
        for data, last, name in events
    ]
    assert [event for part in pieces(raw, cuts) for event in reader.feed(part)] == expected


@given(st.integers(0, 2**32))
def test_noise_is_an_error_or_nothing(seed: int) -> None:
    rng = Random(seed)
    raw = rng.randbytes(rng.randint(0, 200))
    heard(http1.RequestReader(http1.HeadPolicy()).feed, [raw])
    heard(websocket_reader().feed, [raw])
    heard(framing.Reader(100).feed, [raw])
