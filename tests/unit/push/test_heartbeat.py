"""Heartbeats: late is not lost, three late pings degrade, silence ends, and nobody is blamed for our own standing still."""

from __future__ import annotations

from random import Random

import pytest

from budao.model import BadSettings, Mono
from budao.push import AskKernel, Degrade, EndSilent, HeartbeatPolicy, Heartbeats, Pulse, Restore, SendPing

QUICK = HeartbeatPolicy(quiet_s=2.0, late_s=0.5, silent_s=5.0, spread_share=0.0)


class Bench:
    """The machine, stepped a tick at a time, and everything it ordered with its time."""

    def __init__(self, policy: HeartbeatPolicy = QUICK) -> None:
        self.beats: Heartbeats[str] = Heartbeats(policy, Random(3))
        self.now = 100.0
        self.told: list[tuple[float, str]] = []

    def add(self, name: str, *, is_mute: bool = False) -> Pulse[str]:
        pulse = Pulse(name, is_mute=is_mute)
        self.beats.add(pulse)
        return pulse

    def until(self, end: float) -> list[str]:
        """What is ordered up to then, in words."""
        words = []
        while self.now < end - 1e-9:
            self.now += 0.1
            for effect in self.beats.wake(Mono(self.now)):
                words.append(type(effect).__name__)
                self.told.append((round(self.now - 100.0, 3), type(effect).__name__))
        return words

    def at(self, kind: type) -> list[float]:
        return [at for at, name in self.told if name == kind.__name__]


def test_a_connection_that_speaks_is_never_pinged() -> None:
    bench = Bench()
    pulse = bench.add("a")
    for _ in range(100):
        pulse.is_heard = True
        assert bench.until(bench.now + 0.5) == []


def test_a_quiet_one_is_pinged_and_an_answer_keeps_it_quiet() -> None:
    bench = Bench()
    pulse = bench.add("a")
    for _ in range(5):
        while bench.until(bench.now + 0.1) != ["SendPing"]:
            pass
        assert bench.until(bench.now + 0.3) == []
        pulse.is_heard = True
        assert bench.until(bench.now + 1.0) in ([], ["AskKernel"])
    assert bench.beats.late == 0


def test_three_late_pings_degrade_and_a_late_answer_restores() -> None:
    bench = Bench()
    pulse = bench.add("a")
    bench.until(104.0)
    pings = bench.at(SendPing)
    (degraded,) = bench.at(Degrade)
    assert pings[1] - pings[0] == pytest.approx(0.5)
    assert pings[2] - pings[1] == pytest.approx(0.5)
    assert degraded - pings[0] == pytest.approx(1.5)
    assert pulse.is_lost
    pulse.is_heard = True
    assert "Restore" in bench.until(106.0)
    assert not pulse.is_lost
    assert pulse.late == 0
    assert bench.at(EndSilent) == []


def test_a_late_answer_clears_the_lateness_before_it_degrades() -> None:
    bench = Bench()
    pulse = bench.add("a")
    while not bench.at(SendPing):
        bench.until(bench.now + 0.1)
    for _ in range(5):  # each time two pings are late, and then something comes
        late = bench.beats.late
        while bench.beats.late < late + 2:
            bench.until(bench.now + 0.1)
        pulse.is_heard = True
        bench.until(bench.now + 0.5)
    assert bench.at(Degrade) == []


def test_silence_ends_it_once_and_it_is_forgotten() -> None:
    bench = Bench()
    pulse = bench.add("a")
    bench.until(120.0)
    (ended,) = bench.at(EndSilent)
    assert ended - bench.at(SendPing)[0] == pytest.approx(5.0, abs=2.1)  # the pauses of a degraded one double up to 2 s
    assert len(bench.beats) == 0
    assert bench.beats.silent == 1
    bench.beats.remove(pulse)
    assert len(bench.beats) == 0


def test_a_ping_that_waits_behind_what_the_peer_reads_is_not_late() -> None:
    bench = Bench()
    pulse = bench.add("a")
    for _ in range(600):
        bench.now += 0.1
        for effect in bench.beats.wake(Mono(bench.now)):
            assert not isinstance(effect, Degrade | EndSilent)
            if isinstance(effect, AskKernel):
                pulse.is_excused = True
    assert bench.beats.late == 0
    assert bench.beats.pings == 1


def test_a_round_trip_that_is_long_does_not_make_it_late() -> None:
    bench = Bench()
    pulse = bench.add("a")
    pulse.expected_s = 1.0
    while not bench.at(SendPing):
        bench.until(bench.now + 0.1)
    bench.until(bench.now + 1.3)
    assert bench.beats.late == 0
    bench.until(bench.now + 0.3)
    assert bench.beats.late == 1


def test_nobody_is_late_because_this_process_stood_still() -> None:
    bench = Bench()
    pulse = bench.add("a")
    while not bench.at(SendPing):
        bench.until(bench.now + 0.1)
    bench.now += 3_600.0
    bench.until(bench.now + 0.1)
    pulse.is_heard = True
    bench.until(bench.now + 1.0)
    assert bench.beats.late == 0
    assert bench.at(Degrade) == []
    assert bench.beats.stalled_s > 3_599


def test_removing_twice_counts_once_and_others_stay() -> None:
    bench = Bench()
    first, _ = bench.add("a"), bench.add("b")
    bench.beats.remove(first)
    bench.beats.remove(first)
    assert len(bench.beats) == 1
    bench.until(103.0)
    assert bench.beats.pings > 0


def test_a_doubt_pings_with_the_next_tick() -> None:
    bench = Bench(HeartbeatPolicy())
    pulse = bench.add("a")
    bench.until(100.1)
    bench.beats.ask_now(pulse)
    assert bench.until(100.2) == ["SendPing"]
    bench.beats.ask_now(pulse)
    assert bench.until(100.3) == []


def test_pings_of_a_storm_are_spread() -> None:
    bench = Bench(HeartbeatPolicy())
    pulses = {str(number): bench.add(str(number)) for number in range(2_000)}
    most = 0
    for _ in range(200):
        bench.now += 0.1
        pinged = [each for each in bench.beats.wake(Mono(bench.now)) if isinstance(each, SendPing)]
        most = max(most, len(pinged))
        for each in pinged:
            pulses[each.connection].is_heard = True
    assert most < 40  # ten a tick on average


def test_a_policy_that_ends_before_it_degrades_is_refused() -> None:
    with pytest.raises(BadSettings, match="degrade"):
        HeartbeatPolicy(silent_s=1.0)
    assert Restore("a").connection == "a"
