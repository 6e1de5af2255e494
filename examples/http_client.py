"""An HTTP client behind a guard: a server that stumbles is asked again, one that is down is left alone.

pip install "budao[http]"
python examples/http_client.py
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx

from budao import BreakerPolicy, CallRefused, Guard, GuardPolicy
from budao.adapters.httpx import GuardedTransport

# Numbers small enough for a demonstration; `Guard("stock", objective=Latency(0.99, under_s=0.2))` gives real ones.
guard = Guard("stock", policy=GuardPolicy(breaker=BreakerPolicy(calls_min=10, rest_s=2.0)))


class Stock(BaseHTTPRequestHandler):
    """Answers as it is told to."""

    protocol_version = "HTTP/1.1"
    ahead: ClassVar[list[int]] = []
    asked: ClassVar[int] = 0

    def do_GET(self) -> None:
        Stock.asked += 1
        status = Stock.ahead.pop() if Stock.ahead else 200
        self.send_response(status)
        if status != 200:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(b"7")

    def log_message(self, *_: object) -> None:
        pass


def tour(client: httpx.Client) -> None:
    print("all is well  ", client.get("/sku").status_code)

    Stock.ahead = [503]
    print("it stumbles  ", client.get("/sku").status_code, "after", guard.snapshot().retries, "retry")

    Stock.ahead = [503] * 1000
    before, refused = Stock.asked, 0
    for _ in range(100):
        try:
            client.get("/sku")
        except CallRefused:  # or `except httpx.TransportError`, like any other trouble on the way
            refused += 1
    print("it is down   ", f"100 calls, {refused} refused here, {Stock.asked - before} sent")


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stock)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        with httpx.Client(transport=GuardedTransport(guard), base_url=address) as client:
            tour(client)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    main()
