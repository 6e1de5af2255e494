"""The ring of pulses against a naive twin that looks at everybody in each tick."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from budao.model import Mono
from budao.push import AskKernel, HeartbeatPolicy, Heartbeats, Pulse

POLICY = HeartbeatPolicy(quiet_s=2.0, late_s=0.5, silent_s=5.0, again_max_s=1.0, spread_share=0.0)


class Half(Random):
    """Every span is the middle one."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def ticks(span_s: float) -> int:
    return max(1, ceil(span_s / POLICY.tick_s - 1e-6))


@dataclass
class Twin:
    """One connection, told each tick."""

    due: int
    is_heard: bool = False
    is_excused: bool = False
    since: int | None = None
    asked: bool = False
    late: int = 0
    is_lost: bool = False

    def step(self, tick: int) -> list[str]:
        if tick != self.due:
            return []
        if self.is_heard:
            told = ["Restore"] * self.is_lost
            self.is_heard = self.asked = self.is_excused = self.is_lost = False
            self.since, self.late, self.due = None, 0, tick + ticks(2.0)
            return told
        if self.since is None:
            self.since = tick
            return self.ping(tick)
        if not self.asked:
            self.asked, self.due = True, tick + 1
            return ["AskKernel"]
        self.asked = False
        if self.is_excused:
            self.is_excused, self.since, self.due = False, tick, tick + ticks(0.4)
            return []
        self.late += 1
        if (tick - self.since) * 0.1 >= 5.0:
            self.due = -1
            return ["EndSilent"]
        told = []
        if self.late == 3:
            self.is_lost = True
            told = ["Degrade"]
        return told + self.ping(tick)

    def ping(self, tick: int) -> list[str]:
        wait_s = max(0.5, min(1.0, 0.5 * 2 ** (self.late - 3))) if self.is_lost else 0.5
        self.due = tick + ticks(wait_s - 0.1)
        return ["SendPing"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["hear", "excuse", "leave", "come", "wait", "wait", "stall"])),
        max_size=60,
    ),
    st.integers(1, 9),
)
def test_the_ring_does_what_looking_at_everybody_does(acts: list[tuple[int, str]], step: int) -> None:
    beats: Heartbeats[int] = Heartbeats(POLICY, Half())
    pulses: dict[int, Pulse[int]] = {}
    twins: dict[int, Twin] = {}
    now, tick = 0.0, 0
    for who, act in acts:
        if act == "come" and who not in twins:
            pulse = pulses[who] = Pulse(who, is_mute=False)
            beats.add(pulse)
            twins[who] = Twin(due=tick + ticks(2.0 * 1.05 / 2))
        elif act == "leave" and who in twins:
            beats.remove(pulses.pop(who))
            del twins[who]
        elif act in {"hear", "excuse"} and who in twins:
            name = "is_heard" if act == "hear" else "is_excused"
            setattr(pulses[who], name, True)
            setattr(twins[who], name, True)
        elif act == "stall":
            now += 7.0
        for _ in range(step):
            now += 0.1
            tick += 1
            told = [
                (effect.pulse.connection if isinstance(effect, AskKernel) else effect.connection, type(effect).__name__)
                for effect in beats.wake(Mono(now))
            ]
            expected = [(name, word) for name, twin in twins.items() for word in twin.step(tick)]
            assert sorted(told) == sorted(expected)
            for name in [name for name, twin in twins.items() if twin.due == -1]:
                del twins[name], pulses[name]
            assert len(beats) == len(twins)
