"""A line names a log, its secrets stay out of sight, and what cannot be is said before anything is opened."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from budao.adapters.logs import open_log
from budao.adapters.nats import NatsLog
from budao.aio import MemoryLog, RemoteLog
from budao.model import BadSettings


def opened(url: str, environment: dict[str, str] | None = None, **settings: Any) -> Any:
    async def open_it() -> Any:
        return open_log(url, environment=environment or {}, **settings)

    return asyncio.run(open_it())


def test_each_kind_of_log_is_opened() -> None:
    assert isinstance(opened("memory:"), MemoryLog)
    remote = opened("budao://127.0.0.1,[::1]:7431", token="a token that is long enough")
    assert isinstance(remote, RemoteLog)
    assert remote.name == "budao://127.0.0.1:7430,::1:7431"
    log = opened("nats://localhost,127.0.0.2:4300?stream=S&prefix=a.b&replicas=3&bytes_max=2000000")
    assert isinstance(log, NatsLog)
    assert log.name == "nats://localhost:4222,127.0.0.2:4300/S"
    assert (log.policy.prefix, log.policy.replicas, log.policy.bytes_max) == ("a.b", 3, 2_000_000)


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("nats://localhost", {}, (None, None, None)),
        ("nats://me:pass%40word@localhost", {}, ("me", "pass@word", None)),
        ("nats://t0ken@localhost", {}, (None, None, "t0ken")),
        ("nats://localhost", {"BUDAO_LOG_TOKEN": "t"}, (None, None, "t")),
        ("nats://localhost", {"BUDAO_LOG_USERNAME": "me", "BUDAO_LOG_PASSWORD": "pw"}, ("me", "pw", None)),
        ("nats://me@localhost", {"BUDAO_LOG_PASSWORD": "pw"}, ("me", "pw", None)),
    ],
)
def test_who_we_are_is_in_the_line_or_around(
    url: str, environment: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    where = opened(url, environment).link.where
    assert (where.username, where.password, where.token) == expected
    for secret in filter(None, (where.password, where.token)):
        assert f"'{secret}'" not in repr(where)


def test_credentials_are_a_file() -> None:
    assert opened("nats://localhost?credentials=me.creds").link.where.credentials == Path("me.creds")
    assert opened("nats://localhost", {"BUDAO_LOG_CREDENTIALS": "x"}).link.where.credentials == Path("x")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is no log"),
        ("redis://localhost", "is no log"),
        ("memory:x", "nothing follows"),
        ("nats:localhost", "is followed by //"),
        ("nats://", "no host:port"),
        ("nats://a:0", "from 1 to 65535"),
        ("nats://a b", "no host:port"),
        ("nats://::1", "in brackets"),
        ("nats://localhost/x", "no path"),
        ("nats://localhost#x", "fragment"),
        ("nats://:pw@localhost", "before the @"),
        ("nats://me:se?cr@localhost", "stands behind"),
        ("nats://localhost?colour=red", "not one of"),
        ("nats://localhost?authority=x", "TLS is spoken"),
        ("nats://localhost?replicas=many", "is a number"),
        ("nats://localhost?replicas=9", "replicas"),
        ("nats://localhost?stream=a.b", "letters, digits"),
        ("nats://localhost?prefix=a..b", "letters, digits"),
        ("nats://localhost?stream=", "empty"),
        ("nats://me:secret@far.example", "in the clear"),
        ("budao://me@localhost", "takes a token"),
        ("tls://localhost?authority=nowhere.pem", "nowhere.pem"),
        ("nats://" + ",".join(["a"] * 65), "the bound is 64"),
    ],
)
def test_a_line_that_cannot_be_is_refused_without_showing_a_secret(url: str, said: str) -> None:
    with pytest.raises(BadSettings, match=said) as refused:
        opened(url)
    assert "se?cr" not in str(refused.value)
    assert "secret" not in str(refused.value)
