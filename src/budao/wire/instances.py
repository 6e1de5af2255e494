"""Instances and watchers in a store: their keys, and their values as JSON.

A key is namespace, kind, service and name with "/" between them; inside a part "%", "/" and control characters are
percent-quoted, so that no name of one service begins like another's. A value carries the number of its format. Unknown
fields are ignored, so that a newer writer may say more; a newer format is an error, since it means something else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import quote, unquote

from budao.discovery import Address, Instance
from budao.model import BadSettings, LocalWireError, RemoteWireError, Stage, Wall
from budao.store import KEY_BYTES_MAX, Span

FORMAT: Final = 1
VALUE_BYTES_MAX: Final = 131_072
"""A longer value is not even parsed. Each part of an instance is bounded by far less."""

INSTANCES: Final = "instances"
WATCHERS: Final = "watchers"

STAGES: Final = {stage.value: stage for stage in Stage}


@dataclass(frozen=True, slots=True)
class Watcher:
    """Somebody who follows a service, and up to where it acts on what it has seen."""

    name: str
    revision: int
    at: Wall
    """When it said so, by its own clock."""


# ----------------------------------------------------------------------------------------------------------- keys


def instance_key(namespace: str, service: str, id: str) -> str:  # noqa: A002 - the word everybody uses
    """Where an instance stands.

    Raises:  LocalWireError if the names make it longer than a key may be.
    """
    return _key(namespace, INSTANCES, service, id)


def watcher_key(namespace: str, service: str, watcher: str) -> str:
    """Where a watcher of a service says what it acts on.

    Raises:  LocalWireError if the names make it longer than a key may be.
    """
    return _key(namespace, WATCHERS, service, watcher)


def instances_span(namespace: str, service: str = "") -> Span:
    """The instances of one service, or of all."""
    return Span.prefix("/".join(_parts(namespace, INSTANCES, service)))


def watchers_span(namespace: str, service: str = "") -> Span:
    """The watchers of one service, or of all."""
    return Span.prefix("/".join(_parts(namespace, WATCHERS, service)))


def parse_key(key: str) -> tuple[str, str]:
    """Service and name of the key of an instance or a watcher, whatever the namespace.

    Raises:  RemoteWireError for a key that does not end in two quoted parts.
    """
    parts = key.rsplit("/", 2)
    if len(parts) != 3 or not all(parts[1:]):
        raise RemoteWireError(f"key {_short(key)}: no service and name at its end")
    service, name = unquoted(parts[1]), unquoted(parts[2])
    return service, name


def quoted(part: str) -> str:
    """A name as part of a key."""
    # What prints differs from one version of Unicode to the next, and a key must not.
    return "".join(quote(each, safe="") if each in "%/\x7f" or each < " " else each for each in part)


def unquoted(part: str) -> str:
    """The name that part of a key stands for.

    Raises:  RemoteWireError if it was not made by `quoted`.
    """
    try:
        name = unquote(part, errors="strict")
    except UnicodeDecodeError as error:
        raise RemoteWireError(f"part {_short(part)} of a key: what is quoted is not UTF-8") from error
    # Two spellings of one name would be two instances under one id.
    if quoted(name) != part:
        raise RemoteWireError(f"part {_short(part)} of a key: it would be written {_short(quoted(name))}")
    return name


def _parts(namespace: str, kind: str, service: str) -> list[str]:
    parts = [namespace.strip("/"), kind]
    if service:
        parts.append(quoted(service))
    return [*parts, ""]


def _key(namespace: str, kind: str, service: str, name: str) -> str:
    key = "/".join([namespace.strip("/"), kind, quoted(service), quoted(name)])
    size = len(key.encode())
    if size > KEY_BYTES_MAX:
        raise LocalWireError(
            f"the key of {_short(name)} in service {_short(service)} would have {size} bytes, "
            f"{KEY_BYTES_MAX} are allowed; shorten one of the two names"
        )
    return key


# ------------------------------------------------------------------------------------------------------- instances


def format_instance(instance: Instance) -> bytes:
    """An instance as it is put."""
    said: dict[str, object] = {
        "format": FORMAT,
        "service": instance.service,
        "id": instance.id,
        "addresses": {
            protocol: {"host": address.host, "port": address.port} for protocol, address in instance.addresses.items()
        },
        "stage": instance.stage.value,
        "incarnation": instance.incarnation,
        "zone": instance.zone,
        "weight": instance.weight,
        "capacity": instance.capacity,
        "version": instance.version,
        "metadata": dict(instance.metadata),
    }
    return _dumped(said)


def parse_instance(raw: bytes) -> Instance:
    """An instance as somebody put it.

    Raises:  RemoteWireError with the path of the first thing that is wrong.
    """
    said = _Reader(_loaded(raw, "instance"), "instance")
    addresses = {}
    for protocol, value in said.mapping("addresses").items():
        address = _Reader(value, f"instance.addresses.{_short(protocol)}")
        addresses[protocol] = Address(address.text("host"), address.whole("port"))
    metadata = said.mapping("metadata", {})
    for key, value in metadata.items():
        if not isinstance(value, str):
            _wrong(f"instance.metadata.{_short(key)}", value, "is not text")
    stage = said.text("stage", Stage.READY.value)
    if stage not in STAGES:
        _wrong("instance.stage", stage, f"is not one of {', '.join(STAGES)}")
    try:
        return Instance(
            service=said.text("service"),
            id=said.text("id"),
            addresses=addresses,
            zone=said.text("zone", ""),
            weight=said.number("weight", 1.0),
            version=said.text("version", ""),
            metadata=metadata,
            stage=STAGES[stage],
            capacity=said.whole("capacity", 0),
            incarnation=said.text("incarnation", ""),
        )
    except BadSettings as error:
        problems = "; ".join(f"{path}: {problem}" for path, problem in error.problems)
        raise RemoteWireError(problems) from error


# -------------------------------------------------------------------------------------------------------- watchers


def format_watcher(watcher: Watcher) -> bytes:
    """What a watcher says, as it is put; its name is in the key."""
    return _dumped({"format": FORMAT, "revision": watcher.revision, "at": watcher.at})


def parse_watcher(name: str, raw: bytes) -> Watcher:
    """What a watcher said.

    Raises:  RemoteWireError with the path of the first thing that is wrong.
    """
    said = _Reader(_loaded(raw, "watcher"), "watcher")
    revision = said.whole("revision")
    if revision < 0:
        _wrong("watcher.revision", revision, "is below 0")
    return Watcher(name, revision, Wall(said.number("at")))


# ------------------------------------------------------------------------------------------------------------ JSON


class _Reader:
    """Takes typed fields out of a JSON object, and names the path where one is wrong."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            _wrong(path, value, "is not an object")
        self.fields: dict[str, Any] = value
        self.path = path

    def text(self, name: str, default: str | None = None) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            _wrong(f"{self.path}.{name}", value, "is not text")
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            _wrong(f"{self.path}.{name}", value, "is not a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            _wrong(f"{self.path}.{name}", value, "is not a number")
        # 1e999 is a number in JSON, and infinite here; so is an integer of 400 digits, and no float at all.
        if not -1e300 < value < 1e300:
            raise RemoteWireError(f"{self.path}.{name} is too large a number")
        return float(value)

    def mapping(self, name: str, default: Mapping[str, Any] | None = None) -> dict[str, Any]:
        value = self._get(name, default)
        if not isinstance(value, dict):
            _wrong(f"{self.path}.{name}", value, "is not an object")
        return value

    def _get(self, name: str, default: object) -> Any:
        value = self.fields.get(name, default)
        if value is None:
            raise RemoteWireError(f"{self.path}.{name} is missing")
        return value


def _dumped(said: object) -> bytes:
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _loaded(raw: bytes, what: str) -> object:
    if len(raw) > VALUE_BYTES_MAX:
        raise RemoteWireError(f"{what}: {len(raw)} bytes are more than {VALUE_BYTES_MAX}")
    try:
        value = json.loads(raw.decode(), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise RemoteWireError(f"{what}: it is not UTF-8") from error
    except RecursionError as error:
        raise RemoteWireError(f"{what}: nested too deeply") from error
    except ValueError as error:
        raise RemoteWireError(f"{what}: it is not JSON: {error}") from error
    if isinstance(value, dict):
        written = value.get("format")
        if written != FORMAT or isinstance(written, bool):
            _wrong(f"{what}.format", written, f"is not {FORMAT}, the format this version reads")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _wrong(path: str, value: object, problem: str) -> NoReturn:
    raise RemoteWireError(f"{path}: {_short(value)} {problem}")


def _short(value: object) -> str:
    said = repr(value) if not isinstance(value, dict | list) else type(value).__name__
    return said if len(said) <= 80 else f"{said[:77]}..."
