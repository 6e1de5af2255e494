"""Who reads a channel is known at every gateway that shares a store, and to whoever asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from budao.aio import Gateway, MemoryLog, MemoryStore, Presence, RemoteStore, Store, StoreServer
from budao.aio.follow import list_span
from budao.aio.gateway import Access
from budao.aio.presence import format_part, parse_part
from budao.aio.push_client import ChannelRefused, Forbidden, PushClient, Subscription
from budao.model import Wall
from budao.push import (
    Ack,
    ChannelPolicy,
    ChannelRules,
    ClientPolicy,
    Hello,
    Members,
    Message,
    PresencePart,
    PresencePolicy,
    Present,
    Sub,
    Unsub,
    Welcome,
)
from budao.store import Span
from budao.wire import push_frames, tokens
from tests.live.push_raw import RATES, Client, play, until, ws
from tests.live.redis_server import PATIENCE_S

SECRET = "a secret of more than thirty-two characters"
RULES = ChannelRules([("room.**", ChannelPolicy(is_presence=True))])
QUICK = PresencePolicy(tell_s=0.02, away_s=0.3, share_s=0.05, lease_s=1.0, linger_s=0.2)


@asynccontextmanager
async def gateway_with(log: Any, store: Store | None, name: str) -> AsyncIterator[Gateway]:
    access = Access(keys=tokens.TokenKeys.of_secret(SECRET))
    async with (
        Gateway(log, access=access, rules=RULES, session_policy=RATES, name=name) as gateway,
        Presence(gateway, store, policy=QUICK),
    ):
        yield gateway


def token(subject: str, **allowed: Any) -> str:
    return tokens.sign_development_token(SECRET, subject=subject, now=Wall(time.time()), **allowed)


class Watching:
    """What one client was told of who is there; raises if somebody comes twice or leaves who was not there."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.names: set[str] = set()
        self.count = -1

    async def begin(self, channel: str = "room.a") -> None:
        await self.client.say(Sub(ref=1, channel=channel, presence=True))
        ack = await self.client.hear()
        assert isinstance(ack, Ack)
        assert ack.problem is None, ack.problem
        await self.hear()

    async def hear(self) -> None:
        frame = await self.client.hear()
        assert isinstance(frame, Present), frame
        assert not self.names.intersection(frame.joined)
        assert self.names.issuperset(frame.left)
        self.names = (self.names | set(frame.joined)) - set(frame.left)
        self.count = frame.count

    async def see(self, claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not claim():
                await self.hear()


@asynccontextmanager
async def somebody(gateway: Gateway, name: str, *channels: str) -> AsyncIterator[Client]:
    async with ws(gateway.port, query=f"?token={token(name)}") as client:
        await client.say(Hello(channels=dict.fromkeys(channels)))
        assert isinstance(await client.hear(), Welcome)
        yield client


async def present(gateway: Gateway, channel: str = "room.a") -> Any:
    async with httpx.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {token('ops')}"}) as http:
        answer = await http.get("/v1/presence", params={"channel": channel})
        return answer.json() if answer.status_code == 200 else answer.status_code


async def members(subscription: Subscription, claim: Callable[[Members], bool]) -> Members:
    """Until those who read the channel are as claimed."""
    async with asyncio.timeout(PATIENCE_S):
        async for found in subscription.presence():
            if claim(found):
                return found
    raise AssertionError("it ended")


def client_of(name: str, *gateways: Gateway, **more: Any) -> PushClient:
    policy = ClientPolicy(is_shuffled=False, standby_spread_s=0.0)
    return PushClient([each.url for each in gateways], token=token(name, **SEES), policy=policy, **more)


SEES: dict[str, Any] = {"subscribe": ["**"], "publish": ["**"], "presence": ["room.**"]}


@pytest.mark.parametrize("standby", [False, True])
def test_the_python_client_tells_who_is_there_also_after_it_has_moved(standby: bool) -> None:
    async def story() -> None:
        store = MemoryStore()
        async with (
            MemoryLog() as log,
            gateway_with(log, store, "a") as a,
            gateway_with(log, store, "b") as b,
            client_of("ann", a, b, standby=standby) as ann,
            client_of("bob", b) as bob,
        ):
            room = ann.subscribe("room.a", presence=True)
            assert (await members(room, lambda found: found.count == 1)).names == ("ann",)
            other = bob.subscribe("room.a")
            await other.ready()
            await members(room, lambda found: set(found.names) == {"ann", "bob"})
            if standby:
                await until(lambda: ann.has_standby)
            for connection in tuple(a.connections):
                connection.cut("cut")
            await until(lambda: ann.gateway is not None and str(b.port) in ann.gateway)
            async with client_of("cid", b) as cid:
                third = cid.subscribe("room.a")
                await third.ready()
                await members(room, lambda found: set(found.names) == {"ann", "bob", "cid"})
            await members(room, lambda found: set(found.names) == {"ann", "bob"})
            await bob.publish("room.a", 1)
            item = await anext(room)
            assert isinstance(item, Message)
            assert item.data == b"1"
            watching = asyncio.create_task(members(room, lambda _: False))
            await room.aclose()
            with pytest.raises(AssertionError, match="it ended"):
                await watching

    play(story)


def test_who_may_not_ask_or_asks_where_nobody_tells_is_refused_by_name() -> None:
    async def story() -> None:
        async with MemoryLog() as log, gateway_with(log, None, "a") as a, client_of("ann", a) as ann:
            with pytest.raises(Forbidden, match="who reads"):
                await anext(ann.subscribe("room/a", presence=True))
            plain = PushClient([a.url], token=token("bob", subscribe=["**"], presence=["**"]))
            async with plain as bob:
                with pytest.raises(ChannelRefused, match="does not tell who is there"):
                    await anext(bob.subscribe("quiet", presence=True))
                without = bob.subscribe("room.a")
                assert without.members is None
                with pytest.raises(ValueError, match="presence=True"):
                    await anext(without.presence())

    play(story)


def test_readers_of_one_gateway_see_each_other_come_and_go() -> None:
    async def story() -> None:
        async with (
            MemoryLog() as log,
            gateway_with(log, None, "a") as gateway,
            somebody(gateway, "ann", "room.a"),
            somebody(gateway, "bob") as bob,
        ):
            seen = Watching(bob)
            await seen.begin()
            assert (seen.names, seen.count) == ({"ann", "bob"}, 2)
            async with somebody(gateway, "cid", "room.a", "room.b"), somebody(gateway, "ann", "room.a"):
                await seen.see(lambda: seen.names == {"ann", "bob", "cid"})
                assert await present(gateway) == {"channel": "room.a", "count": 3, "present": ["ann", "bob", "cid"]}
                assert await present(gateway, "room.b") == {"channel": "room.b", "count": 1, "present": ["cid"]}
            await seen.see(lambda: seen.names == {"ann", "bob"} and seen.count == 2)
            await bob.say(Unsub(ref=2, channel="room.a"))
            assert isinstance(await bob.hear(), Ack)
            await until(lambda: "bob" not in presence_names(gateway))
            assert await present(gateway, "elsewhere") == 404

    play(story)


def presence_names(gateway: Gateway, channel: str = "room.a") -> tuple[str, ...]:
    found: list[tuple[str, ...]] = []
    gateway.presence(channel, lambda members: found.append(() if members is None else members.names))
    return found[0] if found else ()


def test_who_may_not_see_presence_is_refused() -> None:
    async def story() -> None:
        async with MemoryLog() as log, gateway_with(log, None, "a") as gateway:
            async with ws(gateway.port, query=f"?token={token('eve', presence=())}") as client:
                await client.say(Hello())
                assert isinstance(await client.hear(), Welcome)
                await client.say(Sub(ref=1, channel="room.a", presence=True))
                ack = await client.hear()
                assert isinstance(ack, Ack)
                assert ack.problem is not None
                assert ack.problem.why == "forbidden"
            assert presence_names(gateway) == ()

    play(story)


@pytest.mark.parametrize("kind", ["memory", "served"])
def test_readers_of_two_gateways_see_each_other(kind: str, tmp_path: Path) -> None:
    async def tell(one: Store, other: Store) -> None:
        async with MemoryLog() as log, gateway_with(log, one, "a") as a, somebody(a, "ann") as ann:
            seen = Watching(ann)
            async with gateway_with(log, other, "b") as b, somebody(b, "bob", "room.a"):
                await until_shared(one, "bob")
                await seen.begin()
                await seen.see(lambda: seen.names == {"ann", "bob"})
                async with somebody(b, "cid", "room.a"), somebody(a, "dan", "room.a"):
                    await seen.see(lambda: seen.names == {"ann", "bob", "cid", "dan"})
                    assert seen.count == 4

                    async def knows_all() -> bool:
                        found = await present(b)  # nobody asked there before
                        return set(found["present"]) == {"ann", "bob", "cid", "dan"}

                    await until(knows_all)
                await seen.see(lambda: seen.names == {"ann", "bob"})
            await seen.see(lambda: seen.names == {"ann"} and seen.count == 1)

    async def story() -> None:
        if kind == "memory":
            store = MemoryStore()
            await tell(store, store)
            await store.aclose()
            return
        async with StoreServer(tmp_path) as server:
            stores = [RemoteStore("127.0.0.1", server.port) for _ in range(2)]
            await tell(*stores)
            for each in stores:
                await each.aclose()

    play(story)


async def until_shared(store: Store, name: str) -> None:
    async def is_there() -> bool:
        _, entries = await list_span(store, Span.prefix("budao/presence/"))
        return any(name.encode() in entry.value for entry in entries)

    await until(is_there)


def test_the_readers_of_a_gateway_that_is_gone_have_left_when_its_lease_ends() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with (
            MemoryLog() as log,
            gateway_with(log, store, "a") as a,
            somebody(a, "ann") as ann,
            gateway_with(log, _Dying(store), "b") as b,
            somebody(b, "bob", "room.a"),
        ):
            await until_shared(store, "bob")
            seen = Watching(ann)
            await seen.begin()
            await seen.see(lambda: seen.names == {"ann", "bob"})
            _Dying.is_dead = True
            await seen.see(lambda: seen.names == {"ann"})
        await store.aclose()

    class _Dying:
        """The same store, as seen by a process that stands still."""

        is_dead = False

        def __init__(self, store: MemoryStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def keep_alive(self, lease: int) -> Any:
            if self.is_dead:
                await asyncio.sleep(PATIENCE_S)
            return await self._store.keep_alive(lease)

        async def revoke(self, lease: int) -> None:
            assert lease

    play(story)


def test_a_store_that_is_away_costs_the_others_only() -> None:
    async def story() -> None:
        nowhere = RemoteStore("127.0.0.1", 1, timeout_s=0.2)
        async with (
            MemoryLog() as log,
            gateway_with(log, nowhere, "a") as a,
            somebody(a, "ann", "room.a"),
            somebody(a, "bob") as bob,
        ):
            seen = Watching(bob)
            await seen.begin()
            await seen.see(lambda: seen.names == {"ann", "bob"})
            assert (await present(a))["count"] == 2
        await nowhere.aclose()

    play(story)


def test_what_is_in_the_store_and_is_no_part_is_left_out() -> None:
    part = PresencePart(("ann", "b\u00f6b"), 3)
    assert parse_part(format_part(part), QUICK) == part
    for raw in (b"", b"[]", b'{"names":1}', b'{"names":[],"others":"x"}', b"\xff"):
        assert parse_part(raw, QUICK) is None
    assert parse_part(b'{"names":["a","b","c"],"others":1}', PresencePolicy(members_max=2)) == PresencePart(
        ("a", "b"), 2
    )


def test_a_reader_that_was_full_hears_the_difference() -> None:
    async def story() -> None:
        async with MemoryLog() as log, gateway_with(log, None, "a") as gateway, somebody(gateway, "ann") as ann:
            seen = Watching(ann)
            await seen.begin()
            (connection,) = gateway.connections
            gateway.hub.hold(connection, 1)
            async with somebody(gateway, "bob", "room.a"), somebody(gateway, "cid", "room.a"):
                await until(lambda: set(presence_names(gateway)) == {"ann", "bob", "cid"})
            await until(lambda: set(presence_names(gateway)) == {"ann"})
            async with somebody(gateway, "dan", "room.a"):
                await until(lambda: set(presence_names(gateway)) == {"ann", "dan"})
                await asyncio.sleep(QUICK.away_s * 2)
                gateway.hub.release(connection, 1)
                await seen.hear()
                assert seen.names == {"ann", "dan"}

    play(story)


def test_presence_travels_in_both_codecs() -> None:
    frame = Present(channel="room.a", joined=("ann",), left=("bob",), count=7)
    for codec in (push_frames.JSON, push_frames.MSGPACK):
        assert codec.decode_from_gateway(codec.encode(frame)) == frame
