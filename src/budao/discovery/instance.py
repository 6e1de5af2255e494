"""A running copy of a service, as it registers itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeGuard

from budao.model import Checks, Endpoint, Stage

NAME_BYTES_MAX = 255
"""Of a service, an id, a zone and a version, as UTF-8."""
METADATA_BYTES_MAX = 16_384
"""Of all metadata together."""
ADDRESSES_MAX = 16


@dataclass(frozen=True, slots=True)
class Address:
    """Where an instance listens. IPv6 without brackets."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A running copy of a service.

    Units:   `weight` is relative to the other instances, 1.0 by default; `capacity` in calls at once, 0 for unknown.
    Raises:  BadSettings with every problem at once.
    """

    service: str
    id: str
    addresses: Mapping[str, Address]
    """By the protocol spoken there: "http", "grpc", "tcp", or a word of the service's own. The first is the main one."""
    zone: str = ""
    weight: float = 1.0
    version: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    stage: Stage = Stage.READY
    capacity: int = 0
    incarnation: str = ""
    """One life of a process: tells a restart under the same id from a second process that took the id by mistake."""

    def __post_init__(self) -> None:
        check = Checks("instance")
        for name in ("service", "id"):
            check.need(bool(getattr(self, name)), name, "must not be empty")
        for name in ("service", "id", "zone", "version", "incarnation"):
            _name(check, name, getattr(self, name))
        check.need(0 < len(self.addresses) <= ADDRESSES_MAX, "addresses", f"from 1 to {ADDRESSES_MAX} are needed")
        for protocol, address in self.addresses.items():
            _name(check, "addresses", protocol)
            check.need(bool(address.host), f"addresses.{protocol}", "the host is empty")
            _name(check, f"addresses.{protocol}.host", address.host)
            check.count(f"addresses.{protocol}.port", address.port, 1, 65_535)
        check.number("weight", self.weight, 0.0, 1_000_000.0)
        check.count("capacity", self.capacity, 0)
        size = 0
        for key, value in self.metadata.items():
            if _is_text(key) and _is_text(value):
                size += len(key.encode()) + len(value.encode())
            else:
                check.need(False, "metadata", f"{key!r} is not text with a text value")
        check.need(size <= METADATA_BYTES_MAX, "metadata", f"{size} bytes are more than {METADATA_BYTES_MAX}")
        check.done()
        # Whoever built it may still hold the dictionaries.
        object.__setattr__(self, "addresses", MappingProxyType(dict(self.addresses)))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    def __hash__(self) -> int:
        return hash((self.service, self.id, self.incarnation, self.stage))

    def endpoint(self, protocol: str = "", *, is_doubted: bool = False) -> Endpoint | None:
        """Where it takes calls of that protocol, by default its first; None if it speaks no such thing."""
        address = self.addresses.get(protocol or next(iter(self.addresses)))
        if address is None:
            return None
        return Endpoint(
            id=self.id,
            host=address.host,
            port=address.port,
            zone=self.zone,
            weight=self.weight,
            capacity=self.capacity,
            stage=self.stage,
            is_doubted=is_doubted,
        )


def _is_text(value: object) -> TypeGuard[str]:
    # A lone surrogate has no UTF-8, and would fail much later, in a codec.
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value))


def _name(check: Checks, name: str, value: object) -> None:
    if not _is_text(value):
        check.need(False, name, f"{value!r} is not text")
        return
    check.need(len(value.encode()) <= NAME_BYTES_MAX, name, f"more than {NAME_BYTES_MAX} bytes")
    check.need(value.isprintable(), name, f"{value!r} has characters that do not print")
