"""Says how many there are. Registers itself as "stock", and leaves without losing a call.

python examples/services/stock.py 8001
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from typing import Any

from budao.adapters import uvicorn
from budao.adapters.asgi_registration import registered
from budao.discovery import DrainPolicy

PORT = int(sys.argv[1])
STORE = os.environ.get("BUDAO_STORE", "budao://127.0.0.1:7420")


async def stock(scope: Any, _receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await asyncio.sleep(random.uniform(0.01, 0.05))  # looks for them
    body = f"7 in stock, says {PORT}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    app = registered(stock, "stock", STORE, drain=DrainPolicy.of(30.0, lag_s=0.0))
    uvicorn.run(app, port=PORT, log_level="warning")
