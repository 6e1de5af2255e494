"""A policy as text, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, BreakerPolicy, GuardPolicy, HedgePolicy, Mode, RatePolicy, TimeoutPolicy
from budao.settings import conflicts, dump, parse
from budao.settings.writing import key, written
from tests.unit.settings.policies import policies

NAMES = st.text(min_size=1, max_size=20).filter(str.isprintable)


@given(policy=policies(), base=policies(), name=NAMES)
def test_what_is_written_gives_the_policy_back_whatever_it_is_laid_over(
    policy: GuardPolicy, base: GuardPolicy, name: str
) -> None:
    text = dump(policy, name=name)
    if conflicts(policy):
        with pytest.raises(BadSettings) as caught:
            parse(text).policy_for(name, base)
        assert {path for path, _ in caught.value.problems} == {
            f"guard.{key(name)}.{each.path}" for each in conflicts(policy)
        }
    else:
        assert parse(text).policy_for(name, base) == policy


def test_what_is_written_reads_well() -> None:
    policy = GuardPolicy(
        breaker=None, retry=None, timeout=TimeoutPolicy(call_s=1, total_s=2), rate=RatePolicy(calls_per_s=10)
    )
    assert dump(policy, name="the inventory") == (
        '[guard."the inventory"]\nkeys_max = 1024\n'
        "breaker = false\nretry = false\nhedge = false\nbulkhead = false\nlimit = false\nthrottle = false\n"
        "shed = false\nthreshold = false\n"
        '\n[guard."the inventory".timeout]\ncall_s = 1.0\ntotal_s = 2.0\n'
        '\n[guard."the inventory".budget]\nshare = 0.1\nwindow_s = 10.0\nfloor_per_s = 1.0\n'
        '\n[guard."the inventory".rate]\ncalls_per_s = 10.0\nburst = 1\n'
    )


def test_infinity_modes_and_yes_are_written_as_toml_wants_them() -> None:
    text = dump(GuardPolicy(breaker=BreakerPolicy(mode=Mode.FORCED_OPEN), hedge=HedgePolicy()))
    assert "slow_s = inf\n" in text
    assert 'mode = "forced open"\n' in text


def test_a_path_is_shown_short_and_printable() -> None:
    assert written(("guard", "a", "breaker")) == "guard.a.breaker"
    assert written(("guard", "a.b")) == 'guard."a.b"'
    assert written(("a" * 100,)) == f'"{"a" * 64}..."'
    assert written(("line\nbreak \u202e",)) == '"line\\\\nbreak \\\\u202e"'
