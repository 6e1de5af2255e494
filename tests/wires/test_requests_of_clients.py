"""Requests as real programs sent them: Chromium 156, Node 20, curl 7.88, httpx 0.28, aiohttp 3.14, websockets 17."""

from __future__ import annotations

import pytest

from budao.wire import deflate, http1, websocket
from budao.wire.http1 import Body, EndOfBody, Request

CHROMIUM_WEBSOCKET = (
    b"GET /v1/stream?hello=eyJ9 HTTP/1.1\r\nHost: 127.0.0.1:7440\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"HeadlessChrome/156.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: null\r\nSec-WebSocket-Version: 13\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n"
    b"Sec-WebSocket-Key: pBXiwMSzhAANTfRZVp0+zQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    b"Sec-WebSocket-Protocol: budao.v1.json, budao.v1.msgpack\r\n\r\n"
)
CHROMIUM_EVENTS = (
    b"GET /v1/events?channel=r%C3%B6m HTTP/1.1\r\nHost: 127.0.0.1:7440\r\nConnection: keep-alive\r\nPragma: no-cache\r\n"
    b'Cache-Control: no-cache\r\nsec-ch-ua-platform: "Linux"\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) '
    b"AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36\r\nAccept: text/event-stream\r\n"
    b'sec-ch-ua: "Not:A-Brand";v="8", "Chromium";v="156"\r\nsec-ch-ua-mobile: ?0\r\nOrigin: null\r\n'
    b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\r\n"
)
WEBSOCKETS = (
    b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1:7440\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: mxxQlBKTlNYL5bIVdh1Z9g==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: budao.v1.json\r\n"
    b"User-Agent: Python/3.11 websockets/17.4\r\n\r\n"
)
AIOHTTP = (
    b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1:7440\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: 0ydiP2pu/kjLa4WlfvUw6A==\r\nSec-WebSocket-Protocol: budao.v1.json\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nAccept: */*\r\n"
    b"Accept-Encoding: gzip, deflate\r\nUser-Agent: Python/3.11 aiohttp/3.14.5\r\n\r\n"
)
HTTPX = (
    b"POST /v1/publish HTTP/1.1\r\nHost: 127.0.0.1:7440\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nUser-Agent: python-httpx/0.28.1\r\nContent-Length: 35\r\nContent-Type: application/json\r\n\r\n"
    b'{"channel":"news","data":"gr\xc3\xbc\xc3\x9fe"}'
)
NODE = (
    b"GET /v1/events?channel=a&channel=b%2Fc HTTP/1.1\r\nhost: 127.0.0.1:7440\r\nconnection: keep-alive\r\n"
    b"Last-Event-ID: e1:7\r\naccept: text/event-stream\r\naccept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\n"
    b"accept-encoding: gzip, deflate\r\n\r\n"
)
CURL_CHUNKED = (
    b"POST /v1/publish HTTP/1.1\r\nHost: 127.0.0.1:7440\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
    b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
    b'1b\r\n{"channel":"news","data":1}\r\n0\r\n\r\n'
)
CURL_HTTP2 = (
    b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:7440\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
)
ALL = [CHROMIUM_WEBSOCKET, CHROMIUM_EVENTS, WEBSOCKETS, AIOHTTP, HTTPX, NODE, CURL_CHUNKED, CURL_HTTP2]


def read(raw: bytes) -> tuple[Request, bytes]:
    found = http1.RequestReader(http1.HeadPolicy()).feed(raw)
    assert isinstance(found[0], Request)
    assert found[-1] == EndOfBody()
    return found[0], b"".join(each.data for each in found if isinstance(each, Body))


@pytest.mark.parametrize("raw", [CHROMIUM_WEBSOCKET, WEBSOCKETS, AIOHTTP])
def test_a_client_opens_a_websocket_with_compression(raw: bytes) -> None:
    upgrade = websocket.check_upgrade(read(raw)[0])
    assert upgrade.subprotocols[0] == "budao.v1.json"
    assert deflate.accept(upgrade.extensions) is not None


def test_a_browser_asks_for_events() -> None:
    request, _ = read(CHROMIUM_EVENTS)
    assert http1.parse_query(request.query) == {"channel": ["röm"]}
    assert request.headers["accept"] == "text/event-stream"
    assert not request.wants_upgrade


def test_node_goes_on_with_events() -> None:
    request, _ = read(NODE)
    assert http1.parse_query(request.query) == {"channel": ["a", "b/c"]}
    assert request.headers["last-event-id"] == "e1:7"


def test_a_body_is_published_with_a_length_and_in_chunks() -> None:
    assert read(HTTPX)[1] == '{"channel":"news","data":"grüße"}'.encode()
    assert read(CURL_CHUNKED)[1] == b'{"channel":"news","data":1}'


def test_an_offer_of_http2_is_passed_over() -> None:
    request, _ = read(CURL_HTTP2)
    assert not request.wants_upgrade
    assert request.keeps_alive


@pytest.mark.parametrize("raw", ALL)
def test_no_request_of_theirs_depends_on_how_it_is_cut(raw: bytes) -> None:
    for cut in range(1, len(raw)):
        reader = http1.RequestReader(http1.HeadPolicy())
        found = reader.feed(raw[:cut]) + reader.feed(raw[cut:])
        assert (found[0], b"".join(each.data for each in found if isinstance(each, Body))) == read(raw)
