"""Good bytes of what gateways, their clients and their broker say: where mutation begins."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any, Final

from budao.model import Wall
from budao.push import NONCE_BYTES, Draft, Grant, Hello, Kind, Position, Ticket
from budao.wire import TicketKeys, nats, nats_kept, push_frames
from budao.wire import handover as wire
from budao.wire.tokens import sign_development_token

SECRET: Final = "a secret of more than thirty-two bytes"
NOW: Final = Wall(1.8e9)
TICKET_KEYS: Final = TicketKeys({"k1": b"k" * 32, "k0": b"o" * 32}, "k1")
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEPT: Final = Path(__file__).parents[2] / "tests" / "wires" / "push_frames_v1.json"


def _kept(form: str) -> list[str]:
    said = json.loads(KEPT.read_text())
    return [each[form] for side in ("client", "gateway") for each in said[side].values()]


def json_frames() -> list[bytes]:
    spaced = [b' {"type" : "pub", "ref" : 1, "channel" : "c", "d\\u0061ta" : [ 1.50, "\\ud83d\\ude00" ] }\n']
    return [*(each.encode() for each in _kept("json")), *spaced]


def msgpack_frames() -> list[bytes]:
    return list(map(bytes.fromhex, _kept("msgpack")))


def hello_queries() -> list[bytes]:
    hellos = [Hello(), Hello(session="s", channels={"a b": Position("e", 1), "\u00e9": None}, is_standby=True)]
    return [push_frames.format_hello_query(each).encode() for each in hellos]


def publish_bodies() -> list[bytes]:
    one: dict[str, Any] = {"channel": "room:42", "data": {"a": [1, -0.5, None]}, "id": "m-1", "trace": TRACE}
    return [
        json.dumps(one).encode(),
        json.dumps({"messages": [one, {"channel": "c", "data64": "AP8="}, {"channel": "a b", "data": 1}]}).encode(),
        b'{"data64":"AP8=","channel":"c"}',
    ]


def tokens() -> list[bytes]:
    one = sign_development_token(SECRET, subject="ada", now=NOW)
    all_of_it = sign_development_token(SECRET, subject="", publish=(), operate=True, now=NOW)
    return [one.encode(), all_of_it.encode()]


def claims() -> list[bytes]:
    """Headers and claims, each a JSON object, in a list of two."""
    header: dict[str, Any] = {"alg": "HS256", "typ": "JWT", "kid": "k"}
    said: dict[str, Any] = {
        "sub": "ada",
        "nbf": NOW,
        "exp": NOW + 60.0,
        "iss": "us",
        "aud": ["them"],
        "budao": {"sub": ["news/*", "**"], "pub": ["room:?"], "presence": [], "operate": True},
    }
    return [json.dumps([header, said]).encode(), json.dumps([{"alg": "none"}, {"exp": NOW}]).encode()]


def key_sets() -> list[bytes]:
    secret = {"kty": "oct", "k": urlsafe_b64encode(SECRET.encode()).decode().rstrip("="), "kid": "s", "alg": "HS256"}
    curve = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "use": "sig"}
    modulus = urlsafe_b64encode(b"\xc1" + b"\x17" * 255).decode().rstrip("=")
    rsa = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "key_ops": ["verify"]}
    return [json.dumps({"keys": [secret, curve, rsa]}).encode()]


GRANT: Final = Grant(subject="ada", subscribe=("news/*", "**"), publish=("room:?",), operate=True, until=Wall(1.9e9))
TICKET: Final = Ticket(
    source="a", target="b", session="s-1", at=NOW, until=Wall(NOW + 10.0), nonce=bytes(NONCE_BYTES), grant=GRANT
)


def tickets() -> list[bytes]:
    return [TICKET_KEYS.sign(TICKET).encode(), TicketKeys({"k0": b"o" * 32}, "k0").sign(TICKET).encode()]


def ticket_fields() -> list[bytes]:
    grant = GRANT
    patterns = [list(each) for each in (grant.subscribe, grant.publish, grant.presence)]
    fields = ["a", "b", "s-1", NOW, NOW + 10.0, bytes(NONCE_BYTES).hex(), grant.subject, *patterns, True, None]
    return [json.dumps(fields).encode()]


def ticket_key_files() -> list[bytes]:
    return [b"# the newest signs\nk1 " + b"6b" * 32 + b"\nk0 " + b"6f" * 32 + b"  # the old one\n"]


def handovers() -> list[bytes]:
    states = ({"kind": "ws", "places": {"c": ["e", 1]}, "unread": b"\x81"}, {"kind": "sse", "unread": 0})
    said: list[wire.Said] = [
        wire.Offer({"name": "a", "used": [[1.8e9, bytes(16)]]}, (("http", False), ("tcp", True))),
        wire.Ready(),
        wire.Parcels(3, states),
        wire.Held(3),
        wire.Yours(),
        wire.Serving(240, 1),
        wire.Kept("it was not ready"),
    ]
    return [wire.encode(each)[wire.HEADER.size :] for each in said]


def nats_headers() -> list[bytes]:
    drafts = [Draft("c", b"1", id="an id"), Draft("c", b"\x00", Kind.BYTES, trace=TRACE)]
    kept = [nats_kept.format_kept(each, Position("e", 7), 5, 100, NOW, "g-1") for each in drafts]
    return [nats.format_headers({**each, nats_kept.SEQUENCE: "9"}) for each in kept]


def nats_streams() -> list[bytes]:
    headers = nats_headers()[0]
    message = b"HMSG $JS.x 1 reply %d %d\r\n%s\r\n" % (len(headers), len(headers) + 2, headers + b"{}")
    info = b'INFO {"server_id":"x","max_payload":1048576,"headers":true,"jetstream":true}\r\n'
    return [info + b"PING\r\nMSG a.b 2 3\r\nabc\r\n" + message + b"+OK\r\npong\r\n-ERR 'Slow Consumer'\r\n"]
