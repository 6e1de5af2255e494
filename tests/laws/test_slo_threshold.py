"""A threshold over random histories: the bare rule against a twin that remembers everything, the hardened by its bounds."""

from __future__ import annotations

from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import Mono, ThresholdPolicy
from budao.slo import Threshold

feeds = st.lists(
    st.tuples(
        st.floats(min_value=0.0, max_value=100.0),
        st.lists(st.floats(min_value=0.0, max_value=10.0), max_size=30),
    ),
    max_size=60,
)
anchors = st.none() | st.floats(min_value=0.01, max_value=10.0)


class SlowBare:
    """The sentence of the design, word by word, over all samples ever."""

    def __init__(self, policy: ThresholdPolicy, anchor_s: float | None) -> None:
        self.policy, self.anchor_s = policy, anchor_s
        self.all: list[float] = []
        self.levels: list[float] = []
        self.marks: list[tuple[float, float]] = []
        self.due = -inf
        self.slow_s = inf if anchor_s is None else anchor_s
        self.is_drifting = False

    def feed(self, samples: list[float], now: float) -> None:
        self.all += samples
        window = sorted(self.all[-self.policy.samples :])
        if not samples or len(window) < self.policy.samples_min or now < self.due:
            return
        self.due = now + 10.0
        quantile = window[ceil(round(self.policy.quantile * len(window), 9)) - 1]
        before = self.levels[-1] if self.levels else quantile
        self.levels.append(before + self.policy.alpha * (quantile - before))
        self.slow_s = max(self.anchor_s or 0.0, min(self.levels[-1], self.policy.cap * window[-1]))
        if not self.marks:
            self.marks.append((now, quantile))
        elif now >= self.marks[-1][0] + 60.0:
            self.marks.append((now, quantile))
            last = [each for _, each in self.marks[-4:]]
            moved = abs(last[-1] - last[-2]) > 0.15 * last[-2]
            rose = len(last) == 4 and last[0] < last[1] < last[2] < last[3]
            self.is_drifting = moved or (rose and self.anchor_s is not None and quantile > self.anchor_s)


@given(feeds, anchors)
def test_the_bare_rule_does_what_the_design_says(
    happened: list[tuple[float, list[float]]], anchor_s: float | None
) -> None:
    policy = ThresholdPolicy(hardened=False, samples=40, samples_min=10)
    threshold, twin, now = Threshold(policy, anchor_s), SlowBare(policy, anchor_s), 0.0
    for gap_s, samples in happened:
        now += gap_s
        threshold.feed(samples, Mono(now))
        twin.feed(samples, now)
        assert threshold.slow_s == pytest.approx(twin.slow_s)
        assert threshold.view().is_drifting == twin.is_drifting


@given(feeds, anchors, st.booleans())
def test_the_hardened_line_keeps_its_bounds_whatever_happens(
    happened: list[tuple[float, list[float]]], anchor_s: float | None, alert: bool
) -> None:
    policy = ThresholdPolicy(samples=40, samples_min=10)
    threshold, now = Threshold(policy, anchor_s), 0.0
    for gap_s, samples in happened:
        now += gap_s
        threshold.feed(samples, Mono(now), alert_stands=alert)
        view = threshold.view()
        assert view.slow_s == threshold.slow_s
        assert 0.0 <= view.evidence_share <= 1.0
        assert view.reason
        if anchor_s is not None:
            assert anchor_s <= view.slow_s <= policy.cap * anchor_s
        elif view.quantile_s is not None and view.anchor_s is not None:
            assert view.slow_s <= policy.cap * view.anchor_s
        assert view == threshold.view()


@given(feeds, anchors)
def test_a_line_does_not_move_while_an_alarm_stands(
    happened: list[tuple[float, list[float]]], anchor_s: float | None
) -> None:
    policy = ThresholdPolicy(samples=40, samples_min=10)
    threshold, now = Threshold(policy, anchor_s), 0.0
    for gap_s, samples in happened:
        before = threshold.view()
        now += gap_s
        threshold.feed(samples, Mono(now))
        after = threshold.view()
        if before.is_drifting and after.is_drifting:
            assert after.slow_s == before.slow_s
            assert after.quantile_s == before.quantile_s
