"""How fast messages become durable, and how soon readers have them."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from bench.push import servers
from bench.push.fan_out import turn


def latency(*, readers: int, per_s: float, seconds: float) -> None:
    """Prints the time from making a message to reading it, at a steady rate: through HTTP, the durable log and a WebSocket."""
    with tempfile.TemporaryDirectory(prefix="budao-bench-") as at:
        folder = Path(at)
        sink = servers.built(folder, "sink")
        with servers.ours(folder) as running:
            seen = turn(running, sink, folder, readers=readers, messages=int(per_s * seconds), per_s=per_s)
        report = seen.report
        print(
            f"{readers * per_s:,.0f} deliveries/s ({readers} readers, {per_s:g} messages/s, durable): "
            f"p50 {report['p50_ms']:.2f} ms, p99 {report['p99_ms']:.2f} ms, slowest {report['slowest_ms']:.2f} ms"
        )


def durable(*, publishers: int, seconds: float) -> None:
    """Prints how many publishes each second are answered, that is durable, with so many publishers that wait for each answer."""
    with tempfile.TemporaryDirectory(prefix="budao-bench-") as at, servers.ours(Path(at)) as running:
        rate, times = asyncio.run(_publish(running.port, publishers, seconds))
        times.sort()
        print(
            f"{publishers:4} publishers: {rate:9,.0f} durable publishes/s, "
            f"p50 {times[len(times) // 2] * 1e3:.2f} ms, p99 {times[len(times) * 99 // 100] * 1e3:.2f} ms"
        )


async def _publish(port: int, publishers: int, seconds: float) -> tuple[float, list[float]]:
    times: list[float] = []
    until = time.monotonic() + seconds

    async def one(channel: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = 0
        while time.monotonic() < until:
            number += 1
            body = b'{"channel":"c%d","data":%s}' % (channel, servers.payload(number))
            began = time.monotonic()
            writer.write(
                b"POST /v1/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            times.append(time.monotonic() - began)
        writer.close()

    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for channel in range(publishers):
            tasks.create_task(one(channel))
    return len(times) / (time.monotonic() - began), times
