from __future__ import annotations

import pytest

from budao.adapters._whereabouts import advertised_host
from budao.model import BadSettings


def test_what_was_said_counts_first() -> None:
    assert advertised_host("shop.example", bound="10.0.0.1", environ={"POD_IP": "10.0.0.2"}) == "shop.example"


def test_then_the_address_of_the_pod_and_then_the_one_listened_on() -> None:
    assert advertised_host(bound="10.0.0.1", environ={"POD_IP": "10.0.0.2"}) == "10.0.0.2"
    assert advertised_host(bound="10.0.0.1", environ={}) == "10.0.0.1"


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", ""])
@pytest.mark.parametrize(
    "store", ["budao://127.0.0.1:7300", "etcd://me:secret@127.0.0.1:2379,10.0.0.9:2379", "budao://127.0.0.1"]
)
def test_a_listener_on_any_address_is_reached_from_where_the_store_is(bound: str, store: str) -> None:
    assert advertised_host(bound=bound, store=store, environ={}) == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0:0:0:0:0:0:0:0"])
def test_an_address_that_means_any_is_never_registered(host: str) -> None:
    with pytest.raises(BadSettings, match="means any address"):
        advertised_host(host, environ={})


@pytest.mark.parametrize(
    "store", ["", "memory:", "in process", "budao://", "budao://[::", "budao://no-such-host.invalid:1"]
)
def test_where_nothing_says_it_that_is_said(store: str) -> None:
    with pytest.raises(BadSettings, match="give host="):
        advertised_host(bound="0.0.0.0", store=store, environ={"POD_IP": ""})


def test_a_unix_socket_is_not_reached_from_elsewhere() -> None:
    with pytest.raises(BadSettings, match="Unix socket"):
        advertised_host(bound="/run/shop.sock", environ={})
