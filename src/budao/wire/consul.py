"""Consul's health API: the instances of a service, and the index that a blocking query waits on.

Source:  Consul HTTP API, "Health: list nodes for service" and "Blocking queries".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from budao.discovery import Address, Instance
from budao.model import BadSettings, RemoteWireError, Stage

INDEX_HEADER: Final = "X-Consul-Index"
BODY_BYTES_MAX: Final = 33_554_432
ODD: Final = (
    BadSettings, RemoteWireError, KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError,
)  # fmt: skip
"""What an entry of another shape than Consul's may raise where it is read."""


def parse_index(text: str | None) -> int:
    """The index of an answer; 0 for one that must not be waited on.

    Source:  "Blocking queries": reset the index if it goes backwards; sanity check that it is greater than 0.
    """
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else 0


def next_index(asked: int, answered: int) -> int:
    """What to wait on next. An index that went back means that the server lost its state: begin anew with 0."""
    return 0 if answered < asked else answered


def parse_health(raw: bytes, service: str) -> tuple[tuple[Instance, ...], tuple[str, ...]]:
    """The instances of a service, with those whose checks fail as starting; and what was skipped, for a log.

    Raises:  RemoteWireError if it is no list of services.
    """
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise RemoteWireError("Consul's answer is no JSON") from None
    if not isinstance(found, list):
        raise RemoteWireError("Consul's answer is no array")
    instances: dict[str, Instance] = {}
    skipped: list[str] = []
    for index, each in enumerate(found):
        try:
            instance = _instance(each, service)
            if instance.id in instances:
                # Two nodes may use the same service id; the node then tells them apart.
                instance = _renamed(instance, f"{instance.id}@{instance.metadata['node']}")
        except ODD as bad:
            skipped.append(f"service {service!r}, entry {index}: {bad!s:.200}")
            continue
        instances[instance.id] = instance
    return tuple(instances[key] for key in sorted(instances)), tuple(skipped)


def _instance(found: Mapping[str, Any], service: str) -> Instance:
    told, node = found["Service"], found["Node"]
    weights = told.get("Weights") or {}
    checks = [check.get("Status") for check in found.get("Checks") or []]
    is_warned = "warning" in checks
    weight = weights.get("Warning" if is_warned else "Passing", 1)
    locality = told.get("Locality") or node.get("Locality") or {}
    meta = {str(key): str(value) for key, value in (told.get("Meta") or {}).items()}
    return Instance(
        service=service,
        id=told["ID"],
        # "Service.Address is empty where the node's address is to be used."
        addresses={meta.get("protocol") or "main": Address(told.get("Address") or node["Address"], told["Port"])},
        zone=str(locality.get("Zone") or meta.get("zone") or node.get("Datacenter") or ""),
        weight=float(weight),
        version=meta.get("version", ""),
        metadata={**meta, "node": str(node.get("Node", ""))},
        stage=_stage(checks, meta),
    )


def _renamed(instance: Instance, name: str) -> Instance:
    return Instance(
        service=instance.service,
        id=name,
        addresses=instance.addresses,
        zone=instance.zone,
        weight=instance.weight,
        version=instance.version,
        metadata=instance.metadata,
        stage=instance.stage,
    )


def _stage(checks: list[Any], meta: Mapping[str, str]) -> Stage:
    if meta.get("stage") == Stage.DRAINING.value or "maintenance" in checks:
        return Stage.DRAINING
    return Stage.STARTING if "critical" in checks else Stage.READY
