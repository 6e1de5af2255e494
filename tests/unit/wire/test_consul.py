"""Consul's health entries into instances."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.discovery import Address
from budao.model import RemoteWireError, Stage
from budao.wire import next_index, parse_health, parse_index


def entry(name: str = "a", *statuses: str, node: str = "n1", **service: Any) -> dict[str, Any]:
    return {
        "Node": {"Node": node, "Address": "10.0.0.9", "Datacenter": "dc1"},
        "Service": {"ID": name, "Port": 80, "Address": "", **service},
        "Checks": [{"Status": status} for status in statuses],
    }


def read(*entries: dict[str, Any]) -> Any:
    instances, skipped = parse_health(json.dumps(entries).encode(), "shop")
    assert skipped == ()
    return instances


def test_a_service_without_an_address_is_at_its_node() -> None:
    (instance,) = read(entry())
    assert dict(instance.addresses) == {"main": Address("10.0.0.9", 80)}


@pytest.mark.parametrize(
    ("statuses", "stage", "weight"),
    [
        ((), Stage.READY, 3.0),
        (("passing", "passing"), Stage.READY, 3.0),
        (("passing", "warning"), Stage.READY, 1.0),
        (("warning", "critical"), Stage.STARTING, 1.0),
        (("maintenance",), Stage.DRAINING, 3.0),
    ],
)
def test_checks_say_stage_and_weight(statuses: tuple[str, ...], stage: Stage, weight: float) -> None:
    (instance,) = read(entry("a", *statuses, Weights={"Passing": 3, "Warning": 1}))
    assert (instance.stage, instance.weight) == (stage, weight)


def test_equal_ids_on_two_nodes_are_two_instances() -> None:
    assert [each.id for each in read(entry("a"), entry("a", node="n2"))] == ["a", "a@n2"]


def test_one_odd_entry_is_left_out_and_said() -> None:
    instances, skipped = parse_health(json.dumps([{"Node": {}}, entry()]).encode(), "shop")
    assert [each.id for each in instances] == ["a"]
    assert len(skipped) == 1


@pytest.mark.parametrize("raw", [b"", b"{}", b"null", b"[" * 10_000])
def test_what_is_no_list_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteWireError):
        parse_health(raw, "shop")


@given(st.lists(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(
    st.sampled_from(["Node", "Service", "ID", "Port", "Address", "Checks", "Weights", "Meta"]), inner, max_size=4)
)))  # fmt: skip
def test_json_of_any_shape_is_read_or_left_out(found: list[Any]) -> None:
    instances, skipped = parse_health(json.dumps(found).encode(), "shop")
    assert len(instances) + len(skipped) == len(found)


def test_an_index_that_went_back_starts_anew_and_one_that_is_none_is_not_waited_on() -> None:
    assert next_index(9, 12) == 12
    assert next_index(9, 3) == 0
    assert parse_index("17") == 17
    assert parse_index(None) == parse_index("-1") == parse_index("x") == parse_index("9" * 40) == 0


@pytest.mark.parametrize(
    "odd",
    [
        entry("b", Weights={"Passing": 10**400}),
        entry("a" * 255, node="n1"),  # its name would be too long with that of its node
        entry("b", Meta={"deep": json.loads("[" * 900 + "]" * 900)}) | {"Node": None},
    ],
)
def test_an_entry_that_no_instance_can_be_made_of_takes_no_other_with_it(odd: dict[str, Any]) -> None:
    instances, skipped = parse_health(json.dumps([entry("a" * 255), entry("c"), odd]).encode(), "shop")
    assert [each.id for each in instances] == ["a" * 255, "c"]
    assert len(skipped) == 1
