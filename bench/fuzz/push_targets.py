"""What gateways, their clients and their broker send: the readers of all of it, as targets."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bench.fuzz import push_samples, samples
from bench.fuzz.holding import Target, cut, same, same_however_cut, tried
from budao.model import BadSettings, BudaoError, RemoteWireError
from budao.push import Draft, Grant, Hello, Kind, Msg, Pub, Ticket, check_channel
from budao.wire import TicketKeys, deflate, framing, handover, http1, nats, nats_kept, push_frames, sse, websocket
from budao.wire.json_data import check_json_data
from budao.wire.publish_body import parse_publish
from budao.wire.ticket import TICKET_CHARACTERS_MAX, _signature
from budao.wire.tokens import TokenKeys


def read_requests(raw: bytes) -> None:
    same_however_cut(raw, lambda: http1.RequestReader(http1.HeadPolicy()).feed)
    for request in cut(raw, max(1, len(raw)), http1.RequestReader(http1.HeadPolicy()).feed)[0]:
        if isinstance(request, http1.Request):
            tried(http1.BadRequest, http1.parse_query, request.query)
            if (upgrade := tried(http1.BadRequest, websocket.check_upgrade, request)) is not None:
                websocket.accept(upgrade.key)
                tried(http1.BadRequest, deflate.accept, upgrade.extensions)


def read_answers(raw: bytes) -> None:
    same_however_cut(raw, lambda: http1.ResponseReader(http1.HeadPolicy()).feed)


def read_websocket(raw: bytes) -> None:
    bound = 70_000
    for is_server in (True, False):
        same_however_cut(
            raw, lambda who=is_server: websocket.Reader(bound, is_server=who, inflate=deflate.Inflate(bound)).feed
        )


def read_deflate(raw: bytes) -> None:
    bound = 70_000
    inflate = deflate.Inflate(bound, takeover=True)
    for _ in range(2):
        if (found := tried(websocket.BadFrame, lambda: inflate.feed(raw) + inflate.end())) is None:
            break
        assert len(found) <= bound
    once = deflate.Inflate(len(raw))
    assert once.feed(deflate.compress(raw)) + once.end() == raw
    text = raw.decode("latin-1")
    tried(http1.BadRequest, deflate.accept, text)
    tried(RemoteWireError, deflate.agreed, text)


def read_events(raw: bytes) -> None:
    same_however_cut(raw, lambda: sse.Reader(70_000).feed)
    event = sse.Reader(1 << 20).feed(sse.event(raw, id="1"))
    assert event == [sse.Event(raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), id="1")]


def read_framing(raw: bytes) -> None:
    same_however_cut(raw, lambda: framing.Reader(1_000).feed)


def _without_data(frame: object) -> object:
    """JSON keeps the digits of a number as they were said; msgpack does not."""
    if isinstance(frame, Pub):
        return replace(frame, data=b"")
    return replace(frame, message=replace(frame.message, data=b"")) if isinstance(frame, Msg) else frame


def _frames(raw: bytes, codec: push_frames.Codec, other: push_frames.Codec) -> None:
    """What was read comes back from either codec once it has been written: the first writing rounds a time."""
    if (said := tried(RemoteWireError, codec.decode, raw)) is not None:
        again = codec.decode(codec.encode(said))
        same(said, again)
        same(_without_data(said), _without_data(other.decode(other.encode(said))))
    if (told := tried(RemoteWireError, codec.decode_from_gateway, raw)) is not None:
        once = codec.decode_from_gateway(codec.encode(told))
        same(once, codec.decode_from_gateway(codec.encode(once)))
        same(_without_data(once), _without_data(other.decode_from_gateway(other.encode(once))))
    tried(RemoteWireError, codec.decode_hello, raw)


def read_json_frame(raw: bytes) -> None:
    _frames(raw, push_frames.JSON, push_frames.MSGPACK)
    # A usual message is read on a short way, which a space in front closes.
    read = push_frames.JSON.decode_from_gateway
    same(tried(RemoteWireError, read, raw), tried(RemoteWireError, read, b" " + raw))
    if (compact := tried(RemoteWireError, check_json_data, raw)) is not None:
        assert check_json_data(compact) == compact
        same(json.loads(raw), json.loads(compact))


def read_msgpack_frame(raw: bytes) -> None:
    _frames(raw, push_frames.MSGPACK, push_frames.JSON)


def read_hello_query(raw: bytes) -> None:
    text = raw.decode("latin-1")
    if (hello := tried(RemoteWireError, push_frames.parse_hello_query, text)) is not None:
        assert isinstance(hello, Hello)
        if len(written := push_frames.format_hello_query(hello)) <= push_frames.HELLO_QUERY_CHARACTERS_MAX:
            same(hello, push_frames.parse_hello_query(written))


def read_publish(raw: bytes) -> None:
    if (found := tried(RemoteWireError, parse_publish, raw)) is None:
        return
    assert found.is_batch or len(found.items) == 1
    for item in found.items:
        if isinstance(item, Draft):
            check_channel(item.channel)
            assert item.kind is Kind.BYTES or check_json_data(item.data) == item.data


TOKENS: Final = TokenKeys.of_secret(push_samples.SECRET)
FOR_US: Final = TokenKeys.of_secret(push_samples.SECRET, issuer="us", audience="them")


def read_token(raw: bytes) -> None:
    """Nobody who does not know the secret changes what is signed."""
    text = raw.decode("latin-1")
    if isinstance(TOKENS.check(text, push_samples.NOW), Grant):
        signed = [each.rpartition(b".")[0] for each in push_samples.tokens()]
        assert raw.rpartition(b".")[0] in signed, f"{text!r} was not signed by us"


def _text64(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def read_claims(raw: bytes) -> None:
    """Whoever knows the secret says what he likes: a grant comes of it, or a reason."""
    try:
        header, claims = json.loads(raw)
        signed = f"{_text64(header)}.{_text64(claims)}"
    except (ValueError, TypeError, RecursionError):
        return
    for secret in (push_samples.SECRET, "x" * 32):
        digest = hmac.digest(secret.encode(), signed.encode(), "sha256")
        token = f"{signed}.{urlsafe_b64encode(digest).decode().rstrip('=')}"
        for keys in (TOKENS, FOR_US):
            found = keys.check(token, push_samples.NOW)
            if isinstance(found, Grant):
                assert secret == push_samples.SECRET
                assert found.until is not None
                found.may_subscribe("news/a")
            else:
                assert found.why in {"expired", "unauthorized"}
                assert secret not in found.happened


def read_key_set(raw: bytes) -> None:
    def parsed(text: str) -> TokenKeys:
        return TokenKeys.of_jwks(text)

    if (keys := tried(BadSettings, parsed, raw.decode("utf-8", "surrogateescape"))) is not None:
        for token in push_samples.tokens():
            keys.check(token.decode(), push_samples.NOW)


def read_ticket(raw: bytes) -> None:
    """A text has one reading, and no other text has it."""
    found = push_samples.TICKET_KEYS.read(raw.decode("latin-1"))
    if isinstance(found, Ticket):
        assert raw in push_samples.tickets(), "a ticket that nobody has written"


def read_ticket_fields(raw: bytes) -> None:
    """Signed by a gateway of the cluster, of whatever version."""
    said = b"\x01\x02k1" + raw
    signature = _signature(b"k" * 32, said)
    text = urlsafe_b64encode(said + signature).decode().rstrip("=")
    found = push_samples.TICKET_KEYS.read(text)
    if isinstance(found, Ticket) and len(text) < TICKET_CHARACTERS_MAX // 2:
        same(found, push_samples.TICKET_KEYS.read(push_samples.TICKET_KEYS.sign(found)))
    if (keys := tried(BadSettings, TicketKeys.parse, raw.decode("latin-1"))) is not None:
        keys.sign(push_samples.TICKET)


def read_handover(raw: bytes) -> None:
    for descriptors in range(4):
        if (said := tried(RemoteWireError, handover.decode, raw, descriptors)) is not None:
            frame = handover.encode(said, descriptors)
            same(said, handover.decode(frame[handover.HEADER.size :], descriptors))
    if len(raw) >= handover.HEADER.size:
        tried(RemoteWireError, handover.decode_header, raw[: handover.HEADER.size])


def read_nats_stream(raw: bytes) -> None:
    same_however_cut(raw, lambda: nats.Decoder().feed)


def read_nats_headers(raw: bytes) -> None:
    if (kept := tried(RemoteWireError, nats_kept.parse_kept, "c", raw, b"1")) is None:
        return
    message = kept.message
    draft = Draft("c", message.data, message.kind, message.id, message.trace)
    headers = nats_kept.format_kept(
        draft, message.position, kept.before, kept.total_bytes, message.at, kept.attempt
    )  # fmt: skip
    written: Callable[[], bytes] = lambda: nats.format_headers(headers)  # noqa: E731
    if (again := tried(BudaoError, written)) is not None:
        same(kept, nats_kept.parse_kept("c", again, b"1", sequence=kept.sequence))


TARGETS: Final = {
    "requests": Target(read_requests, samples.requests),
    "answers": Target(read_answers, samples.answers),
    "websocket": Target(read_websocket, samples.websockets),
    "deflate": Target(read_deflate, samples.deflated),
    "events": Target(
        read_events, lambda: [sse.event(b"a\nb", id="1", event="gap"), b"\xef\xbb\xbfretry: 5\r\rdata\r\n\r\n"]
    ),
    "framing": Target(read_framing, lambda: [framing.frame(b"abc") + framing.frame(b"") + framing.frame(bytes(900))]),
    "push-json": Target(read_json_frame, push_samples.json_frames, samples.bent_json),
    "push-msgpack": Target(read_msgpack_frame, push_samples.msgpack_frames, samples.bent_msgpack),
    "push-hello": Target(read_hello_query, push_samples.hello_queries),
    "publish": Target(read_publish, push_samples.publish_bodies, samples.bent_json),
    "tokens": Target(read_token, push_samples.tokens),
    "claims": Target(read_claims, push_samples.claims, samples.bent_json),
    "key-sets": Target(read_key_set, push_samples.key_sets, samples.bent_json),
    "tickets": Target(read_ticket, push_samples.tickets),
    "ticket-fields": Target(
        read_ticket_fields,
        lambda: [*push_samples.ticket_fields(), *push_samples.ticket_key_files()],
        samples.bent_json,
    ),
    "handover": Target(read_handover, push_samples.handovers, samples.bent_msgpack),
    "nats-stream": Target(read_nats_stream, push_samples.nats_streams),
    "nats-headers": Target(read_nats_headers, push_samples.nats_headers),
}
