"""EndpointSlices of the Kubernetes API: lists and watch events into instances.

Source:  Kubernetes API reference, discovery.k8s.io/v1 EndpointSlice; "Kubernetes API Concepts": efficient detection of
         changes, watch bookmarks, 410 Gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from budao.discovery import Address, Instance
from budao.model import BadSettings, RemoteWireError, Stage

SERVICE_LABEL: Final = "kubernetes.io/service-name"
LINE_BYTES_MAX: Final = 4_194_304
"""Of one watch event. A slice has at most 1,000 endpoints, well below this."""
GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Slice:
    """One EndpointSlice: part of the instances of one service."""

    name: str
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class SliceList:
    """A page of a list."""

    version: str
    """Where a watch may begin. Opaque: only the server may compare two of them."""
    slices: tuple[Slice, ...]
    more: str = ""
    """What to ask for the next page with; "" on the last."""
    skipped: tuple[str, ...] = ()
    """What was no proper endpoint, said for a log."""


@dataclass(frozen=True, slots=True)
class SlicePut:
    """Watch event: a slice was added or modified."""

    version: str
    slice: Slice
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SliceDeleted:
    """Watch event."""

    version: str
    name: str


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Watch event: nothing up to this version is still to come."""

    version: str


@dataclass(frozen=True, slots=True)
class WatchEnded:
    """Watch event: the server gave up on the watch; with code 410 the list must be read again."""

    code: int
    message: str


SliceEvent = SlicePut | SliceDeleted | Bookmark | WatchEnded


def parse_slice_list(raw: bytes, service: str) -> SliceList:
    """The answer to a list.

    Raises:  RemoteWireError if it is no list of slices.
    """
    found = _object(raw)
    metadata = _table(found, "metadata")
    skipped: list[str] = []
    slices = tuple(_slice(_mapping(item, "an item"), service, skipped) for item in _array(found, "items"))
    return SliceList(_text(metadata, "resourceVersion"), slices, _words(metadata.get("continue")), tuple(skipped))


def parse_slice_event(line: bytes, service: str) -> SliceEvent:
    """One line of a watch.

    Raises:  RemoteWireError if it is no event.
    """
    found = _object(line)
    kind, thing = _words(found.get("type")), _table(found, "object")
    if kind == "ERROR":
        code = thing.get("code")
        return WatchEnded(code if isinstance(code, int) else 0, _words(thing.get("message"))[:200])
    metadata = _table(thing, "metadata")
    version = _text(metadata, "resourceVersion")
    if kind == "BOOKMARK":
        return Bookmark(version)
    if kind == "DELETED":
        return SliceDeleted(version, _text(metadata, "name"))
    if kind in {"ADDED", "MODIFIED"}:
        skipped: list[str] = []
        return SlicePut(version, _slice(thing, service, skipped), tuple(skipped))
    raise RemoteWireError(f"a watch event is of the type {kind[:40]!r}")


def joined(slices: Sequence[Slice]) -> dict[str, Instance]:
    """The instances of all slices, by id.

    A pod of two address families stands in two slices: the first by name counts, and protocols that only the other has
    are added.
    """
    found: dict[str, Instance] = {}
    for each in sorted(slices, key=lambda piece: piece.name):
        for instance in each.instances:
            other = found.get(instance.id)
            found[instance.id] = instance if other is None else _both(other, instance)
    return found


def _both(one: Instance, other: Instance) -> Instance:
    return Instance(
        service=one.service,
        id=one.id,
        addresses={**other.addresses, **one.addresses},
        zone=one.zone or other.zone,
        metadata=one.metadata,
        stage=one.stage,
    )


def _slice(thing: Mapping[str, Any], service: str, skipped: list[str]) -> Slice:
    name = _text(_table(thing, "metadata"), "name")
    ports = [port for port in _array(thing, "ports") if isinstance(port, dict)]
    return Slice(name, tuple(_instances(name, thing, ports, service, skipped)))


def _instances(
    name: str, thing: Mapping[str, Any], ports: Sequence[Mapping[str, Any]], service: str, skipped: list[str]
) -> Iterator[Instance]:
    for index, endpoint in enumerate(_array(thing, "endpoints")):
        try:
            yield _instance(_mapping(endpoint, "an endpoint"), ports, service)
        except (BadSettings, RemoteWireError) as bad:
            # One odd endpoint must not take its whole service away.
            skipped.append(f"EndpointSlice {name}, endpoint {index}: {bad}")


def _instance(endpoint: Mapping[str, Any], ports: Sequence[Mapping[str, Any]], service: str) -> Instance:
    addresses = _array(endpoint, "addresses")
    if not addresses or not isinstance(addresses[0], str):
        raise RemoteWireError("it has no address")
    host = addresses[0]  # "consumers may safely assume that they are fungible and use just the first"
    target = _mapping(endpoint.get("targetRef") or {}, "'targetRef'")
    node = _words(endpoint.get("nodeName"))
    found = {
        _words(port.get("name")) or _words(port.get("appProtocol")) or "main": Address(host, port["port"])
        for port in ports
        if isinstance(port.get("port"), int)
    }
    return Instance(
        service=service,
        id=_words(target.get("name")) or host,
        addresses=found,
        zone=_words(endpoint.get("zone")),
        metadata={"node": node} if node else {},
        stage=_stage(_mapping(endpoint.get("conditions") or {}, "'conditions'")),
    )


def _stage(conditions: Mapping[str, Any]) -> Stage:
    """A missing condition is "unknown": ready is then to be taken as true, terminating as false."""
    if conditions.get("terminating"):
        return Stage.DRAINING
    return Stage.STARTING if conditions.get("ready") is False else Stage.READY


def _object(raw: bytes) -> Mapping[str, Any]:
    if len(raw) > LINE_BYTES_MAX * 16:
        raise RemoteWireError(f"{len(raw)} bytes of JSON are more than anybody should read")
    try:
        return _mapping(json.loads(raw), "the answer")
    except (ValueError, RecursionError):
        raise RemoteWireError("the answer is no JSON") from None


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RemoteWireError(f"{what} is no JSON object")
    return value


def _table(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _mapping(found.get(name), f"{name!r}")


def _array(found: Mapping[str, Any], name: str) -> list[Any]:
    value = found.get(name) or []
    if not isinstance(value, list):
        raise RemoteWireError(f"{name!r} is no array")
    return value


def _words(value: object) -> str:
    """A text that may be missing; anything else counts as missing."""
    return value if isinstance(value, str) else ""


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise RemoteWireError(f"{name!r} is no text")
    return value
