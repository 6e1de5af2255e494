"""EndpointSlices into instances, and whatever else stands there into a clear error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.discovery import Address
from budao.model import RemoteWireError, Stage
from budao.wire import Bookmark, SliceDeleted, SlicePut, WatchEnded, joined, parse_slice_event, parse_slice_list


def slice_of(*endpoints: dict[str, Any], name: str = "shop-1", **more: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80}, {"name": "grpc", "port": 90}]
    return {"metadata": {"name": name, "resourceVersion": "7"}, "ports": ports, "endpoints": list(endpoints), **more}


def listed(*items: dict[str, Any]) -> bytes:
    return json.dumps({"metadata": {"resourceVersion": "9"}, "items": list(items)}).encode()


def event(kind: str, thing: object) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode()


def test_an_endpoint_is_an_instance_with_an_address_for_each_port() -> None:
    page = parse_slice_list(
        listed(slice_of({"addresses": ["10.0.0.1"], "targetRef": {"name": "pod-a"}, "zone": "z", "nodeName": "n"})),
        "shop",
    )
    (instance,) = page.slices[0].instances
    assert (instance.service, instance.id, instance.zone) == ("shop", "pod-a", "z")
    assert dict(instance.addresses) == {"http": Address("10.0.0.1", 80), "grpc": Address("10.0.0.1", 90)}
    assert page.version == "9"


@pytest.mark.parametrize(
    ("conditions", "stage"),
    [
        ({}, Stage.READY),
        ({"ready": None}, Stage.READY),
        ({"ready": True}, Stage.READY),
        ({"ready": False}, Stage.STARTING),
        ({"ready": False, "serving": True, "terminating": True}, Stage.DRAINING),
        ({"ready": True, "terminating": True}, Stage.DRAINING),  # publishNotReadyAddresses
    ],
)
def test_conditions_say_the_stage_and_an_unknown_one_is_taken_kindly(conditions: dict[str, Any], stage: Stage) -> None:
    page = parse_slice_list(listed(slice_of({"addresses": ["10.0.0.1"], "conditions": conditions})), "shop")
    assert page.slices[0].instances[0].stage is stage


def test_a_pod_of_two_families_is_one_instance() -> None:
    pod = {"name": "pod-a"}
    page = parse_slice_list(
        listed(
            slice_of({"addresses": ["10.0.0.1"], "targetRef": pod}, name="a"),
            slice_of({"addresses": ["fd00::1"], "targetRef": pod}, name="b", ports=[{"name": "admin", "port": 1}]),
        ),
        "shop",
    )
    found = joined(page.slices)
    assert dict(found["pod-a"].addresses) == {
        "admin": Address("fd00::1", 1),
        "http": Address("10.0.0.1", 80),
        "grpc": Address("10.0.0.1", 90),
    }


def test_one_odd_endpoint_is_left_out_and_said_and_takes_nobody_with_it() -> None:
    page = parse_slice_list(listed(slice_of({"addresses": []}, {"addresses": ["10.0.0.1"]})), "shop")
    assert [instance.id for instance in page.slices[0].instances] == ["10.0.0.1"]
    assert page.skipped == ("EndpointSlice shop-1, endpoint 0: it has no address",)


def test_every_kind_of_event_is_read() -> None:
    assert parse_slice_event(event("BOOKMARK", {"metadata": {"resourceVersion": "12"}}), "shop") == Bookmark("12")
    assert parse_slice_event(event("DELETED", slice_of()), "shop") == SliceDeleted("7", "shop-1")
    added = parse_slice_event(event("ADDED", slice_of({"addresses": ["10.0.0.1"]})), "shop")
    assert isinstance(added, SlicePut)
    assert len(added.slice.instances) == 1
    assert parse_slice_event(event("ERROR", {"code": 410, "message": "too old"}), "shop") == WatchEnded(410, "too old")


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b"nonsense", event("ADDED", None), event("ADDED", {}), event("GROWN", slice_of())]
)
def test_what_is_no_event_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(RemoteWireError):
        parse_slice_event(line, "shop")


def anything() -> st.SearchStrategy[Any]:
    words = st.sampled_from(["metadata", "items", "endpoints", "addresses", "ports", "port", "name", "resourceVersion"])
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5),
        max_leaves=20,
    )


def said(read: Any, raw: bytes) -> str:
    try:
        read(raw, "shop")
    except RemoteWireError as refused:
        return str(refused)
    return "read"


@given(anything(), anything(), st.dictionaries(st.sampled_from(["addresses", "conditions", "targetRef"]), anything()))
def test_json_of_any_shape_is_read_or_refused(found: Any, ports: Any, endpoint: Any) -> None:
    odd = slice_of(endpoint, {"addresses": ["10.0.0.1"], **endpoint}) | {"ports": ports}
    assert said(parse_slice_list, json.dumps(found).encode())
    assert said(parse_slice_list, listed(odd))
    assert said(parse_slice_event, event("ADDED", odd))
    assert said(parse_slice_event, event("ADDED", slice_of() | {"endpoints": found}))


NESTED = json.loads("[" * 900 + "]" * 900)


@pytest.mark.parametrize("kind", [[], {}, 7, NESTED])
def test_an_event_whose_type_is_no_text_is_refused(kind: Any) -> None:
    with pytest.raises(RemoteWireError, match="a watch event is of the type"):
        parse_slice_event(event(kind, slice_of()), "shop")


def test_a_name_that_is_no_text_counts_as_missing() -> None:
    odd = {"addresses": ["10.0.0.1"], "targetRef": {"name": NESTED}, "zone": 7, "nodeName": [1]}
    put = parse_slice_event(event("ADDED", slice_of(odd)), "shop")
    assert isinstance(put, SlicePut)
    (instance,) = put.slice.instances
    assert (instance.id, instance.zone, dict(instance.metadata)) == ("10.0.0.1", "", {})
