"""Services read from Kubernetes and from Consul: what is said, what is missed, and what is told when they are away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from budao.adapters._http_source import read_all
from budao.adapters.consul import ConsulSource
from budao.adapters.kubernetes import KubernetesSource
from budao.discovery import CameBack, Changed, Instance, Listed, Sighting, WentAway
from budao.model import BadSettings, RemoteWireError, Stage
from tests.live.consul_server import ConsulServer, entry
from tests.live.kube_server import KubeServer, slice_of

PATIENCE_S = 30.0
READY: dict[str, Any] = {"ready": True}


class Follower:
    """Everything a source said, folded."""

    def __init__(self, sightings: AsyncIterator[Sighting]) -> None:
        self.sightings = sightings
        self.said: list[Sighting] = []
        self.known: dict[str, Instance] = {}
        self._moved = asyncio.Event()

    async def run(self) -> None:
        async for sighting in self.sightings:
            self.said.append(sighting)
            if isinstance(sighting, Listed):
                self.known = {each.id: each for each in sighting.instances}
            elif isinstance(sighting, Changed):
                assert sighting.put or sighting.gone, "a change that changes nothing wakes everybody for nothing"
                self.known |= {each.id: each for each in sighting.put}
                for gone in sighting.gone:
                    del self.known[gone]
            self._moved.set()

    async def until(self, claim: Callable[[Follower], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not claim(self):
                self._moved.clear()
                await self._moved.wait()

    def count(self, kind: type) -> int:
        return sum(isinstance(each, kind) for each in self.said)


@asynccontextmanager
async def following(sightings: AsyncIterator[Sighting]) -> AsyncIterator[Follower]:
    async with aclosing(sightings):  # type: ignore[type-var]
        follower = Follower(sightings)
        task = asyncio.create_task(follower.run())
        try:
            yield follower
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def on_kubernetes(story: Callable[[KubeServer, Follower], Awaitable[None]], server: Callable[[], KubeServer]) -> None:
    async def play() -> None:
        kube = server()
        await kube.start()
        try:
            source = KubernetesSource(kube.url, token=lambda: kube.token, rng=Random(1))
            async with source, following(source.follow("shop")) as follower:
                await story(kube, follower)
        finally:
            await kube.stop()

    asyncio.run(play())


def kube_with_two_pods(**options: Any) -> KubeServer:
    kube = KubeServer(**options)
    kube.put(slice_of("shop-1", "shop", {"a": ("10.0.0.1", READY), "b": ("10.0.0.2", {"ready": False})}, {"http": 80}))
    kube.put(slice_of("bank-1", "bank", {"c": ("10.0.0.3", READY)}, {"http": 80}))
    return kube


def test_a_kubernetes_service_is_listed_and_then_followed() -> None:
    async def story(kube: KubeServer, follower: Follower) -> None:
        await follower.until(lambda seen: seen.known)
        assert {each.id: each.stage for each in follower.known.values()} == {"a": Stage.READY, "b": Stage.STARTING}
        assert follower.known["a"].addresses["http"].host == "10.0.0.1"
        assert follower.known["a"].zone == "eu-1a"

        terminating = {"ready": False, "serving": True, "terminating": True}
        kube.put(slice_of("shop-1", "shop", {"a": ("10.0.0.1", terminating), "b": ("10.0.0.2", READY)}, {"http": 80}))
        await follower.until(lambda seen: seen.known["a"].stage is Stage.DRAINING)
        assert follower.known["b"].stage is Stage.READY

        kube.delete("shop-1")
        await follower.until(lambda seen: not seen.known)
        assert follower.count(Listed) == 1

    on_kubernetes(story, kube_with_two_pods)


def test_slices_of_one_service_are_joined_and_a_list_in_pages_is_whole() -> None:
    def server() -> KubeServer:
        kube = KubeServer(page=2)
        for index in range(7):
            kube.put(slice_of(f"shop-{index}", "shop", {f"pod-{index}": (f"10.0.0.{index}", READY)}, {"http": 80}))
        return kube

    async def story(kube: KubeServer, follower: Follower) -> None:
        await follower.until(lambda seen: seen.known)
        assert sorted(follower.known) == [f"pod-{index}" for index in range(7)]
        assert sum("continue" in request for request in kube.requests) == 3

    on_kubernetes(story, server)


@pytest.mark.parametrize("in_the_watch", [True, False])
def test_a_forgotten_version_means_a_new_list_and_nothing_is_missed(in_the_watch: bool) -> None:
    async def story(kube: KubeServer, follower: Follower) -> None:
        kube.says_gone_in_the_watch = in_the_watch
        await follower.until(lambda seen: seen.known)
        await until(lambda: any("watch" in request for request in kube.requests))
        kube.put(slice_of("shop-2", "shop", {"d": ("10.0.0.4", READY)}, {"http": 80}))
        kube.delete("shop-1")
        kube.forget()  # before the watcher had a chance to see either
        kube.cut()
        await follower.until(lambda seen: set(seen.known) == {"d"})

    on_kubernetes(story, kube_with_two_pods)


def test_a_broken_watch_goes_on_where_it_was_and_a_bookmark_moves_that_place() -> None:
    async def story(kube: KubeServer, follower: Follower) -> None:
        await follower.until(lambda seen: seen.known)
        await until(lambda: any("watch" in request for request in kube.requests))
        kube.bookmark()
        marked = kube.version
        kube.put(slice_of("bank-2", "bank", {"x": ("10.0.0.8", READY)}, {"http": 80}))
        async with asyncio.timeout(PATIENCE_S):
            while not any(f"resourceVersion={marked}" in request for request in kube.requests):
                asked = len(kube.requests)
                kube.cut()
                await until(lambda asked=asked: len(kube.requests) > asked)  # type: ignore[misc]
                await asyncio.sleep(0.01)  # for the bookmark to arrive; if it does not, the next watch brings it again
        kube.put(slice_of("shop-2", "shop", {"d": ("10.0.0.4", READY)}, {"http": 80}))
        await follower.until(lambda seen: "d" in seen.known)
        assert follower.count(Listed) == 1

    on_kubernetes(story, kube_with_two_pods)


def test_an_api_server_that_goes_away_and_comes_back_takes_nobody_with_it() -> None:
    async def story(kube: KubeServer, follower: Follower) -> None:
        await follower.until(lambda seen: seen.known)
        await kube.stop()
        await follower.until(lambda seen: seen.count(WentAway))
        assert set(follower.known) == {"a", "b"}
        await kube.start()
        await follower.until(lambda seen: seen.count(CameBack) or seen.count(Listed) > 1)
        kube.put(slice_of("shop-2", "shop", {"d": ("10.0.0.4", READY)}, {"http": 80}))
        await follower.until(lambda seen: "d" in seen.known)

    on_kubernetes(story, kube_with_two_pods)


def test_a_wrong_token_is_said_with_what_to_do_and_never_shown() -> None:
    async def play() -> None:
        kube = kube_with_two_pods(token="good")
        await kube.start()
        source = KubernetesSource(kube.url, token=lambda: "hunter2", rng=Random(1))
        async with source, following(source.follow("shop")) as follower:
            await follower.until(lambda seen: seen.count(WentAway))
            problem = next(each.problem for each in follower.said if isinstance(each, WentAway))
            assert "the token is missing or has expired" in problem
            assert "hunter2" not in problem
        await kube.stop()

    asyncio.run(play())


def test_a_token_never_travels_unencrypted_to_another_machine() -> None:
    for api in ("http://kubernetes.example:80", "http://localhost.example", "http://127.0.0.1.example", "//localhost"):
        with pytest.raises(BadSettings, match="https"):
            KubernetesSource(api, token=lambda: "hunter2")


def test_a_token_does_not_follow_where_an_answer_sends_us() -> None:
    reached: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        reached.append(str(request.headers))
        return web.json_response([])

    async def play() -> None:
        async with serving(elsewhere) as other:

            async def sends(request: web.Request) -> web.Response:
                raise web.HTTPTemporaryRedirect(f"{other}{request.path_qs}")

            async with serving(sends) as url:
                consul = ConsulSource(url, token="hunter2", rng=Random(1))
                kube = KubernetesSource(url, token=lambda: "hunter2", rng=Random(1))
                for source in (consul, kube):
                    async with source, following(source.follow("shop")) as follower:
                        await follower.until(lambda seen: seen.count(WentAway))
                        problem = next(each.problem for each in follower.said if isinstance(each, WentAway))
                        assert "answers 307: it sends us elsewhere" in problem

    asyncio.run(play())
    assert not reached


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def on_consul(story: Callable[[ConsulServer, Follower], Awaitable[None]]) -> None:
    async def play() -> None:
        consul = ConsulServer()
        consul.put("shop", entry("a", 80, address="10.0.0.1", zone="eu-1a", version="7"), entry("b", 81))
        await consul.start()
        try:
            source = ConsulSource(consul.url, rng=Random(1))
            async with source, following(source.follow("shop")) as follower:
                await story(consul, follower)
        finally:
            await consul.stop()

    asyncio.run(play())


def test_a_consul_service_is_listed_and_then_followed() -> None:
    async def story(consul: ConsulServer, follower: Follower) -> None:
        await follower.until(lambda seen: seen.known)
        a, b = follower.known["a"], follower.known["b"]
        assert (a.addresses["main"].host, a.zone, a.version, a.weight) == ("10.0.0.1", "eu-1a", "7", 2.0)
        assert (b.addresses["main"].host, b.zone) == ("10.0.0.9", "dc1")

        consul.put("shop", entry("a", 80, address="10.0.0.1", status="critical"), entry("c", 82))
        await follower.until(lambda seen: set(seen.known) == {"a", "c"})
        assert follower.known["a"].stage is Stage.STARTING
        assert follower.count(Listed) == 1

    on_consul(story)


def test_an_index_that_moves_without_news_wakes_nobody() -> None:
    async def story(consul: ConsulServer, follower: Follower) -> None:
        await follower.until(lambda seen: seen.known)
        for _ in range(5):
            asked = len(consul.requests)
            consul.touch()
            await until(lambda asked=asked: len(consul.requests) > asked)  # type: ignore[misc]
        assert follower.count(Changed) == 0

    on_consul(story)


def test_an_index_that_goes_back_means_a_new_list() -> None:
    async def story(consul: ConsulServer, follower: Follower) -> None:
        await follower.until(lambda seen: seen.known)
        consul.services["shop"] = [entry("z", 90)]
        consul.touch(3)
        await follower.until(lambda seen: set(seen.known) == {"z"})
        await until(lambda: consul.requests[-1].startswith("index=3&"))

    on_consul(story)


def test_an_agent_that_goes_away_and_comes_back_takes_nobody_with_it() -> None:
    async def story(consul: ConsulServer, follower: Follower) -> None:
        await follower.until(lambda seen: seen.known)
        await consul.stop()
        await follower.until(lambda seen: seen.count(WentAway))
        assert set(follower.known) == {"a", "b"}
        consul.put("shop", entry("b", 81))
        await consul.start()
        await follower.until(lambda seen: set(seen.known) == {"b"})

    on_consul(story)


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 -- the servers have no event for each thing that is waited for
            await asyncio.sleep(0.005)


def test_an_answer_longer_than_anybody_should_read_is_refused_before_it_is_kept() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with suppress(ConnectionError):
            while True:
                await answer.write(b"[" * 65_536)
        return answer

    async def play() -> None:
        app = web.Application()
        app.router.add_get("/", endless)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as answer,
        ):
            with pytest.raises(RemoteWireError, match="more than 1000000 bytes"):
                await read_all(answer, 1_000_000, "the server")
        await runner.cleanup()

    asyncio.run(play())
