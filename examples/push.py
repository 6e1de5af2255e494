"""Two gateways, a reader and a publisher; one gateway leaves, and the reader misses nothing.

Run it:  python examples/push.py
"""

import asyncio

from budao.aio import PushClient
from budao.aio.gateway import Access, Gateway
from budao.aio.logs import MemoryLog
from budao.push import Gap, Grant


async def main() -> None:
    anybody = Access(anonymous=Grant(subscribe=("news",), publish=("news",)))  # a real one checks tokens
    async with MemoryLog() as log, Gateway(log, access=anybody) as other:
        leaving = Gateway(log, access=anybody)
        await leaving.__aenter__()
        async with PushClient([leaving.url, other.url]) as client, client.subscribe("news") as news:
            await news.ready()
            for number in range(6):
                if number == 3:
                    await leaving.aclose()
                await client.publish("news", {"number": number})
                item = await anext(news)
                if isinstance(item, Gap):
                    print(f"missing: {item.after.seq + 1} to {item.upto.seq}, because {item.why.value}")
                else:
                    print(f"message {item.position.seq}: {item.data.decode()}")
            print(f"connections: {client.metrics.connects}, gaps: {client.metrics.gaps}")


asyncio.run(main())
