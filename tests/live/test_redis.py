"""The redis-py adapter on a real server that is killed, paused and started again under load."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from budao.adapters.redis import command_key, guard_redis, is_failure
from budao.guard import State
from budao.model import BreakerOpen, BreakerPolicy, GuardPolicy, RetryPolicy, TimeoutPolicy, Why, context
from budao.protect import Guard
from tests.live.redis_server import PATIENCE_S, RedisServer, free_port

CALL_S = 0.3
# What one call may take beyond its bound on a busy machine. Not a claim about speed: without a bound it would hang.
GRACE_S = 5.0


def policy(**changes: Any) -> GuardPolicy:
    parts: dict[str, Any] = {
        "breaker": BreakerPolicy(calls_min=5, window_s=2.0, rest_s=0.2, rest_growth=1.0, probes_good=1, ramp_s=0.0),
        "timeout": TimeoutPolicy(call_s=CALL_S, total_s=2 * CALL_S),
        "retry": None,
    }
    return GuardPolicy(**(parts | changes))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to be killed."""
    with RedisServer(tmp_path) as running:
        yield running


@asynccontextmanager
async def connected(server: RedisServer, guard: Guard, **options: Any) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis(port=server.port, decode_responses=True, **options)
    async with guard_redis(client, guard):
        yield client
    await client.connection_pool.disconnect()


@contextmanager
def connected_sync(server: RedisServer, guard: Guard, **options: Any) -> Iterator[redis.Redis]:
    client = redis.Redis(port=server.port, decode_responses=True, **options)
    with guard_redis(client, guard):
        yield client
    client.connection_pool.disconnect()


def pipelined(client: Any, *, transaction: bool = True) -> Any:
    """A pipeline without its types: redis-py says that its commands return what a client's do."""
    return client.pipeline(transaction=transaction)


def view(guard: Guard, key: str) -> Any:
    return next(each for each in guard.snapshot().keys if each.key == key)


def in_flight(guard: Guard) -> int:
    return sum(each.in_flight for each in guard.snapshot().keys)


def state(guard: Guard, key: str) -> State:
    found: State = view(guard, key).state
    return found


async def recovers(client: redis.asyncio.Redis, key: str) -> None:
    """Call until an answer comes, as users would."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            await client.get(key)
            return
        except Exception:
            assert time.monotonic() < until, "no recovery"
            await asyncio.sleep(0.02)


# --------------------------------------------------------------------------------------------------------- answers


def test_commands_answer_as_before_and_are_told_apart_by_name_and_prefix(server: RedisServer) -> None:
    async def story() -> None:
        guard = Guard("cache", policy=policy())
        async with connected(server, guard) as client:
            assert type(client) is redis.asyncio.Redis
            assert await client.set("user:1", "ann") is True
            assert await client.get("user:1") == "ann"
            assert await client.get("user:2") is None
            assert await client.mget("user:1", "user:2") == ["ann", None]
            assert await client.delete("user:1", "user:2") == 1
            assert [name async for name in client.scan_iter("nothing:*")] == []
        keys = {each.key: each.ok for each in guard.snapshot().keys}
        assert keys["GET user:"] == 2
        assert {"SET user:", "MGET user:", "DEL user:", "SCAN"} <= set(keys)
        assert in_flight(guard) == 0

    asyncio.run(story())


def test_an_error_that_is_the_servers_answer_is_raised_and_is_no_failure(server: RedisServer) -> None:
    async def story() -> None:
        guard = Guard("cache", policy=policy())
        async with connected(server, guard) as client:
            await client.set("text:1", "words")
            for _ in range(20):
                with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
                    await client.lpush("text:1", "x")
            with pytest.raises(exceptions.DataError):
                await client.set("text:1", {"a": 1})  # type: ignore[arg-type]  # refused before it is sent
            with pytest.raises(exceptions.NoScriptError):
                await client.evalsha("0" * 40, 1, "text:1")
        assert view(guard, "LPUSH text:").failed == 0
        assert view(guard, "EVALSHA text:").failed == 0
        assert all(each.state is State.CLOSED for each in guard.snapshot().keys)

    asyncio.run(story())


def test_pipelines_transactions_and_scripts_are_guarded_as_one_call_each(server: RedisServer) -> None:
    async def story() -> None:
        guard = Guard("cache", policy=policy())
        async with connected(server, guard) as client:
            async with pipelined(client, transaction=False) as pipeline:
                assert await pipeline.execute() == []
                assert await pipeline.set("cart:1", "1").get("cart:1").execute() == [True, "1"]
            async with pipelined(client) as pipeline:
                await pipeline.watch("cart:1")
                before = int(await pipeline.get("cart:1") or 0)
                pipeline.multi()
                pipeline.set("cart:1", before + 1)
                assert await pipeline.execute() == [True]
            async with pipelined(client) as pipeline:
                await pipeline.watch("cart:1")
                await client.set("cart:1", "9")
                pipeline.multi()
                pipeline.set("cart:1", "0")
                with pytest.raises(exceptions.WatchError):
                    await pipeline.execute()
            twice: Any = client.register_script("return redis.call('get', KEYS[1]) * 2")
            assert await twice(keys=["cart:1"]) == 18
            async with client.client() as single:
                assert await single.get("cart:1") == "9"
            async with client.lock("cart:lock", timeout=5):
                pass
        keys = {each.key: each for each in guard.snapshot().keys}
        assert keys["PIPELINE cart:"].ok == 1
        assert keys["MULTI cart:"].ok == 2
        assert keys["MULTI cart:"].failed == 0
        assert keys["WATCH cart:"].ok == 2
        assert keys["GET cart:"].ok == 2
        assert "EVALSHA cart:" in keys

    asyncio.run(story())


def test_a_command_that_waits_on_purpose_and_pubsub_are_left_alone(server: RedisServer) -> None:
    async def story() -> None:
        guard = Guard("cache", policy=policy())
        async with connected(server, guard) as client, client.pubsub() as heard:
            waiting = asyncio.ensure_future(client.blpop(["jobs:1"], timeout=10))
            await heard.subscribe("news:1")
            await asyncio.sleep(2 * CALL_S)
            await client.rpush("jobs:1", "job")
            assert list(await waiting or ()) == ["jobs:1", "job"]
            await client.publish("news:1", "hello")
            async for message in heard.listen():
                if message["type"] == "message":
                    assert message["data"] == "hello"
                    break
        assert {each.key for each in guard.snapshot().keys if each.ok} == {"RPUSH jobs:", "PUBLISH news:"}

    asyncio.run(story())


def test_the_client_no_longer_repeats_by_itself_unless_it_is_told_to(server: RedisServer) -> None:
    quiet = guard_redis(redis.Redis(port=server.port), Guard("cache"))
    retry = quiet.get_retry()
    assert retry is not None
    assert retry._retries == 0
    given = Retry(NoBackoff(), 7)
    loud = guard_redis(redis.Redis(port=server.port, retry=given), Guard("cache"), client_retries=True)
    kept = loud.get_retry()
    assert kept is not None
    assert kept._retries == 7


def test_clusters_and_guarded_clients_are_turned_down(server: RedisServer) -> None:
    client = guard_redis(redis.Redis(port=server.port), Guard("cache"))
    with pytest.raises(ValueError, match="guarded already"):
        guard_redis(client, Guard("cache"))
    with pytest.raises(TypeError, match="clusters are not covered"):
        guard_redis(object(), Guard("cache"))  # type: ignore[type-var]  # what a checker would say, said at run time


def test_a_guard_keeps_no_client_and_no_pipeline_alive(server: RedisServer) -> None:
    guard = Guard("cache", policy=policy())
    client = guard_redis(redis.Redis(port=server.port), guard)
    client.ping()
    untyped: Any = client
    gone = [weakref.ref(each) for each in (client, untyped.client(), client.pipeline())]
    client.close()
    client.connection_pool.disconnect()
    del client, untyped
    gc.collect()
    assert [each() for each in gone] == [None, None, None]
    assert guard.snapshot().name == "cache"


# ------------------------------------------------------------------------------------------------------- cancelling


def test_after_cancelled_commands_every_answer_still_belongs_to_its_question(server: RedisServer) -> None:
    """A reply left unread in a connection would be the next caller's: CVE-2023-28858 and CVE-2023-28859."""

    async def story() -> None:
        rng = random.Random(20230328)
        guard = Guard("cache", policy=policy(timeout=TimeoutPolicy(call_s=PATIENCE_S, total_s=PATIENCE_S)))
        heard: Counter[str] = Counter()
        async with connected(server, guard, max_connections=50) as client:
            numbers = range(200)
            await client.mset({f"number:{number}": str(number) for number in numbers})

            async def ask(number: int) -> None:
                try:
                    match number % 3:
                        case 0:
                            async with pipelined(client, transaction=number % 2 == 0) as pipeline:
                                got = await pipeline.get(f"number:{number}").get(f"number:{number}").execute()
                            assert got == [str(number)] * 2, (number, got)
                        case 1:
                            assert await client.mget(f"number:{number}") == [str(number)]
                        case _:
                            assert await client.get(f"number:{number}") == str(number)
                    heard["answered"] += 1
                except asyncio.CancelledError:
                    heard["cancelled"] += 1
                    raise

            for _ in range(60):
                asked = [asyncio.create_task(ask(rng.choice(numbers))) for _ in range(20)]
                for _ in range(rng.randrange(12)):
                    await asyncio.sleep(0)
                for task in rng.sample(asked, 10):
                    task.cancel()
                for ending in await asyncio.gather(*asked, return_exceptions=True):
                    assert ending is None or isinstance(ending, asyncio.CancelledError), ending
            assert heard["answered"] >= 600
            assert heard["cancelled"] >= 50
            assert in_flight(guard) == 0
            assert client.connection_pool._in_use_connections == set()
            for number in numbers:
                assert await client.get(f"number:{number}") == str(number)
        assert all(each.failed == 0 for each in guard.snapshot().keys)

    asyncio.run(story())


# --------------------------------------------------------------------------------------------------- paused, killed


def test_a_paused_server_holds_no_caller_longer_than_its_bound_and_then_the_breaker_opens(server: RedisServer) -> None:
    async def story() -> None:
        guard = Guard("cache", policy=policy())
        longest_s = 0.0
        endings: Counter[str] = Counter()

        async def ask(client: redis.asyncio.Redis, number: int) -> None:
            nonlocal longest_s
            began = time.monotonic()
            try:
                assert await client.get(f"user:{number}") == str(number), "a wrong answer"
                endings["answered"] += 1
            except BreakerOpen:
                endings["refused"] += 1
            except TimeoutError:
                endings["timed out"] += 1
            longest_s = max(longest_s, time.monotonic() - began)

        async with connected(server, guard) as client:
            for number in range(40):
                await client.set(f"user:{number}", str(number))
            await asyncio.gather(*(ask(client, number) for number in range(20)))
            assert endings == {"answered": 20}
            endings.clear()
            with server.paused():
                while endings["refused"] < 20:
                    await asyncio.gather(*(ask(client, number) for number in range(8)))
                assert state(guard, "GET user:") is not State.CLOSED
                assert endings["answered"] == 0
            await recovers(client, "user:1")
            endings.clear()
            for number in range(40):
                await ask(client, number)
            assert endings["answered"] == 40
            assert state(guard, "GET user:") is State.CLOSED
            assert in_flight(guard) == 0
        assert longest_s < CALL_S + GRACE_S
        assert view(guard, "GET user:").refused[Why.BREAKER_OPEN] >= 1

    asyncio.run(story())


class Users:
    """Users who read without end, and what they met."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client
        self.endings: Counter[str] = Counter()
        self.wrong: list[object] = []
        self.longest_s = 0.0
        self.is_stopping = False

    async def read(self, number: int) -> None:
        while not self.is_stopping:
            began = time.monotonic()
            try:
                got = await self.client.get(f"user:{number}")
                if got not in {str(number), None}:  # a new life begins empty
                    self.wrong.append((number, got))
                self.endings["answered"] += 1
            except BreakerOpen:
                self.endings["refused"] += 1
            except (exceptions.ConnectionError, exceptions.TimeoutError, TimeoutError):
                self.endings["failed"] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            await asyncio.sleep(0.005)

    async def reach(self, ending: str, count: int) -> None:
        until = time.monotonic() + PATIENCE_S
        goal = self.endings[ending] + count
        while self.endings[ending] < goal:
            assert time.monotonic() < until, (ending, self.endings)
            await asyncio.sleep(0.01)


def test_under_load_a_kill_and_a_restart_are_ridden_out_and_nothing_is_left_behind(mortal: RedisServer) -> None:
    async def story() -> None:
        guard = Guard("cache", policy=policy())
        async with connected(mortal, guard) as client:
            users = Users(client)
            for number in range(20):
                await client.set(f"user:{number}", str(number))
            async with asyncio.TaskGroup() as tasks:
                for number in range(20):
                    tasks.create_task(users.read(number))
                for _ in range(2):
                    await users.reach("answered", 200)
                    mortal.kill()
                    await users.reach("refused", 200)
                    await asyncio.to_thread(mortal.start)
                    await users.reach("answered", 200)
                    with mortal.paused():
                        await users.reach("refused", 200)
                    await users.reach("answered", 200)
                users.is_stopping = True
            assert users.wrong == []
            assert users.longest_s < CALL_S + GRACE_S
            assert in_flight(guard) == 0
            assert client.connection_pool._in_use_connections == set()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        until = time.monotonic() + PATIENCE_S
        while await asyncio.to_thread(mortal.clients):
            assert time.monotonic() < until, "connections are left"
            await asyncio.sleep(0.01)

    asyncio.run(story())
    gc.collect()


def test_reading_commands_are_tried_again_and_writing_ones_are_not(mortal: RedisServer) -> None:
    async def story() -> None:
        tried = policy(breaker=None, retry=RetryPolicy(attempts_max=3, pause_first_s=0.0))
        guard = Guard("cache", policy=tried)
        async with connected(mortal, guard) as client:
            await client.set("user:1", "1")
            mortal.kill()
            with pytest.raises(exceptions.ConnectionError):
                await client.incr("user:1")
            assert guard.snapshot().retries == 0
            async with pipelined(client) as pipeline:
                with pytest.raises(exceptions.ConnectionError):
                    await pipeline.get("user:1").execute()
            assert guard.snapshot().retries == 0
            with pytest.raises(exceptions.ConnectionError):
                await client.get("user:1")
            assert guard.snapshot().retries >= 1

    asyncio.run(story())


def test_a_connection_lost_while_watching_is_a_failure_though_it_is_told_as_a_lost_watch(mortal: RedisServer) -> None:
    async def story() -> None:
        guard = Guard("cache", policy=policy())
        async with connected(mortal, guard) as client:
            pipeline = pipelined(client)
            await pipeline.watch("cart:1")
            mortal.kill()
            with pytest.raises(exceptions.WatchError) as caught:
                await pipeline.get("cart:1")
            assert is_failure(caught.value)
            assert view(guard, "GET cart:").failed == 1

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------------------- sync


def test_a_sync_client_is_guarded_too(server: RedisServer) -> None:
    guard = Guard("cache", policy=policy())
    with connected_sync(server, guard) as client:
        assert type(client) is redis.Redis
        client.set("user:1", "ann")
        assert client.get("user:1") == "ann"
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            client.lpush("user:1", "x")
        with pipelined(client) as pipeline:
            assert pipeline.set("cart:1", "1").get("cart:1").execute() == [True, "1"]

        def count(pipeline: Any) -> None:
            pipeline.multi()
            pipeline.incr("cart:1")

        assert client.transaction(count, "cart:1") == [2]
        untyped: Any = client
        with untyped.client() as single:
            assert single.get("cart:1") == "2"
    keys = {each.key: each for each in guard.snapshot().keys}
    assert {"SET user:", "GET user:", "LPUSH user:", "MULTI cart:", "WATCH cart:", "GET cart:"} <= set(keys)
    assert all(each.failed == 0 for each in keys.values())
    assert in_flight(guard) == 0


def test_a_paused_server_holds_no_thread_longer_than_the_deadline(server: RedisServer) -> None:
    guard = Guard("cache", policy=policy())
    longest_s = 0.0
    endings: Counter[str] = Counter()

    def ask(client: redis.Redis, number: int) -> None:
        nonlocal longest_s
        began = time.monotonic()
        try:
            assert client.get(f"user:{number}") == str(number), "a wrong answer"
            endings["answered"] += 1
        except BreakerOpen:
            endings["refused"] += 1
        except (exceptions.TimeoutError, TimeoutError):
            endings["timed out"] += 1
        longest_s = max(longest_s, time.monotonic() - began)

    with connected_sync(server, guard) as client:
        for number in range(8):
            client.set(f"user:{number}", str(number))
            ask(client, number)
        with server.paused():
            while endings["refused"] < 8:
                threads = [threading.Thread(target=ask, args=(client, number)) for number in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(PATIENCE_S)
                    assert not thread.is_alive(), "a caller hangs"
            assert endings["answered"] == 8
        until = time.monotonic() + PATIENCE_S
        while endings["answered"] < 40:
            assert time.monotonic() < until, endings
            for number in range(8):
                ask(client, number)
            time.sleep(0.02)
        assert longest_s < CALL_S + GRACE_S
        assert in_flight(guard) == 0
        assert state(guard, "GET user:") is State.CLOSED


def test_outside_a_deadline_a_sync_connection_has_its_own_timeouts_again(server: RedisServer) -> None:
    with connected_sync(server, Guard("cache", policy=policy(timeout=None)), socket_timeout=7.0) as client:
        token = context.deadline.set(time.perf_counter() + 3.0)
        client.ping()  # opened in a hurry
        context.deadline.reset(token)
        client.ping()
        connection: Any = client.connection_pool._available_connections[0]
        assert connection._sock.gettimeout() == 7.0
        token = context.deadline.set(time.perf_counter() + 2.0)
        client.ping()
        assert 0.0 < connection._sock.gettimeout() <= 2.0
        context.deadline.reset(token)
        client.ping()
        assert connection._sock.gettimeout() == 7.0


def test_a_kill_and_a_restart_are_ridden_out_by_a_sync_client(mortal: RedisServer) -> None:
    guard = Guard("cache", policy=policy())
    with connected_sync(mortal, guard) as client:
        client.set("user:1", "1")
        mortal.kill()
        endings: Counter[str] = Counter()
        until = time.monotonic() + PATIENCE_S
        while endings["refused"] < 5:
            assert time.monotonic() < until, endings
            try:
                client.get("user:1")
            except BreakerOpen:
                endings["refused"] += 1
            except exceptions.ConnectionError:
                endings["failed"] += 1
        mortal.start()
        while state(guard, "GET user:") is not State.CLOSED:
            assert time.monotonic() < until, "no recovery"
            try:
                client.get("user:1")
            except (BreakerOpen, exceptions.ConnectionError):
                time.sleep(0.02)
        assert in_flight(guard) == 0


def test_the_example_runs_with_a_redis_and_without_one(server: RedisServer) -> None:
    example = Path(__file__).parents[2] / "examples" / "redis_cache.py"

    def said(port: int) -> str:
        return subprocess.run([sys.executable, example, str(port)], capture_output=True, text=True, check=True).stdout

    assert "sku-39: 10 (computed)" in said(server.port)
    assert "GET price: closed, 40 ok" in said(server.port)
    without = said(free_port())
    assert "sku-39: about 10 (cache[GET price:]: not sent, breaker open" in without
    assert "GET price: open, 0 ok" in without


# ------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "user:7"), "GET user:"),
        (("get", b"user:7"), "GET user:"),
        ((b"GET", memoryview(b"user:7")), "GET user:"),
        (("GET", "session"), "GET"),
        (("GET", "x" * 100 + ":7"), "GET"),
        (("PING",), "PING"),
        (("SCAN", 0), "SCAN"),
        (("EVALSHA", "0" * 40, 1, "cart:7", "a:b"), "EVALSHA cart:"),
        (("EVAL", "return 'a:b'", 0), "EVAL"),
        (("XREAD", "COUNT", 1, "STREAMS", "s:1", "0"), "XREAD"),
    ],
)
def test_a_key_is_the_command_and_what_stands_before_the_first_colon(command: tuple[Any, ...], key: str) -> None:
    assert command_key(*command) == key
