"""What changed between two lists of instances, for sources that only ever say the whole."""

from __future__ import annotations

from collections.abc import Mapping

from budao.discovery.facts import Changed
from budao.discovery.instance import Instance


def compared(old: Mapping[str, Instance], new: Mapping[str, Instance], revision: int) -> Changed | None:
    """The change from one list to the next, both by id; None if they are equal."""
    put = tuple(instance for key, instance in sorted(new.items()) if old.get(key) != instance)
    gone = tuple(sorted(old.keys() - new.keys()))
    return Changed(revision, put, gone) if put or gone else None
