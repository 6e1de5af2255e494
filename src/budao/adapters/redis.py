"""A redis-py client, asyncio or sync, whose commands, pipelines and transactions go through a guard.

    client = guard_redis(redis.asyncio.Redis(), guard)

The client stays the same object of the same class. A command is told apart by its name and by its key up to the first
colon, so `GET user:7` and `GET user:8` share the breaker "GET user:". Reading commands may be repeated, others never.

A reply the server meant ("WRONGTYPE ...", a lost WATCH) is an answer, though it is raised; a failure is what says
that the server cannot serve: no connection, no reply in time, loading, read only, out of memory, cluster down.
Not guarded: pub/sub, MONITOR, and commands that wait on purpose (`BLPOP`, `XREAD ... BLOCK`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from math import inf
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from budao.model import context
from budao.protect import Guard

__all__ = ["BLOCKING", "READING", "command_key", "guard_redis", "is_blocking", "is_failure", "is_reading"]

C = TypeVar("C", bound="redis.Redis | redis.asyncio.Redis")

READING: Final = frozenset({
    "BITCOUNT", "BITFIELD_RO", "BITPOS", "DBSIZE", "DUMP", "ECHO", "EVALSHA_RO", "EVAL_RO", "EXISTS", "EXPIRETIME",
    "FCALL_RO", "GEODIST", "GEOHASH", "GEOPOS", "GEORADIUSBYMEMBER_RO", "GEORADIUS_RO", "GEOSEARCH", "GET", "GETBIT",
    "GETRANGE", "HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HPTTL", "HRANDFIELD", "HSCAN", "HSTRLEN",
    "HTTL", "HVALS", "INFO", "KEYS", "LCS", "LINDEX", "LLEN", "LPOS", "LRANGE", "MGET", "OBJECT", "PEXPIRETIME",
    "PFCOUNT", "PING", "PTTL", "RANDOMKEY", "SCAN", "SCARD", "SDIFF", "SINTER", "SINTERCARD", "SISMEMBER", "SMEMBERS",
    "SMISMEMBER", "SORT_RO", "SRANDMEMBER", "SSCAN", "STRLEN", "SUBSTR", "SUNION", "TIME", "TTL", "TYPE",
    "XINFO CONSUMERS", "XINFO GROUPS", "XINFO STREAM", "XLEN", "XPENDING", "XRANGE", "XREAD", "XREVRANGE", "ZCARD",
    "ZCOUNT", "ZDIFF", "ZINTER", "ZINTERCARD", "ZLEXCOUNT", "ZMSCORE", "ZRANDMEMBER", "ZRANGE", "ZRANGEBYLEX",
    "ZRANGEBYSCORE", "ZRANK", "ZREVRANGE", "ZREVRANGEBYLEX", "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCAN", "ZSCORE",
    "ZUNION",
})  # fmt: skip
"""Commands that change nothing, so that sending them twice is sending them once."""

BLOCKING: Final = frozenset(
    {"BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN", "WAIT", "WAITAOF"}
)
"""Commands that wait for somebody else, not for Redis. XREAD and XREADGROUP join them when they carry BLOCK."""

STREAMS: Final = frozenset({"XREAD", "XREADGROUP"})
SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"})
PREFIX_MAX: Final = 64

# "BUSY " with its space: BUSYGROUP and BUSYKEY are answers.
ILL_WORDS: Final = ("BUSY ", "MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "max number of clients")
ILL: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.InvalidResponse,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    OSError,
)


def is_failure(error: BaseException) -> bool:
    """Whether an exception of redis-py says that the server cannot serve, rather than what its answer is."""
    if isinstance(error, exceptions.WatchError):
        # redis-py reports a connection lost while watching as a lost WATCH; what it met stands behind it.
        return isinstance(error.__cause__ or error.__context__, ILL)
    if isinstance(error, ILL):
        return True
    return isinstance(error, exceptions.ResponseError) and str(error).startswith(ILL_WORDS)


def is_reading(command: object, *_arguments: object, **_options: object) -> bool:
    """Whether a command changes nothing and may be sent again."""
    return _word(command) in READING


def is_blocking(command: object, *arguments: object) -> bool:
    """Whether a command waits on purpose."""
    word = _word(command)
    if word in STREAMS:
        return any(
            each in {"BLOCK", b"BLOCK", "block", b"block"} for each in arguments if isinstance(each, str | bytes)
        )
    return word in BLOCKING


def command_key(command: object, *arguments: object, **_options: object) -> str:
    """The resource a command belongs to: `GET user:` for `GET user:7`, `GET` for a key without a colon."""
    word = _word(command)
    at = 2 if word in SCRIPTS else 0  # a script's first key comes after its hash and the number of keys
    name = arguments[at] if len(arguments) > at else ""
    if not isinstance(name, str):
        name = _text(name)
    end = name.find(":", 0, PREFIX_MAX)
    return f"{word} {name[: end + 1]}" if end >= 0 else word


def guard_redis(
    client: C, guard: Guard, *, key: Callable[..., Hashable] = command_key, client_retries: bool = False
) -> C:
    """Put `guard` between a client and its server; the same client comes back.

    `key` is called with a command and its arguments, as `execute_command` gets them; for a pipeline with "PIPELINE"
    or "MULTI" and the arguments of its first command. Pipelines are never repeated.

    redis-py repeats failed commands by itself, writing ones too, where no breaker sees it and no budget bounds it. That
    is switched off for the client's pool, unless `client_retries` says to keep it.

    A sync client gets the deadline of a call as its socket timeouts, on connections opened from now on, so guard a
    client before its first command. Such a timeout bounds each wait for bytes; a server that trickles gets longer.

    Raises:  TypeError for a cluster client, which picks connections by itself; ValueError for a client guarded before.
    """
    if not isinstance(client, redis.Redis | redis.asyncio.Redis):
        raise TypeError(
            f"{type(client).__name__} is not a redis.Redis or redis.asyncio.Redis; clusters are not covered"
        )
    if "execute_command" in vars(client):
        raise ValueError("this client is guarded already")
    is_async = isinstance(client, redis.asyncio.Redis)
    if not client_retries:
        client.set_retry(AsyncRetry(NoBackoff(), 0) if is_async else Retry(NoBackoff(), 0))  # type: ignore[arg-type]  # one of the two fits
    if not is_async:
        _hurry_connections(client.connection_pool)
    _Way(guard, key, is_async=is_async).lead(client)
    return client


class _Way:
    """The way of one client's commands through the guard, shared by everything that is made from the client.

    What is compiled for the guard knows no client: what sends is its first argument. So clients and pipelines come and
    go, and the guard keeps none of them alive.
    """

    def __init__(self, guard: Guard, key: Callable[..., Hashable], *, is_async: bool) -> None:
        self._key = key
        attempt, behind = (_attempt_async, _behind_async) if is_async else (_attempt, _behind)

        def key_of(_send: object, /, *command: object, **options: object) -> Hashable:
            return key(*command, **options)

        def is_safe(_send: object, /, *command: object, **_options: object) -> bool:
            return is_reading(*command)

        def key_given(send: _Named, /, *_args: object, **_options: object) -> Hashable:
            return send.key

        self._command = behind(guard.protect(attempt, key=key_of, safe=is_safe))
        self._named = behind(guard.protect(attempt, key=key_given))

    def lead(self, client: Any) -> None:
        """Have a client, and what it makes, take this way."""
        send, open_pipeline, open_single = client.execute_command, client.pipeline, client.client

        def execute_command(*args: Any, **options: Any) -> Any:
            return send(*args, **options) if is_blocking(*args) else self._command(send, *args, **options)

        def pipeline(*args: Any, **options: Any) -> Any:
            return self._lead_pipeline(open_pipeline(*args, **options))

        def single(*args: Any, **options: Any) -> Any:
            opened = open_single(*args, **options)
            self.lead(opened)
            return opened

        vars(client).update(execute_command=execute_command, pipeline=pipeline, client=single)

    def _lead_pipeline(self, pipeline: Any) -> Any:
        send_all, send_now = pipeline.execute, pipeline.immediate_execute_command

        def execute(*args: Any, **options: Any) -> Any:
            stack = pipeline.command_stack
            if not stack and not pipeline.watching:
                return send_all(*args, **options)  # sends nothing
            word = "MULTI" if _is_transaction(pipeline) else "PIPELINE"
            return self._named(_Named(_name(self._key, word, stack), send_all), *args, **options)

        def immediate_execute_command(*command: Any, **options: Any) -> Any:
            if is_blocking(*command):
                return send_now(*command, **options)
            return self._named(_Named(self._key(*command), send_now), *command, **options)

        vars(pipeline).update(execute=execute, immediate_execute_command=immediate_execute_command)
        return pipeline


class _Named:
    """Something that sends, and the key it goes by. It is never repeated: a pipeline is empty after its first try."""

    __slots__ = ("key", "send")

    def __init__(self, key: Hashable, send: Callable[..., Any]) -> None:
        self.key = key
        self.send = send

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.send(*args, **options)


# ------------------------------------------------------------------------------------------- answers that are raised


class _Raised:
    """An answer that redis-py raises. It passes the guard as a value, and is raised behind it."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def _attempt(send: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    try:
        return send(*args, **options)
    except Exception as error:
        if is_failure(error):
            raise
        return _Raised(error)


async def _attempt_async(send: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    try:
        return await send(*args, **options)
    except Exception as error:
        if is_failure(error):
            raise
        return _Raised(error)


def _behind(guarded: Callable[..., Any]) -> Callable[..., Any]:
    def call(send: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        answer = guarded(send, *args, **options)
        return _open(answer) if answer.__class__ is _Raised else answer

    return call


def _behind_async(guarded: Callable[..., Any]) -> Callable[..., Any]:
    async def call(send: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        answer = await guarded(send, *args, **options)
        return _open(answer) if answer.__class__ is _Raised else answer

    return call


def _open(answer: _Raised) -> Any:
    try:
        raise answer.error
    finally:
        del answer  # the error knows this frame by its traceback; without this they would keep each other alive


def _is_transaction(pipeline: Any) -> bool:
    # The asyncio pipeline and the sync one keep it under different names.
    asked = vars(pipeline).get("is_transaction", vars(pipeline).get("transaction"))
    return bool(asked or pipeline.explicit_transaction)


def _name(key: Callable[..., Hashable], word: str, stack: list[Any]) -> Hashable:
    """The key of a pipeline: its kind, and what its first command works on."""
    if not stack:
        return key(word)
    first = stack[0]
    parts = first[0] if isinstance(first, tuple) else first.args  # redis-py keeps (args, options)
    first_key = command_key(*parts).partition(" ")[2]
    return key(word, first_key) if first_key else key(word)


def _word(command: object) -> str:
    if isinstance(command, str):
        return command.upper()
    return command.decode("ascii", "backslashreplace").upper() if isinstance(command, bytes) else str(command).upper()


def _text(name: object) -> str:
    """The beginning of a key that is no text; "" for what is no key."""
    if isinstance(name, list | tuple) and name:
        name = name[0]
    if isinstance(name, bytes | bytearray | memoryview):
        # Cut first: only the beginning is wanted, and a long value may stand here.
        return bytes(name[:PREFIX_MAX]).decode("utf-8", "backslashreplace")
    return name if isinstance(name, str) else ""


# ------------------------------------------------------------------------------------------- deadlines of sync calls


def _hurry_connections(pool: Any) -> None:
    """Have a sync pool open connections that wait no longer than the deadline of the call they serve."""
    base = pool.connection_class
    if not issubclass(base, _Hurried):
        pool.connection_class = type(base.__name__, (_Hurried, base), {"__module__": base.__module__})


def _left_s() -> float:
    """Seconds to the deadline; a passed one leaves a millisecond, so that redis-py itself cleans up after it."""
    until = context.deadline.get()
    return inf if until == inf else max(until - time.perf_counter(), 0.001)


class _Hurried:
    """Goes before a connection class of redis-py: socket timeouts never reach past the deadline in the context."""

    socket_timeout: float | None
    socket_connect_timeout: float | None

    def send_packed_command(self, *args: Any, **options: Any) -> Any:
        self._hurry()
        return super().send_packed_command(*args, **options)  # type: ignore[misc]  # stands before a connection class

    def read_response(self, *args: Any, **options: Any) -> Any:
        self._hurry()
        return super().read_response(*args, **options)  # type: ignore[misc]  # the same

    def _connect(self) -> Any:
        kept = self.socket_connect_timeout
        self.socket_connect_timeout = _nearer(kept)
        try:
            return super()._connect()  # type: ignore[misc]  # the same
        finally:
            self.socket_connect_timeout = kept

    def _hurry(self) -> None:
        # Always, since what stands there may be a shorter one, from a call with a deadline.
        socket = getattr(self, "_sock", None)
        if socket is not None:
            socket.settimeout(_nearer(self.socket_timeout))


def _nearer(seconds: float | None) -> float | None:
    left_s = _left_s()
    if left_s == inf:
        return seconds
    return left_s if seconds is None else min(seconds, left_s)
