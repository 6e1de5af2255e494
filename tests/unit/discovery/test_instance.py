from __future__ import annotations

from dataclasses import replace

import pytest

from budao.discovery import Address, Instance
from budao.model import BadSettings, Stage

PLAIN = Instance(service="s", id="a", addresses={"http": Address("h", 80)})


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(BadSettings) as caught:
        Instance(service="", id="a\n", addresses={"http": Address("", 0)}, weight=-1.0, capacity=-1)
    assert [path for path, _ in caught.value.problems] == [
        "instance.service",
        "instance.id",
        "instance.addresses.http",
        "instance.addresses.http.port",
        "instance.weight",
        "instance.capacity",
    ]


@pytest.mark.parametrize("host", ["a\0b", "h" * 256, "\ud800"])
def test_a_host_that_no_resolver_takes_is_refused(host: str) -> None:
    with pytest.raises(BadSettings, match=r"is not text|more than|do not print"):
        replace(PLAIN, addresses={"http": Address(host, 80)})


@pytest.mark.parametrize("name", ["service", "id", "zone", "version", "incarnation"])
def test_names_are_bounded_in_bytes_and_have_utf_8(name: str) -> None:
    replace(PLAIN, **{name: "é" * 127})  # type: ignore[arg-type]
    for wrong in ("é" * 128, "\ud800", 7):
        with pytest.raises(BadSettings, match=f"instance.{name}"):
            replace(PLAIN, **{name: wrong})  # type: ignore[arg-type]


def test_metadata_and_addresses_have_bounds() -> None:
    with pytest.raises(BadSettings, match="more than 16384"):
        replace(PLAIN, metadata={"k": "v" * 16_384})
    with pytest.raises(BadSettings, match="from 1 to 16 are needed"):
        replace(PLAIN, addresses={})
    with pytest.raises(BadSettings, match="is not text with a text value"):
        replace(PLAIN, metadata={"k": "\udfff"})


def test_what_it_was_built_from_may_change_and_it_does_not() -> None:
    addresses, metadata = {"http": Address("h", 80)}, {"k": "v"}
    made = Instance(service="s", id="a", addresses=addresses, metadata=metadata)
    addresses.clear()
    metadata["k"] = "w"
    assert made == replace(PLAIN, metadata={"k": "v"})
    assert hash(made) == hash(replace(made, stage=Stage.READY))


def test_an_endpoint_says_what_the_instance_says() -> None:
    endpoint = replace(PLAIN, zone="z", weight=2.0, capacity=9, stage=Stage.DRAINING).endpoint(is_doubted=True)
    assert endpoint is not None
    assert (endpoint.id, endpoint.authority, endpoint.zone) == ("a", "h:80", "z")
    assert (endpoint.weight, endpoint.capacity, endpoint.stage, endpoint.is_doubted) == (2.0, 9, Stage.DRAINING, True)
    assert PLAIN.endpoint("grpc") is None
