from __future__ import annotations

import asyncio
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.adapters.stores import SCHEMES, TlsFiles, _parse, open_store
from budao.aio import MemoryStore
from budao.model import BadSettings


def name_of(url: str, **more: str) -> str:
    """The name of the store that was opened."""

    async def story() -> str:
        store = open_store(url, environment=more)
        name = f"{store.name} {store!r}"
        await store.aclose()
        return name

    return asyncio.run(story())


def problem_of(url: str, *, tls: TlsFiles | None = None, **around: str) -> str:
    with pytest.raises(BadSettings) as caught:
        open_store(url, tls=tls, environment=around)
    return str(caught.value)


def test_a_store_in_memory_needs_nothing() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    assert isinstance(open_store("memory://"), MemoryStore)


def test_etcd_is_named_by_its_endpoints_and_has_a_usual_port() -> None:
    name = name_of("etcd://a.example,b.example:2380,[::1]:9,[::1]/")
    assert name.startswith("etcd a.example:2379,b.example:2380,[::1]:9,[::1]:2379 ")


def test_a_budao_store_is_named_by_its_servers() -> None:
    name = name_of("budao://127.0.0.1:7420,[::1]:7421", BUDAO_STORE_TOKEN="sesame sesame sesame")
    assert "127.0.0.1:7420" in name
    assert "sesame" not in name
    assert "in the clear" in problem_of("budao://a.example:7420", BUDAO_STORE_TOKEN="sesame sesame sesame")


def test_a_password_in_the_line_is_taken_and_never_shown() -> None:
    name = name_of("etcds://root:s%40cret,@a:1")
    assert "cret" not in name
    assert "root" not in name


def test_a_password_from_around_goes_with_the_name_in_the_line() -> None:
    assert name_of("etcd://root@[::1]:1", BUDAO_STORE_PASSWORD="sesame").startswith("etcd [::1]:1")
    assert "needs a password" in problem_of("etcd://root@a:1")
    with pytest.raises(BadSettings, match="needs a user name"):
        open_store("etcd://a:1", password="sesame", environment={})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "this line begins otherwise"),
        ("localhost:2379", "this line begins otherwise"),
        ("root:sesame@etcd", "this line begins otherwise"),
        ("http://a:1", "this line begins otherwise"),
        ("memory:sesame", "nothing follows"),
        ("etcd:a:1", "//host:port"),
        ("etcd://", "no host:port"),
        ("etcd://a,,b", "no host:port"),
        ("etcd://a b:1", "no host:port"),
        ("etcd://a:0", "from 1 to 65535"),
        ("etcd://a:65536", "from 1 to 65535"),
        ("etcd://a:x", "from 1 to 65535"),
        ("etcd://a:", "from 1 to 65535"),
        ("budao://a", "from 1 to 65535"),
        ("etcd://::1:2379", "in brackets"),
        ("etcd://a:1/prefix", "no path"),
        ("etcd://root:se/same@a:1#b", "fragment"),
        ("etcd://:sesame@a:1", "user name comes before"),
        ("etcd://a:1?authority=x", 'write "etcds:"'),
        ("etcds://a:1?trust=all", "'trust' is not one of"),
        ("etcds://a:1?key=", "key is empty"),
        ("etcds://a:1?key=%00", "key holds a character that does not print"),
        ("etcd://a:" + "1" * 5_000, "from 1 to 65535"),
        ("etcd://a\0b:1", "no host:port"),
        ("etcd://root:sesame?sesame@a:1", "write %3F in a password"),
        ("etcds://root:se@b:1?sesame@a:1", "write %3F in a password"),
        ("budao://root:sesame@a:1", "takes a token"),
        ("etcd://root:sesame@a:1", "in the clear"),
        ("etcd://" + ",".join(["a:1"] * 65), "the bound is 64"),
    ],
)
def test_a_line_that_cannot_be_understood_says_why_and_tells_no_secret(url: str, said: str) -> None:
    problem = problem_of(url)
    assert said in problem
    assert "sesame" not in problem
    assert "se/same" not in problem


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    missing, other = tmp_path / "missing.pem", tmp_path / "other.pem"
    other.write_text("nothing")
    assert f"store.tls.authority: {missing} cannot be read" in problem_of(f"etcds://a:1?authority={missing}")
    assert "PEM form" in problem_of("etcd://a:1", tls=TlsFiles(authority=other))


def test_a_certificate_and_its_key_come_together(tmp_path: Path) -> None:
    certificate = tmp_path / "me.pem"
    certificate.write_text("-----BEGIN CERTIFICATE-----")
    assert "come together" in problem_of(f"etcds://a:1?certificate={certificate}")


def test_a_context_of_the_ssl_module_is_not_for_etcd() -> None:
    with pytest.raises(BadSettings, match="TlsFiles"):
        open_store("etcds://a:1", tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), environment={})


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*(name for name in sys.modules if name.startswith("budao.adapters._etcd")), "budao.adapters.etcd"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert "pip install 'budao[etcd]'" in problem_of("etcd://a:1")


@given(st.text(max_size=40), st.sampled_from([*SCHEMES, ""]))
def test_any_text_is_a_store_or_a_problem(text: str, scheme: str) -> None:
    async def story() -> None:
        with suppress(BadSettings):
            await open_store(f"{scheme}://{text}" if scheme else text, environment={}).aclose()

    asyncio.run(story())


def test_a_line_that_was_understood_shows_no_password_either() -> None:
    assert "hunter2" not in repr(_parse("etcd://root:hunter2@127.0.0.1"))
