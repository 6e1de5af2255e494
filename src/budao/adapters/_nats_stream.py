"""The stream that keeps all channels: how it should be set up, and what is wrong with one that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from budao.model import Checks
from budao.push import ChannelRules

NANO: Final = 1_000_000_000
DESCRIPTION: Final = "channels of budao gateways"
SERIAL_SINCE: Final = (2, 9, 21)
"""Before this version, a stream with replicas may take two messages that both expect the same one before them
(nats-server#4320): a channel could have two messages with one number."""
OLDEST: Final = (2, 9, 0)
"""The first version with direct gets and republishing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPolicy:
    """The stream in NATS that keeps all channels. Gateways that share channels use the same.

    Raises:  BadSettings with every problem.
    """

    stream: str = "BUDAO"
    """Its name."""
    prefix: str = "budao"
    """What its subjects begin with: channels are kept in `<prefix>.channels.*`, and told of in `<prefix>.told.*`."""
    replicas: int = 1
    """How many servers of a cluster keep it. 3 survive the loss of one."""
    bytes_max: int = 1024**3
    """What it may take on disk; beyond it, the oldest messages of all channels are dropped."""
    ids_age_s: float = 120.0
    """How long an id is remembered: publishing it again within this span is the same message."""
    spare_count: int = 16
    """Messages kept of each channel beyond what its rules keep, so that where one stands whose id is published again is known
    exactly. Of one that is not kept any more it is only known that it stood before those that are."""

    def __post_init__(self) -> None:
        check = Checks("log")
        check.need(is_token(self.stream), "stream", f"{self.stream!r} is not made of letters, digits, - and _")
        is_prefix = all(is_token(part) for part in self.prefix.split("."))
        check.need(is_prefix, "prefix", f"{self.prefix!r} is not made of letters, digits, - and _, with dots between")
        check.count("replicas", self.replicas, 1, 5)
        check.count("bytes_max", self.bytes_max, 1024**2, 1024**5)
        check.count("spare_count", self.spare_count, 0, 1_000_000)
        check.number("ids_age_s", self.ids_age_s, 1.0, 86_400.0)
        check.done()

    @property
    def channels(self) -> str:
        """What the subjects of channels begin with."""
        return f"{self.prefix}.channels."

    @property
    def told(self) -> str:
        """What the subjects of news begin with."""
        return f"{self.prefix}.told."


def is_token(text: str) -> bool:
    return bool(text) and len(text) <= 100 and text.isascii() and text.replace("-", "").replace("_", "").isalnum()


def wanted(policy: StreamPolicy, rules: ChannelRules) -> dict[str, Any]:
    """The settings of the stream. What one kind of channel keeps less of is left out when it is read."""
    policies = [rules.otherwise, *(each for _, each in rules.rules)]
    age_s = max(policy.ids_age_s, *(each.history_age_s for each in policies))
    return {
        "name": policy.stream,
        "description": DESCRIPTION,
        "subjects": [policy.channels + "*"],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_msg_size": -1,
        "max_bytes": policy.bytes_max,
        "max_age": int(age_s * NANO),
        "max_msgs_per_subject": max(1, *(each.history_count for each in policies)) + policy.spare_count,
        "num_replicas": policy.replicas,
        "duplicate_window": int(policy.ids_age_s * NANO),
        "allow_direct": True,
        "republish": {"src": policy.channels + "*", "dest": policy.told + "{{wildcard(1)}}"},
    }


def contradictions(found: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What is set up in a way that messages would be lost, refused or not told of."""
    republish = found.get("republish") or {}
    same = {
        name: (found.get(name), ours[name])
        for name in ("subjects", "retention", "discard", "storage")
        if found.get(name) != ours[name]
    }
    if not found.get("allow_direct"):
        same["allow_direct"] = False, True
    if {name: republish.get(name) for name in ("src", "dest")} != ours["republish"] or republish.get("headers_only"):
        same["republish"] = found.get("republish"), ours["republish"]
    for name in ("sealed", "no_ack", "deny_purge"):
        if name != "deny_purge" and found.get(name):
            same[name] = True, False
    for name in ("mirror", "sources", "subject_transform"):
        if found.get(name):
            same[name] = "set", "nothing"
    if int(found.get("max_msgs", -1)) > 0:
        same["max_msgs"] = found["max_msgs"], -1
    if int(found.get("max_msg_size", -1)) > 0:
        same["max_msg_size"] = found["max_msg_size"], -1
    return [f"{name} is {is_so!r} and has to be {should!r}" for name, (is_so, should) in same.items()]


def grown(found: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings with its bounds raised to ours; None if they are large enough. Bounds are never cut by a gateway."""
    update = dict(found)
    for name in ("max_age", "max_msgs_per_subject", "duplicate_window"):
        is_unbounded = int(found.get(name, 0)) <= 0 and name != "duplicate_window"
        if not is_unbounded and int(found.get(name, 0)) < ours[name]:
            update[name] = ours[name]
    return None if update == dict(found) else update
