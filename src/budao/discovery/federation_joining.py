"""Local and remote instances in one list for a directory, and what to say of it while the local source is silent.

While the local source is away the list goes on with what is known of it, and says that this half is old; remote changes
still get through. Before the first local list the remote half is shown alone as soon as the local source says that it is
away, or has said nothing for the policy's `first_list_max_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from budao.discovery.facts import CameBack, Changed, Listed, Sighting, StalePart, WentAway
from budao.discovery.federation import Seen
from budao.discovery.federation_policy import FederationPolicy
from budao.discovery.instance import Instance
from budao.model import BadSettings, Mono, Stage


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
        """When to show the remote half alone."""

    def wake_at(self) -> Mono | None:
        """When to be woken."""
        return self._say_at

    def wake(self, now: Mono) -> tuple[Sighting, ...]:
        """Time has passed."""
        if self._say_at is None or now < self._say_at:
            return ()
        self._problem = f"the local source has not listed within {self._patience_s:g} s"
        return self._say()

    def handle(self, fact: Sighting | Remote, now: Mono) -> tuple[Sighting, ...]:  # noqa: ARG002 - as of every machine
        """Either half has changed, or the local source went or came."""
        if isinstance(fact, Remote):
            self._remote = fact
            return self._remote_changed()
        if isinstance(fact, WentAway):
            self._problem = fact.problem
            return self._say()
        if isinstance(fact, Listed):
            self.known, self._is_listed = fact, True
        elif not self._is_listed:
            # Nothing was listed that could go on.
            return ()
        elif isinstance(fact, Changed) and self.known is not None:
            here = {each.id: each for each in self.known.instances if each.id not in fact.gone}
            here |= {each.id: each for each in fact.put}
            self.known = Listed(fact.revision, tuple(here.values()), self.known.stale)
        # A local source may have several to ask itself: its half is old if a part of it is.
        stale = self.known.stale if self.known is not None and not isinstance(fact, CameBack) else None
        self._problem = None if stale is None else stale.problem
        return self._say()

    def _remote_changed(self) -> tuple[Sighting, ...]:
        is_begun = self._is_listed or self._problem is not None
        return self._say() if is_begun and self._joined() != (self._said or {}) else ()

    def _say(self) -> tuple[Sighting, ...]:
        self._say_at = None
        joined, said = self._joined(), self._said or {}
        stale: StalePart | None = None
        if self._problem is not None:
            if not joined and not said:
                # Nobody is there as far as anybody knows, which is not worth calling the truth.
                return (WentAway(self._problem),)
            stale = StalePart(self._problem, frozenset(each for each, seen in joined.items() if not seen.cluster))
        revision = 0 if self.known is None else self.known.revision
        lists = [Listed(revision, _instances(joined), stale)]
        forgotten = {
            id_: replace(each, instance=replace(each.instance, stage=Stage.DRAINING))
            for id_, each in said.items()
            if id_ not in joined and each.cluster and each.cluster not in self._remote.clusters
        }
        if forgotten:
            # What left on purpose is not kept as if it had expired together with others.
            lists.insert(0, Listed(revision, _instances(joined | forgotten), stale))
        self._said = joined
        return tuple(lists)

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
