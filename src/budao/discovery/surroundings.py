"""What an instance can tell about itself from the environment it runs in."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from budao.discovery.instance import Address, Instance
from budao.discovery.registration import new_id, new_incarnation
from budao.model import Stage

HOSTS: Final = ("BUDAO_HOST", "POD_IP", "NOMAD_IP_http")
NAMES: Final = ("BUDAO_NAME", "POD_NAME", "NOMAD_ALLOC_ID")
ZONES: Final = ("BUDAO_ZONE", "TOPOLOGY_ZONE", "ZONE", "AWS_AVAILABILITY_ZONE", "NOMAD_DC")
VERSIONS: Final = ("BUDAO_VERSION", "VERSION")
"""Names of variables, the first that is set and not empty counts."""


def instance_here(
    service: str,
    ports: Mapping[str, int],
    environment: Mapping[str, str],
    rng: Random,
    *,
    id: str = "",  # noqa: A002 - the word everybody uses
    host: str = "",
    zone: str = "",
    version: str = "",
    weight: float = 1.0,
    capacity: int = 0,
    metadata: Mapping[str, str] | None = None,
    stage: Stage = Stage.READY,
) -> Instance:
    """An instance with what is not said taken from the environment, and 127.0.0.1 where that does not know a host.

    Without an `id` each life of a process gets a fresh one, made of the pod's name or the service's: then a restart
    after a crash never waits for the lease of the life before.

    Shapes:  `ports` by protocol, the main one first.
    Raises:  BadSettings with every problem at once.
    """
    host = host or _first(environment, HOSTS) or "127.0.0.1"
    return Instance(
        service=service,
        id=id or new_id(_first(environment, NAMES) or service, rng),
        addresses={protocol: Address(host, port) for protocol, port in ports.items()},
        zone=zone or _first(environment, ZONES),
        version=version or _first(environment, VERSIONS),
        weight=weight,
        capacity=capacity,
        metadata={} if metadata is None else metadata,
        stage=stage,
        incarnation=new_incarnation(rng),
    )


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")
