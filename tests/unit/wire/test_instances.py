from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.discovery import Address, Instance
from budao.model import LocalWireError, RemoteWireError, Stage, Wall
from budao.store import Span
from budao.wire import (
    Watcher,
    format_instance,
    format_watcher,
    instance_key,
    instances_span,
    parse_instance,
    parse_key,
    parse_watcher,
    watcher_key,
    watchers_span,
)

WORDS = st.text(min_size=1, max_size=30).filter(str.isprintable)
INSTANCES = st.builds(
    Instance,
    service=WORDS,
    id=WORDS,
    addresses=st.dictionaries(WORDS, st.builds(Address, WORDS, st.integers(1, 65_535)), min_size=1, max_size=16),
    zone=WORDS,
    weight=st.floats(0.0, 1e6),
    version=WORDS,
    metadata=st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")), max_size=5),
    stage=st.sampled_from(Stage),
    capacity=st.integers(0, 10_000_000),
    incarnation=WORDS,
)
PLAIN = Instance(service="orders", id="a", addresses={"http": Address("10.0.0.1", 80), "grpc": Address("::1", 81)})


@given(INSTANCES)
def test_an_instance_comes_back_as_it_was(instance: Instance) -> None:
    again = parse_instance(format_instance(instance))
    assert again == instance
    assert list(again.addresses) == list(instance.addresses), "the first address is the main one"


@given(WORDS, WORDS)
def test_a_key_says_service_and_id_again_whatever_their_characters(service: str, name: str) -> None:
    for key in (instance_key("budao", service, name), watcher_key("a/b", service, name)):
        assert parse_key(key) == (service, name)


@given(st.binary(max_size=200))
def test_garbage_is_a_remote_wire_error_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(RemoteWireError):
        parse_instance(raw)
    with pytest.raises(RemoteWireError):
        parse_watcher("w", raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(json.loads(format_instance(PLAIN)))), JSON)
def test_any_value_in_any_field_is_an_instance_or_an_error(name: str, value: object) -> None:
    said = json.loads(format_instance(PLAIN)) | {name: value}
    try:
        found = parse_instance(json.dumps(said).encode())
    except RemoteWireError:
        return
    assert isinstance(found, Instance)


@given(st.text(max_size=60))
def test_any_key_is_two_names_or_an_error(key: str) -> None:
    try:
        service, name = parse_key(key)
    except RemoteWireError:
        return
    assert service
    assert name


def edited(**fields: object) -> bytes:
    return json.dumps(json.loads(format_instance(PLAIN)) | fields).encode()


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "instance: it is not JSON"),
        (b"[1]", "instance: list is not an object"),
        (b"\xff", "instance: it is not UTF-8"),
        (b"[" * 100_000, "instance: nested too deeply"),
        (b" " * 200_000, "instance: 200000 bytes are more than 131072"),
        (b"{}", "instance.format: None is not 1, the format this version reads"),
        (edited(format=2), "instance.format: 2 is not 1"),
        (edited(format=True), "instance.format: True is not 1"),
        (edited(id=None), "instance.id is missing"),
        (edited(id=""), "instance.id: must not be empty"),
        (edited(id=7), "instance.id: 7 is not text"),
        (edited(id="a\nb"), "instance.id: 'a\\nb' has characters that do not print"),
        (edited(id="\ud800"), "instance.id: '\\ud800' is not text"),
        (edited(stage="dead"), "instance.stage: 'dead' is not one of starting, ready, draining"),
        (edited(weight=float("nan")), "instance: it is not JSON: NaN is not a number in JSON"),
        (edited(weight=10**400), "instance.weight is too large a number"),
        (edited(weight=-1), "instance.weight: -1.0 must be at least 0"),
        (edited(capacity=1.5), "instance.capacity: 1.5 is not a whole number"),
        (edited(addresses={}), "instance.addresses: from 1 to 16 are needed"),
        (edited(addresses={"http": 80}), "instance.addresses.'http': 80 is not an object"),
        (edited(addresses={"http": {"host": "h"}}), "instance.addresses.'http'.port is missing"),
        (edited(addresses={"http": {"host": "h", "port": 0}}), "instance.addresses.http.port: 0 must be from 1"),
        (edited(addresses={"http": {"host": "h\0", "port": 1}}), "instance.addresses.http.host: 'h\\x00' has char"),
        (edited(metadata={"a": 1}), "instance.metadata.'a': 1 is not text"),
        (edited(metadata={"a": "b" * 20_000}), "instance.metadata: 20001 bytes are more than 16384"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_path(raw: bytes, problem: str) -> None:
    with pytest.raises(RemoteWireError) as caught:
        parse_instance(raw)
    assert str(caught.value).startswith(problem)


def test_fields_of_a_newer_writer_are_ignored_and_missing_ones_have_their_defaults() -> None:
    said = {"format": 1, "service": "s", "id": "a", "addresses": {"tcp": {"host": "h", "port": 1, "x": 2}}, "new": [1]}
    found = parse_instance(json.dumps(said).encode())
    assert found == Instance(service="s", id="a", addresses={"tcp": Address("h", 1)})


def test_huge_metadata_within_its_bound_fits() -> None:
    instance = Instance(service="s", id="a", addresses={"t": Address("h", 1)}, metadata={"k": "\x01" * 16_383})
    assert parse_instance(format_instance(instance)) == instance


def test_the_span_of_one_service_leaves_others_that_begin_like_it_out() -> None:
    span = instances_span("budao", "a")
    assert instance_key("budao", "a", "x") in span
    assert instance_key("budao", "ab", "x") not in span
    assert instance_key("budao", "a/b", "x") not in span
    assert watcher_key("budao", "a", "x") not in span
    assert watcher_key("budao", "a", "x") in watchers_span("budao", "a")
    assert instance_key("budao", "ab", "x") in instances_span("budao")
    assert instances_span("/budao/") == Span.prefix("budao/instances/")


def test_names_with_a_slash_or_a_percent_sign_are_quoted_and_others_stay_readable() -> None:
    assert instance_key("budao", "a/b", "50%é 1") == "budao/instances/a%2Fb/50%25é 1"


@pytest.mark.parametrize("key", ["", "a", "a/b", "x//y", "x/y/", "x/a%2fb/c", "x/%41/c", "x/a%/c", "x/%ff/c"])
def test_a_key_we_would_not_write_is_not_read(key: str) -> None:
    with pytest.raises(RemoteWireError):
        parse_key(key)


def test_a_key_that_would_be_too_long_is_refused_before_it_is_sent() -> None:
    with pytest.raises(LocalWireError, match="1024 are allowed; shorten one of the two names"):
        instance_key("budao", "/" * 255, "/" * 255)


def test_a_watcher_comes_back_as_it_was() -> None:
    watcher = Watcher("w", 12, Wall(1_700_000_000.25))
    assert parse_watcher("w", format_watcher(watcher)) == watcher


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b'{"format":1,"revision":-1,"at":0}', "watcher.revision: -1 is below 0"),
        (b'{"format":1,"revision":1}', "watcher.at is missing"),
        (b'{"format":1,"revision":1,"at":1e999}', "watcher.at is too large a number"),
        (b'{"format":1,"revision":"1","at":1}', "watcher.revision: '1' is not a whole number"),
    ],
)
def test_what_is_wrong_with_a_watcher_is_said_with_its_path(raw: bytes, problem: str) -> None:
    with pytest.raises(RemoteWireError) as caught:
        parse_watcher("w", raw)
    assert str(caught.value).startswith(problem)
