"""One instance of the service that is restarted, as a program."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from typing import Any

from budao.adapters.asgi_registration import registered
from budao.discovery import DrainPolicy, RegistrarPolicy

WORK_S = 0.02

ORDER: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
KIND, PORT, STORE = ORDER.get("kind", ""), ORDER.get("port", 0), ORDER.get("store", "")
POLICY = DrainPolicy.of(ORDER.get("grace_s", 30.0), lag_s=ORDER.get("lag_s"))
REGISTRAR = RegistrarPolicy(ttl_s=3.0, renew_every_s=1.0)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await asyncio.sleep(WORK_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def drained() -> None:
    ours = registered(app, "inventory", STORE, id=f"{KIND}-{PORT}", drain=POLICY, registrar=REGISTRAR)
    if KIND == "uvicorn":
        from budao.adapters import uvicorn

        uvicorn.run(ours, port=PORT, log_level="error", access_log=False)
    elif KIND == "hypercorn":
        from hypercorn import Config

        from budao.adapters import hypercorn

        hypercorn.run(ours, Config.from_mapping(bind=[f"127.0.0.1:{PORT}"], loglevel="ERROR"))
    else:
        from budao.adapters import granian

        granian.run(ours, port=PORT, log_enabled=False)


def bare() -> None:
    if KIND == "uvicorn":
        import uvicorn

        uvicorn.run(app, port=PORT, log_level="error", access_log=False)
    elif KIND == "hypercorn":
        from hypercorn import Config
        from hypercorn.asyncio import serve

        asyncio.run(serve(app, Config.from_mapping(bind=[f"127.0.0.1:{PORT}"], loglevel="ERROR")))
    else:
        from granian.constants import Interfaces
        from granian.server import Server

        Server("bench.rolling.service:app", port=PORT, interface=Interfaces.ASGI, log_enabled=False).serve()


async def grpc_service() -> None:
    import grpc

    from budao.adapters.grpc_registration import CountedCalls, registered_server

    async def stock(_request: bytes, _context: Any) -> bytes:
        await asyncio.sleep(WORK_S)
        return b"ok"

    calls = CountedCalls()
    server = grpc.aio.server(interceptors=[calls], options=[("grpc.so_reuseport", 0)])
    methods = {"Stock": grpc.unary_unary_rpc_method_handler(stock)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Inventory", methods),))
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    await server.start()
    if ORDER["drain"]:
        async with registered_server(
            server,
            "inventory",
            STORE,
            port=PORT,
            id=f"{KIND}-{PORT}",
            calls=calls,
            drain=POLICY,
            registrar=REGISTRAR,
        ) as here:
            await here.left()
    else:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await stopped.wait()
        await server.stop(10)


def main() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if ORDER["drain"] else logging.ERROR, format="%(message)s"
    )
    logging.getLogger("budao.discovery").setLevel(logging.WARNING)
    if KIND == "grpc.aio":
        asyncio.run(grpc_service())
    elif ORDER["drain"]:
        drained()
    else:
        bare()


if __name__ == "__main__":
    main()
