"""Names looked up at a real name server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from budao.adapters.dns import DnsSource, NotResolved, Resolver
from budao.discovery import Address, CameBack, Changed, Listed, NamePolicy, WentAway
from tests.live.dns_server import DnsServer
from tests.live.redis_server import free_port

PATIENCE_S = 30.0
RECORDS = (
    "--host-record=shop.example,127.0.0.1,120",
    "--host-record=both.example,127.0.0.2,::1,90",
    "--host-record=a.example,127.0.0.3",
    "--host-record=b.example,127.0.0.4",
    "--srv-host=_http._tcp.shop.example,a.example,8080,1,30",
    "--srv-host=_http._tcp.shop.example,b.example,8081,1,10",
    "--srv-host=_http._tcp.shop.example,gone.example,8082,1,10",
    "--srv-host=_http._tcp.shop.example,shop.example,8083,9,0",
    "--srv-host=_odd._tcp.shop.example,a.example,0,1,30",
    "--srv-host=_odd._tcp.shop.example,b.example,8081,1,10",
)
QUICK = NamePolicy(ttl_min_s=0.05, ttl_max_s=0.05, retry_s=0.05, wait_max_s=PATIENCE_S, absent_s=0.05, lookup_max_s=0.5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DnsServer]:
    with DnsServer(tmp_path) as server:
        server.start(*RECORDS)
        yield server


def with_resolver(
    server: DnsServer, story: Callable[[Resolver], Awaitable[None]], policy: NamePolicy | None = None
) -> None:
    async def play() -> None:
        async with Resolver([Address("127.0.0.1", server.port)], policy=policy) as resolver:
            await story(resolver)

    asyncio.run(play())


def test_a_host_has_its_addresses_of_both_families(server: DnsServer) -> None:
    async def story(resolver: Resolver) -> None:
        assert await resolver.host("shop.example", 80) == (Address("127.0.0.1", 80),)
        assert await resolver.host("both.example", 80) == (Address("127.0.0.2", 80), Address("::1", 80))

    with_resolver(server, story)


def test_a_service_has_ports_priorities_and_weights_and_one_lost_target_hides_nobody(server: DnsServer) -> None:
    async def story(resolver: Resolver) -> None:
        found = await resolver.service("_http._tcp.shop.example")
        assert [(each.address, each.priority, each.weight) for each in found] == [
            (Address("127.0.0.3", 8080), 1, 30),
            (Address("127.0.0.4", 8081), 1, 10),
            (Address("127.0.0.1", 8083), 9, 0),
        ]

    with_resolver(server, story)


def test_a_record_with_port_0_hides_nobody(server: DnsServer) -> None:
    async def story(resolver: Resolver) -> None:
        found = await resolver.service("_odd._tcp.shop.example")
        assert [each.address for each in found] == [Address("127.0.0.4", 8081)]

    with_resolver(server, story)


def test_a_name_that_does_not_exist_is_said_to_be_none(server: DnsServer) -> None:
    async def story(resolver: Resolver) -> None:
        with pytest.raises(NotResolved, match="there is no such name"):
            await resolver.host("nobody.example", 80)

    with_resolver(server, story)


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 300, "ü" * 70, "a b", "\0", "-", "*"])
def test_odd_names_end_in_one_clear_error(server: DnsServer, name: str) -> None:
    async def story(resolver: Resolver) -> None:
        with pytest.raises(NotResolved):
            await resolver.host(name, 80)
        with pytest.raises(NotResolved):
            await resolver.service(name)

    with_resolver(server, story, NamePolicy(wait_max_s=PATIENCE_S))


def test_many_who_ask_at_once_share_one_lookup_and_one_who_leaves_does_not_end_it(server: DnsServer) -> None:
    async def story(resolver: Resolver) -> None:
        asking = [asyncio.create_task(resolver.host("shop.example", 80)) for _ in range(50)]
        await asyncio.sleep(0)
        assert len(resolver._tasks) == 1
        asking[0].cancel()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert set(answers[1:]) == {(Address("127.0.0.1", 80),)}

    with_resolver(server, story)


def test_a_name_server_that_hangs_makes_nobody_wait_longer_than_allowed(server: DnsServer) -> None:
    async def story(resolver: Resolver) -> None:
        with server.paused(), pytest.raises(NotResolved, match=r"no answer within 0\.05 s"):
            await resolver.host("shop.example", 80)

    with_resolver(server, story, NamePolicy(wait_max_s=0.05))


def test_an_old_answer_is_used_while_the_server_is_gone_and_a_new_one_once_it_is_back(server: DnsServer) -> None:
    async def story(resolver: Resolver) -> None:
        before = await resolver.host("shop.example", 80)
        server.stop()
        await asyncio.sleep(0.1)
        assert await resolver.host("shop.example", 80) == before
        server.start("--host-record=shop.example,127.0.0.9")
        async with asyncio.timeout(PATIENCE_S):
            while await resolver.host("shop.example", 80) == before:  # noqa: ASYNC110 -- a server tells nobody
                await asyncio.sleep(0.01)
        assert await resolver.host("shop.example", 80) == (Address("127.0.0.9", 80),)

    with_resolver(server, story, QUICK)


def test_no_name_server_at_all_is_an_error_that_says_so(tmp_path: Path) -> None:
    server = DnsServer(tmp_path)
    server.port = free_port()

    async def story(resolver: Resolver) -> None:
        with pytest.raises(NotResolved, match="name servers"):
            await resolver.host("shop.example", 80)

    with_resolver(server, story, QUICK)


def test_a_service_is_followed_by_name_through_a_change_and_an_absence(server: DnsServer) -> None:
    async def story(resolver: Resolver) -> None:
        sightings = DnsSource(resolver).follow("_http._tcp.shop.example")
        async with asyncio.timeout(PATIENCE_S):
            first = await anext(sightings)
            assert isinstance(first, Listed)
            assert {each.id: each.weight for each in first.instances} == {
                "127.0.0.3:8080": 30.0,
                "127.0.0.4:8081": 10.0,
            }

            server.start(*RECORDS[:4], RECORDS[4])
            changed = await anext(sightings)
            while isinstance(changed, WentAway | CameBack):  # the server was away while it was started again
                changed = await anext(sightings)
            assert changed == Changed(changed.revision, (), ("127.0.0.4:8081",))

            server.stop()
            assert isinstance(await anext(sightings), WentAway)
            server.start(*RECORDS[:5])
            while not isinstance(await anext(sightings), CameBack):
                pass
        await sightings.aclose()  # type: ignore[attr-defined]

    with_resolver(server, story, QUICK)


def test_a_host_and_port_is_a_service_too(server: DnsServer) -> None:
    async def story(resolver: Resolver) -> None:
        sightings = DnsSource(resolver).follow("both.example:8080")
        first = await anext(sightings)
        assert isinstance(first, Listed)
        assert [each.id for each in first.instances] == ["127.0.0.2:8080", "[::1]:8080"]
        await sightings.aclose()  # type: ignore[attr-defined]

    with_resolver(server, story)
