"""Who is there, and whom to pick: instances, rosters, registration, balancing, draining.

Nothing here sends or waits: sources in `aio` and `adapters` bring the facts and carry out what is decided.
"""

from budao.discovery import directory, draining, federation, federation_joining, federation_peering, names, registration
from budao.discovery.balancing import BALANCERS, Balancer, Choice, Cost, LiveCost, LiveCostPolicy, balancer
from budao.discovery.compared import compared
from budao.discovery.directory import DirectoryMachine, DirectoryPolicy
from budao.discovery.draining import Drain
from budao.discovery.draining_policy import DrainPolicy, DrainProof
from budao.discovery.facts import CameBack, Changed, Listed, Sighting, StalePart, WentAway
from budao.discovery.federation import FederatedSet, Seen
from budao.discovery.federation_policy import FederationPolicy
from budao.discovery.instance import Address, Instance
from budao.discovery.load_meter import LoadMeter, Work
from budao.discovery.names import NamePolicy
from budao.discovery.pool import EndpointView, Picked, PoolMachine, PoolView
from budao.discovery.registration import DuplicateInstance, RegistrarPolicy, Registration, new_id, new_incarnation
from budao.discovery.roster import Roster
from budao.discovery.surroundings import instance_here

__all__ = [
    "BALANCERS",
    "Address",
    "Balancer",
    "CameBack",
    "Changed",
    "Choice",
    "Cost",
    "DirectoryMachine",
    "DirectoryPolicy",
    "Drain",
    "DrainPolicy",
    "DrainProof",
    "DuplicateInstance",
    "EndpointView",
    "FederatedSet",
    "FederationPolicy",
    "Instance",
    "Listed",
    "LiveCost",
    "LiveCostPolicy",
    "LoadMeter",
    "NamePolicy",
    "Picked",
    "PoolMachine",
    "PoolView",
    "RegistrarPolicy",
    "Registration",
    "Roster",
    "Seen",
    "Sighting",
    "StalePart",
    "WentAway",
    "Work",
    "balancer",
    "compared",
    "directory",
    "draining",
    "federation",
    "federation_joining",
    "federation_peering",
    "instance_here",
    "names",
    "new_id",
    "new_incarnation",
    "registration",
]
