"""Connections to members that are given up while somebody waits for them."""

from __future__ import annotations

import asyncio
import socket
from random import Random

from budao.adapters._etcd_links import Links

PATIENCE_S = 30.0


def test_who_waits_for_a_connection_that_is_given_up_goes_on_and_is_not_cancelled() -> None:
    async def story() -> bool:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, and never says a word
            links = Links(
                [f"127.0.0.1:{silent.getsockname()[1]}"],
                credentials=None,
                reply_bytes_max=1_000_000,
                server_name=None,
                silence_max_s=2.0,
                rng=Random(1),
            )
            link = links._current()
            waiting = asyncio.create_task(link.is_connected())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            links.leave(link, "somebody else found it dead")
            async with asyncio.timeout(PATIENCE_S):
                connected = await waiting
            await asyncio.gather(*links._closing)
            return connected

    assert asyncio.run(story()) is False


def test_who_gives_up_waiting_for_a_connection_is_cancelled_as_anybody() -> None:
    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            links = Links(
                [f"127.0.0.1:{silent.getsockname()[1]}"],
                credentials=None,
                reply_bytes_max=1_000_000,
                server_name=None,
                silence_max_s=2.0,
                rng=Random(1),
            )
            link = links._current()
            waiting = asyncio.create_task(link.is_connected())
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait((waiting,), timeout=PATIENCE_S)
            assert waiting.cancelled()
            links.leave(link, "the test is over")
            await asyncio.gather(*links._closing)

    asyncio.run(story())
