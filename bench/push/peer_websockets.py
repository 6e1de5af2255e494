"""The peer `websockets`, as its documentation tells to broadcast: `python -m bench.push.peer_websockets PORT [CERTIFICATE KEY]`.

Reads lines "MESSAGES PER_SECOND" from stdin, as the floor does.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time

from websockets.asyncio.server import ServerConnection, broadcast, serve


async def main() -> None:
    tls = None
    if len(sys.argv) > 2:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[2], sys.argv[3])
    there: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        there.add(connection)
        try:
            await connection.wait_closed()
        finally:
            there.discard(connection)

    loop = asyncio.get_running_loop()
    async with serve(handle, "127.0.0.1", int(sys.argv[1]), ssl=tls, compression=None, backlog=4096):
        print("listening", flush=True)
        number = 0
        while (line := (await loop.run_in_executor(None, sys.stdin.readline)).strip()) not in {"", "q"}:
            messages, per_s = line.split()
            start = loop.time()
            for each in range(int(messages)):
                if (left := start + each / float(per_s) - loop.time()) > 0:
                    await asyncio.sleep(left)
                number += 1
                broadcast(there, f'{{"n":{number},"at":{time.monotonic_ns()},"x":"'.ljust(126, "x") + '"}')
            print("sent", flush=True)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
