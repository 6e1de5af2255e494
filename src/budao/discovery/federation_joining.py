"""Local and remote instances in one list for a directory, and what to say of it while the local source is silent.

While the local source is away the list goes on with what is known of it: remote changes still get through, at most one
list each `AWAY_PAUSE_S`, and each list is followed by the word that the source is away, so that nobody takes the local half
for fresh. Before the first local list the remote half is shown alone as soon as the local source says that it is away, or
has said nothing for the policy's `first_list_max_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from budao.discovery.facts import Changed, Listed, Sighting, WentAway
from budao.discovery.federation import Seen
from budao.discovery.federation_policy import FederationPolicy
from budao.discovery.instance import Instance
from budao.model import BadSettings, Mono, Stage

AWAY_PAUSE_S: Final = 1.0
"""Between lists while the local source is away; a directory logs each time that it comes and goes."""


@dataclass(frozen=True, slots=True)
class Remote:
    """Fact: what other clusters have of the service, by id and as shown here, and which clusters are known."""

    instances: Mapping[str, Seen]
    clusters: frozenset[str]


class Joining:
    """Joins the two halves for one follower of one service. An id that is in both is the local one.

    `known` is the last local list an earlier follower has seen, if any: it stands until the local source has listed.
    """

    def __init__(self, policy: FederationPolicy, now: Mono, known: Listed | None = None) -> None:
        self.known = known
        """The local half as last heard."""
        self._is_listed = False
        self._problem: str | None = None
        self._remote = Remote({}, frozenset())
        self._said: dict[str, Seen] | None = None
        """What was listed last, local instances as of the cluster ""."""
        self._patience_s = policy.first_list_max_s
        self._say_at: Mono | None = Mono(now + self._patience_s)
        """When to say what waits: the remote half alone, or what changed in it while the local source is away."""
        self._quiet_until = now

    def wake_at(self) -> Mono | None:
        """When to be woken."""
        return self._say_at

    def wake(self, now: Mono) -> tuple[Sighting, ...]:
        """Time has passed."""
        if self._say_at is None or now < self._say_at:
            return ()
        if not self._is_listed and self._problem is None:
            self._problem = f"the local source has not listed within {self._patience_s:g} s"
        return self._say(now)

    def handle(self, fact: Sighting | Remote, now: Mono) -> tuple[Sighting, ...]:
        """Either half has changed, or the local source went or came."""
        if isinstance(fact, Remote):
            self._remote = fact
            return self._remote_changed(now)
        if isinstance(fact, WentAway):
            self._problem = fact.problem
            return (fact,) if self._is_listed else self._say(now)
        if isinstance(fact, Listed):
            self.known, self._is_listed = fact, True
        elif not self._is_listed:
            # Nothing was listed that could go on.
            return ()
        elif isinstance(fact, Changed) and self.known is not None:
            here = {each.id: each for each in self.known.instances if each.id not in fact.gone}
            here |= {each.id: each for each in fact.put}
            self.known = Listed(fact.revision, tuple(here.values()))
        self._problem = None
        return self._say(now)

    def _remote_changed(self, now: Mono) -> tuple[Sighting, ...]:
        if self._problem is None:
            is_news = self._is_listed and self._joined() != self._said
            return self._say(now) if is_news else ()
        if self._joined() == (self._said or {}):
            return ()
        if now >= self._quiet_until:
            return self._say(now)
        self._say_at = self._quiet_until
        return ()

    def _say(self, now: Mono) -> tuple[Sighting, ...]:
        self._say_at = None
        away = () if self._problem is None else (WentAway(self._problem),)
        joined, said = self._joined(), self._said or {}
        if away and not joined and not said:
            # Nobody is there as far as anybody knows, which is not worth calling the truth.
            return away
        if away:
            self._quiet_until = Mono(now + AWAY_PAUSE_S)
        revision = 0 if self.known is None else self.known.revision
        lists = [Listed(revision, _instances(joined))]
        forgotten = {
            id_: replace(each, instance=replace(each.instance, stage=Stage.DRAINING))
            for id_, each in said.items()
            if id_ not in joined and each.cluster and each.cluster not in self._remote.clusters
        }
        if forgotten:
            # What left on purpose is not kept as if it had expired together with others.
            lists.insert(0, Listed(revision, _instances(joined | forgotten)))
        self._said = joined
        return (*lists, *away)

    def _joined(self) -> dict[str, Seen]:
        here = () if self.known is None else self.known.instances
        return {**self._remote.instances, **{each.id: Seen(each, "") for each in here}}


def placed(instance: Instance, cluster: str, *, is_stale: bool) -> Instance:
    """An instance of another cluster, as rosters here show it."""
    stage = Stage.STARTING if is_stale and instance.stage is Stage.READY else instance.stage
    zone = f"{cluster}/{instance.zone}" if len(instance.zone.encode()) < 190 else cluster
    try:
        return replace(instance, zone=zone, stage=stage, metadata={**instance.metadata, "cluster": cluster})
    except BadSettings:
        # Its metadata is full to the brim; the zone says enough.
        return replace(instance, zone=zone, stage=stage)


def _instances(listed: Mapping[str, Seen]) -> tuple[Instance, ...]:
    return tuple(each.instance for each in listed.values())
