"""Which channels are kept and delivered how: patterns with policies, of which the first that holds a channel counts."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Final

from budao.model import BadSettings, RemoteWireError
from budao.push.channel_policy import ChannelPolicy, Slow
from budao.push.patterns import check_pattern, holds

RULES_MAX: Final = 1000
"""Rules in one list: each new channel is compared with them one by one."""

_SETTINGS: Final = frozenset(each.name for each in fields(ChannelPolicy))


class ChannelRules:
    """Patterns with policies, in order; a channel that none holds has `otherwise`.

    Raises:  BadSettings for what is no pattern, a pattern that is there twice, and too many.
    """

    __slots__ = ("otherwise", "rules")

    def __init__(
        self, rules: Iterable[tuple[str, ChannelPolicy]] = (), *, otherwise: ChannelPolicy | None = None
    ) -> None:
        self.rules = tuple(rules)
        self.otherwise = ChannelPolicy() if otherwise is None else otherwise
        problems: list[tuple[str, str]] = []
        seen: set[str] = set()
        for pattern, _ in self.rules:
            where = f"channels.{pattern!r}"
            try:
                check_pattern(pattern)
            except RemoteWireError as problem:
                problems.append((where, str(problem)))
            if pattern in seen:
                problems.append((where, "the same pattern has two policies; only the first would ever count"))
            seen.add(pattern)
        if len(self.rules) > RULES_MAX:
            problems.append(("channels", f"{len(self.rules)} rules; at most {RULES_MAX} are allowed"))
        if problems:
            raise BadSettings(problems)

    def of(self, channel: str) -> ChannelPolicy:
        """The policy of a checked channel.

        Cost:    one comparison for each rule before the one that holds it; whoever keeps a channel keeps its policy too.
        """
        for pattern, policy in self.rules:
            if holds(pattern, channel):
                return policy
        return self.otherwise

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChannelRules):
            return NotImplemented
        return (self.rules, self.otherwise) == (other.rules, other.otherwise)

    def __hash__(self) -> int:
        return hash((self.rules, self.otherwise))

    def __repr__(self) -> str:
        return f"ChannelRules({self.rules!r}, otherwise={self.otherwise!r})"


def parse_rules(text: str) -> ChannelRules:
    """The rules that a TOML text states: a table `channels` with a table for each pattern, first match first.

    Raises:  BadSettings with every problem.
    """
    try:
        stated = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise BadSettings([("channels", f"this is not TOML: {problem}")]) from problem
    return rules_of(stated.get("channels", {}))


def rules_of(stated: object) -> ChannelRules:
    """The rules that a mapping of patterns to settings states, as read from a file.

    Raises:  BadSettings with every problem.
    """
    if not isinstance(stated, Mapping):
        raise BadSettings([("channels", f"{type(stated).__name__} is not a table of patterns")])
    problems: list[tuple[str, str]] = []
    rules: list[tuple[str, ChannelPolicy]] = []
    for pattern, settings in stated.items():
        where = f"channels.{str(pattern)!r}"
        if not isinstance(settings, Mapping):
            problems.append((where, "is not a table of settings"))
            continue
        try:
            rules.append((str(pattern), _policy_of(settings)))
        except BadSettings as problem:
            problems += [(f"{where}.{path.removeprefix('channel.')}", said) for path, said in problem.problems]
    try:
        found = ChannelRules(rules)
    except BadSettings as problem:
        problems += problem.problems
        raise BadSettings(problems) from problem
    if problems:
        raise BadSettings(problems)
    return found


def _policy_of(settings: Mapping[str, object]) -> ChannelPolicy:
    unknown = [
        (str(name), f"is no setting; there are {', '.join(sorted(_SETTINGS))}")
        for name in settings
        if name not in _SETTINGS
    ]
    if unknown:
        raise BadSettings(unknown)
    stated = dict(settings)
    slow = stated.get("slow")
    if isinstance(slow, str) and slow in {each.value for each in Slow}:
        stated["slow"] = Slow(slow)
    return ChannelPolicy(**stated)  # type: ignore[arg-type]
