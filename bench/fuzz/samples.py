"""Good bytes of every kind: where mutation begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from budao.discovery import Address, Instance
from budao.discovery import federation as sets
from budao.discovery import federation_peering as peering
from budao.model import BudaoError, Mono, Stage, Wall
from budao.settings import Version
from budao.settings.versions import written_version
from budao.store import (
    Batch,
    Change,
    Command,
    Commit,
    Committed,
    Compact,
    Compacted,
    Condition,
    Delete,
    Entry,
    Field,
    Grant,
    Keeper,
    Lease,
    LeaseGone,
    LeaseView,
    Page,
    Put,
    Read,
    Relation,
    Revoke,
    Span,
    StoreAway,
    StoreDenied,
    StorePolicy,
    StoreRefused,
    Txn,
)
from budao.wire import Watcher as SeenWatcher
from budao.wire import (
    deflate,
    etcd,
    federation,
    format_instance,
    format_watcher,
    http1,
    journal,
    protobuf,
    store_frames,
    websocket,
)
from budao.wire.packing import pack, unpack

SPAN = Span("a", "b")
ENTRY = Entry("budao/instances/shop/a", b"value", 3, 9, 2, 77)
TXN = Txn(
    (Condition("k", Field.VALUE, Relation.EQUAL, b"v"), Condition("k", Field.VERSION, Relation.LESS, 9)),
    (Put("k", b"v", 3), Delete(SPAN), Read(SPAN, 10)),
    (Read(Span("k", None), 0),),
)
COMMANDS: tuple[Command, ...] = (Commit(TXN), Grant(0, 2.5), Grant(77, 30.0), Revoke(77), Compact(4))
INSTANCE = Instance(
    service="shop",
    id="a",
    addresses={"http": Address("10.0.0.1", 80), "grpc": Address("::1", 81)},
    zone="eu-1a",
    weight=2.0,
    version="1.2",
    metadata={"é": "ü"},
    stage=Stage.DRAINING,
    capacity=8,
    incarnation="one",
)
HEADER = journal.Header(journal.Kind.JOURNAL, bytes(range(16)), 7)


def store_messages() -> list[store_frames.Message]:
    requests = (*COMMANDS, store_frames.Search(SPAN, 3, 10), store_frames.Renew(77), store_frames.LookUp(77))
    page = Page(12, (ENTRY, replace(ENTRY, key="z", value=b"")), True)
    answers: Sequence[store_frames.Answer] = (
        None,
        store_frames.Piece(page, True),
        Committed(12, True, (None, 3, page)),
        Lease(77, 30.0),
        LeaseView(77, 30.0, 12.5, ("a", "b")),
    )
    errors = (
        StoreRefused("commit", "too long"),
        Compacted(3, 9),
        LeaseGone(77),
        StoreAway("etcd", "gone", may_have_taken_effect=True),
        StoreDenied("etcd", "no"),
    )
    batch = Batch(12, (Change("a", None), Change(ENTRY.key, ENTRY)))
    return [
        store_frames.Hello("a token that nobody guesses"),
        store_frames.Welcome(1, bytes(16), 12, 1024),
        store_frames.Versions(1, 2),
        store_frames.Denied("not you", True),
        *(store_frames.Ask(number, request) for number, request in enumerate(requests)),
        *(store_frames.Answered(number, answer) for number, answer in enumerate(answers)),
        *(store_frames.Failed(number, error) for number, error in enumerate(errors)),
        store_frames.Watch(1, SPAN, 0),
        store_frames.Unwatch(1),
        store_frames.Told(1, (batch, batch)),
        store_frames.Beat(12),
        store_frames.Goodbye("it stops"),
    ]


def federation_frames(cluster: str = "west") -> list[peering.Frame]:
    writes = (
        sets.Write(3, ("shop", "a", ""), INSTANCE),
        sets.Write(4, ("shop", "b", ""), None),
        sets.Write(5, ("shop", "c", "east"), (7, 8)),
    )
    delta = sets.Delta((sets.Span(cluster, 7, 2, 9, writes), sets.Span("north", 7, None, 9, ())), {"south": 3})
    return [
        peering.Hello(cluster, 7, "a token that nobody guesses"),
        peering.Digest({cluster: (7, 9), "east": (1, 2)}, {"south": 3}),
        peering.Piece(delta, True),
        peering.Ack({cluster: (7, 9)}),
        peering.Ping({cluster: 0.5, "east": 3.0}),
        peering.Bye("it stops"),
    ]


def etcd_messages() -> list[Any]:
    head = etcd.Header(-(2**63) + 5, 1_234_567)
    kv = etcd.KeyValue(b"a/b", 5, 300, 2, b"\x00\xff", 2**62 + 1)
    page = etcd.RangeResponse(head, (kv, etcd.KeyValue(b"c")), True, 9)
    return [
        page,
        etcd.TxnRequest(
            (etcd.Compare(etcd.NOT_EQUAL, etcd.LEASE, b"k", lease=0), etcd.Compare(value=b"")),
            (etcd.RequestOp(put=etcd.PutRequest(b"p", b"v" * 130, 9)),),
            (etcd.RequestOp(range=etcd.RangeRequest(b"r")),),
        ),
        etcd.TxnResponse(head, True, (etcd.ResponseOp(range=page), etcd.ResponseOp())),
        etcd.WatchRequest(create=etcd.WatchCreateRequest(b"a", b"b", 10, True, 3, True)),
        etcd.WatchResponse(head, 3, True, True, 9, "why", True, (etcd.Event(etcd.DELETE, kv), etcd.Event())),
        etcd.LeaseGrantResponse(head, 5, 30, "no"),
        etcd.LeaseTimeToLiveResponse(head, 5, -1, 30, (b"a", b"")),
        etcd.StatusResponse(head, "3.4.23", 7),
    ]


def journal_file(count: int = 8, header: journal.Header = HEADER) -> bytes:
    """A journal of so many groups."""
    seed = journal.seed_of(header)
    payloads = [journal.format_start(journal.Start(0, StorePolicy()))]
    payloads += [
        journal.format_group(index, [journal.format_command(Commit(Txn(then=(Put(f"k{index}", bytes(index * 9)),))))])
        for index in range(count)
    ]
    records = (journal.format_record(seed, index, payload) for index, payload in enumerate(payloads))
    return journal.format_header(header) + b"".join(records)


def snapshot_payloads() -> list[bytes]:
    keeper = Keeper(StorePolicy())
    keeper.apply(Grant(7, 30.0), Mono(0.0))
    for index in range(5):
        keeper.apply(Commit(Txn(then=(Put(f"k{index}", b"v", 7),))), Mono(0.0))
    return list(journal.format_snapshot(keeper.snapshot()))


def instances() -> list[bytes]:
    watcher = format_watcher(SeenWatcher("one", 12, Wall(1.5)))
    return [format_instance(INSTANCE), watcher, b"budao/instances/shop/a%2Fb", b"x/%25/c"]


def slices() -> list[bytes]:
    conditions = {"ready": False, "serving": True, "terminating": True}
    endpoint: dict[str, Any] = {
        "addresses": ["10.0.0.1"],
        "conditions": conditions,
        "nodeName": "n1",
        "zone": "z",
        "targetRef": {"kind": "Pod", "name": "shop-1"},
    }
    one: dict[str, Any] = {
        "metadata": {"name": "shop-x", "resourceVersion": "7", "labels": {"kubernetes.io/service-name": "shop"}},
        "ports": [{"name": "http", "port": 80}, {"appProtocol": "grpc", "port": 81}],
        "endpoints": [endpoint, {"addresses": ["fd00::1"]}],
    }
    listed: dict[str, Any] = {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [one, one]}
    events: list[dict[str, Any]] = [
        {"type": kind, "object": one} for kind in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")
    ]
    events.append({"type": "ERROR", "object": {"code": 410, "message": "too old"}})
    return [json.dumps(each).encode() for each in (listed, *events)]


def consul_entries() -> list[bytes]:
    entry = {
        "Node": {"Node": "n1", "Address": "10.0.0.9", "Datacenter": "dc1"},
        "Service": {
            "ID": "a",
            "Port": 80,
            "Address": "",
            "Weights": {"Passing": 3, "Warning": 1},
            "Meta": {"version": "1", "protocol": "http", "stage": "draining"},
            "Locality": {"Zone": "z"},
        },
        "Checks": [{"Status": "passing"}, {"Status": "warning"}],
    }
    return [json.dumps(each).encode() for each in ([], [entry], [entry, entry])]


def headers() -> list[bytes]:
    return [
        b"in-flight=3;service-ms=12.500",
        b"in-flight=3;service-ms=12.500;more=1",
        b"1500",
        b" 86400001\t",
        b"critical",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-more",
    ]


def certificate() -> bytes:
    """The skeleton of one, as far as it is read."""

    def of(tag: int, *parts: bytes) -> bytes:
        body = b"".join(parts)
        size = bytes([len(body)]) if len(body) < 0x80 else b"\x82" + len(body).to_bytes(2, "big")
        return bytes([tag]) + size + body

    dates = of(0x30, of(0x17, b"260101000000Z"), of(0x18, b"20510101000000Z"))
    fields = (of(0xA0, of(2, b"\x02")), of(2, b"\x29"), of(0x30, b"algorithm"), of(0x30, b"name" * 40), dates)
    return of(0x30, of(0x30, *fields), of(0x30, b"signature"))


SETTINGS = b"""\
[guard.defaults]
objective = { availability = 0.999 }
[guard.inventory]
keys_max = 3
breaker = { failed_share = 0.5, rest_s = 30, mode = "shadow" }
bulkhead = false
[guard."a b"]
objective = { latency = 0.99, under_s = 0.25, window_s = 2_592_000 }
[guard.x.retry]
attempts_max = 4
"""
OF_ITS_OWN = b"""\
flag = true
count = 3
share = 0.5
word = \"\"\"a\\u00e9
b\"\"\"
mode = "fast"
level = 2
maybe = 'x'
words = ["a", "b"]
table = { a = 1, "b.c" = 2.5 }
inner.low = 0x10
at = 1979-05-27T07:32:00Z
"""


def versions() -> list[bytes]:
    return [written_version(Version(number=4, text="a = 1", at=Wall(5.0), by="ann", note="n", back_to=2))]


def urls() -> list[bytes]:
    return [
        b"memory:",
        b"budao://127.0.0.1:7420,[::1]:7421",
        b"etcds://a.example:1,b/?authority=ca.pem&certificate=me.pem&key=me.key&server_name=x",
        b"etcd://user:pass%40word@host,other:2380",
    ]


Tree = Any


def bent(tree: Tree, rng: Random, odd: Callable[[Random], Tree] | None = None) -> Tree:
    """The same plain value with one part of it replaced, taken out, or doubled."""
    odd = odd or odd_value
    if not isinstance(tree, list | dict) or not tree or rng.random() < 0.15:
        return odd(rng)
    if isinstance(tree, dict):
        key = rng.choice(list(tree))
        rest = {name: value for name, value in tree.items() if name != key}
        return rest if rng.random() < 0.1 else rest | {key: bent(tree[key], rng, odd)}
    at = rng.randrange(len(tree))
    way = rng.random()
    if way < 0.05:
        return tree[:at] + tree[at + 1 :]
    if way < 0.1:
        return tree[:at] + [tree[at]] * rng.choice([2, 2, 300]) + tree[at + 1 :]
    return [*tree[:at], bent(tree[at], rng, odd), *tree[at + 1 :]]


def odd_value(rng: Random) -> Tree:
    numbers = [0, 1, -1, 2**31, 2**62, 2**63 - 1, 2**64 - 1, -(2**63), 0.0, -0.5, 1e308, float("inf"), float("nan")]
    texts = ["", "a", "\0", "é" * 300, "x" * 5000, "a/b", "\n", "budao/instances/shop/a"]
    nested: Tree = 0
    for _ in range(rng.choice([1, 20, 900, 1_010])):
        nested = [nested]
    other: list[Tree] = [None, True, False, b"", b"\xff" * 20, [], {}, {"a": 1}, [0, 1, 2, 3], nested]
    kinds: list[list[Tree]] = [numbers, texts, other, [rng.getrandbits(rng.randrange(1, 64))]]
    return rng.choice(rng.choice(kinds))


def bent_payload(payload: bytes, rng: Random) -> bytes:
    """A msgpack value with a flaw in its shape, or in its bytes."""
    found = payload
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        found = bent_msgpack(found, rng) or found
    return found if rng.random() < 0.7 else edited(payload, rng)


def bent_msgpack(raw: bytes, rng: Random) -> bytes | None:
    try:
        return pack(bent(unpack(raw), rng))
    except BudaoError:
        return None


def bent_json(raw: bytes, rng: Random) -> bytes | None:
    try:
        written = json.dumps(bent(json.loads(raw), rng), default=repr).encode()
    except (ValueError, RecursionError):
        return None
    numeral = b"1" + b"0" * rng.choice([30, 400, 4299])
    # What `json` would not write, but reads: numbers that no float holds.
    return written.replace(b"-0.5", numeral) if rng.random() < 0.5 else written


def edited(raw: bytes, rng: Random) -> bytes:
    """Bytes flipped, cut, doubled, or put in."""
    found = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(found) + 1)
        size = rng.choice([1, 1, 2, 8, 64, 4096])
        way = rng.randrange(5)
        if way == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            del found[at : at + size]
        elif way == 2:
            found[at:at] = found[at : at + size]
        elif way == 3:
            found[at:at] = rng.randbytes(size)
        else:
            del found[at:]
    return bytes(found)


def protobuf_seeds() -> list[bytes]:
    """First a byte for the type, then the message."""
    return [bytes([TYPES.index(type(each))]) + protobuf.encode(each) for each in etcd_messages()]


TYPES: list[type[Any]] = [
    found for found in vars(etcd).values() if isinstance(found, type) and found.__module__ == etcd.__name__
]


def store_payloads() -> list[bytes]:
    return [store_frames.format_message(each)[store_frames.LENGTH_BYTES :] for each in store_messages()]


def federation_payloads(cluster: str = "west") -> list[bytes]:
    return [federation.format_frame(each)[federation.LENGTH_BYTES :] for each in federation_frames(cluster)]


def requests() -> list[bytes]:
    opening, _ = websocket.ask(
        "a:1", "/v1/stream?hello=e30", b"the sample nonce", subprotocols=("a", "b"), extensions=deflate.offer()
    )
    return [
        opening + websocket.frame(websocket.TEXT, b"early", mask=b"mask"),
        http1.format_request("POST", "/v1/publish", {"Host": "a", "Content-Type": "application/json"}, b'{"data":1}'),
        b"\r\nPOST /a?b=%20 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
        b"GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x\r\n\r\nOPTIONS * HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
    ]


def answers() -> list[bytes]:
    return [
        websocket.accept("dGhlIHNhbXBsZSBub25jZQ==", subprotocol="a", extensions="b") + b"rest",
        http1.format_response(200, {"A": "b"}, b"body")
        + http1.format_response(204, {})
        + http1.format_head(200, {})
        + b"x",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n",
    ]


def websockets() -> list[bytes]:
    text, packed = "κόσμε".encode(), deflate.compress(b"again and again " * 20)
    found = []
    for mask in (b"mask", None):
        found += [
            websocket.frame(websocket.TEXT, text[:3], mask=mask, fin=False)
            + websocket.frame(websocket.PING, b"p", mask=mask)
            + websocket.frame(websocket.CONTINUATION, text[3:], mask=mask)
            + websocket.frame(websocket.BINARY, bytes(130), mask=mask)
            + websocket.close_frame(1001, "bye", mask=mask),
            websocket.frame(websocket.BINARY, packed, mask=mask, rsv1=True) * 2
            + websocket.frame(websocket.PONG, b"", mask=mask),
        ]
    return found


def deflated() -> list[bytes]:
    return [
        deflate.compress(b"again and again " * 20),
        b"\x00",
        b'permessage-deflate; client_max_window_bits; server_max_window_bits="10", permessage-deflate; server_no_context_takeover',
    ]
