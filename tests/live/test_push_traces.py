"""A trace from an HTTP request to what readers are sent."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import httpx
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from budao.aio.gateway import Access, Gateway
from budao.aio.gateway.traces import find_traces
from budao.aio.logs import MemoryLog
from budao.push import Grant

PATIENCE_S = 30.0
ANYBODY = Access(anonymous=Grant(subject="anybody", subscribe=("**",), publish=("**",)))
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


async def read(port: int, count: int) -> list[dict[str, object]]:
    """The first messages of the channel."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/events?channel=a&last=10 HTTP/1.1\r\nhost: localhost\r\n\r\n")
    found = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            line = await reader.readline()
            if line.startswith(b'data: {"type":"msg"'):
                found.append(json.loads(line[6:]))
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return found


def test_a_message_carries_the_trace_of_its_publisher_and_a_bad_one_is_dropped() -> None:
    async def story() -> None:
        async with MemoryLog() as log, Gateway(log, access=ANYBODY) as it, httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{it.port}/v1/publish"
            for said in (CALLER, "nonsense", None):
                headers = {} if said is None else {"traceparent": said}
                answer = await client.post(url, json={"channel": "a", "data": 1}, headers=headers)
                assert answer.status_code == 200
            assert [frame.get("trace") for frame in await read(it.port, 3)] == [CALLER, None, None]
            assert it.metrics.traces_dropped == 1

    asyncio.run(story())


def test_a_publish_and_its_delivery_are_spans_of_the_callers_trace() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def story() -> None:
        async with MemoryLog() as log, Gateway(log, access=ANYBODY) as it, httpx.AsyncClient() as client:
            assert it.publisher.traces is None  # nobody has configured a provider
            traces = it.publisher.traces = find_traces(it.name, provider)
            assert traces is not None
            it.hub.delivered = traces.delivered
            readers = [asyncio.create_task(read(it.port, 1)) for _ in range(3)]
            async with asyncio.timeout(PATIENCE_S):
                while "a" not in it.hub.channels or it.hub.channels["a"].readers < 3:  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(0.005)
            url = f"http://127.0.0.1:{it.port}/v1/publish"
            await client.post(url, json={"channel": "a", "data": 1}, headers={"traceparent": CALLER})
            heard = await asyncio.gather(*readers)
        spans = {span.name: span for span in exporter.get_finished_spans()}
        assert sorted(spans) == ["budao.push.deliver", "budao.push.publish"]
        publish, deliver = spans["budao.push.publish"], spans["budao.push.deliver"]
        assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
        assert deliver.parent is not None
        assert deliver.parent.span_id == publish.context.span_id
        assert (deliver.attributes or {})["budao.readers"] == 3
        for (frame,) in heard:
            assert str(frame["trace"]).startswith(f"00-{TRACE}-{publish.context.span_id:016x}-")

    asyncio.run(story())
