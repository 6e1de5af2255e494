"""Who is there, and whom to pick: instances, rosters, registration, balancing, draining.

Nothing here sends or waits: sources in `aio` and `adapters` bring the facts and carry out what is decided.
"""

from budao.discovery.balancing import Balancer, Choice
from budao.discovery.compared import compared
from budao.discovery.facts import CameBack, Changed, Listed, Sighting, WentAway
from budao.discovery.instance import Address, Instance
from budao.discovery.roster import Roster

__all__ = [
    "Address",
    "Balancer",
    "CameBack",
    "Changed",
    "Choice",
    "Instance",
    "Listed",
    "Roster",
    "Sighting",
    "WentAway",
    "compared",
]
