"""What every place of every channel holds, whoever says it first; all others must say the same."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict

from budao.push import Message, Position

PLACES_MAX = 20_000
"""Places of a channel that are remembered: minutes, and nobody here is behind by more."""
WRONG_MAX = 200


class Truth:
    """Acknowledgements, readers and the log itself are held against each other."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.epochs: dict[str, str] = {}
        self.heads: dict[str, int] = {}
        self.acknowledged = 0
        self.confirmed = 0
        self.counts: Counter[str] = Counter()
        self._held: dict[str, OrderedDict[int, str]] = {}
        self._owed: dict[str, dict[int, str]] = {}
        """Acknowledged, and not yet found in the log."""
        self._last: dict[tuple[str, str], int] = {}

    def blame(self, said: str) -> None:
        """A promise was broken."""
        if len(self.wrong) < WRONG_MAX:
            self.wrong.append(said)
            print(f"WRONG: {said}", flush=True)

    def told(self, who: str, message: Message) -> None:
        """A reader was told a message."""
        data = json.loads(message.data)
        self.note(who, message.channel, message.position, f"{data['by']}.{data['n']}")

    def note(self, who: str, channel: str, position: Position, name: str) -> None:
        """Somebody says what a place holds."""
        epoch = self.epochs.setdefault(channel, position.epoch)
        if epoch != position.epoch:
            self.blame(f"{who}: {channel} is in epoch {position.epoch}, and was in {epoch}")
        held = self._held.setdefault(channel, OrderedDict())
        if held.setdefault(position.seq, name) != name:
            self.blame(f"{who}: {channel} {position.seq} holds {name}, and others say {held[position.seq]}")
        self.heads[channel] = max(position.seq, self.heads.get(channel, 0))
        if len(held) > PLACES_MAX:
            held.popitem(last=False)

    def acknowledge(self, by: str, channel: str, position: Position, n: int) -> None:
        """A publish was acknowledged. One publisher publishes one after the other, so its places only grow."""
        self.acknowledged += 1
        before = self._last.get((by, channel), 0)
        if position.seq <= before:
            self.blame(f"{by}: its {n} was placed at {channel} {position.seq}, not behind its last one at {before}")
        self._last[by, channel] = position.seq
        self.note(by, channel, position, f"{by}.{n}")
        self._owed.setdefault(channel, {})[position.seq] = f"{by}.{n}"

    def audited(self, channel: str, first: int, upto: int, names: dict[int, str]) -> None:
        """The log was read, from its first place that is kept up to its head."""
        owed = self._owed.get(channel, {})
        for seq in [seq for seq in owed if seq <= upto]:
            name = owed.pop(seq)
            if seq < first:
                # Of the channel that keeps its last message only, or after the log was away for long.
                self.counts["acknowledged, trimmed before it was audited"] += 1
            elif names.get(seq) != name:
                self.blame(f"{channel} {seq} was acknowledged as {name}, and the log has {names.get(seq)}")
            else:
                self.confirmed += 1

    def owed(self) -> int:
        """Acknowledged, and not found in the log yet."""
        return sum(map(len, self._owed.values()))
