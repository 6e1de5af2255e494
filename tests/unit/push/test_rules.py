from __future__ import annotations

import pytest

from budao.model import BadSettings
from budao.push import ChannelPolicy, ChannelRules, Slow, parse_rules, rules_of
from budao.push.rules import RULES_MAX

TEXT = """
[channels."room:lobby"]
history_count = 10

[channels."room:*"]
slow = "close"
history_age_s = 60
"""


def test_the_first_rule_that_holds_a_channel_counts() -> None:
    rules = parse_rules(TEXT)
    assert rules.of("room:lobby") == ChannelPolicy(history_count=10)
    assert rules.of("room:1") == ChannelPolicy(slow=Slow.CLOSE, history_age_s=60)
    assert rules.of("news") == ChannelPolicy()


def test_equal_rules_are_equal() -> None:
    assert parse_rules(TEXT) == parse_rules(TEXT)
    assert hash(parse_rules(TEXT)) == hash(parse_rules(TEXT))
    assert parse_rules(TEXT) != ChannelRules()
    assert ChannelRules() != 7
    assert "room:lobby" in repr(parse_rules(TEXT))


def test_channels_without_a_rule_have_what_is_said_of_them() -> None:
    other = ChannelPolicy(history_count=1)
    assert ChannelRules(otherwise=other).of("x") is other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "not TOML"),
        ("channels = 3", "not a table"),
        ("[channels]\na = 3", "not a table of settings"),
        ('[channels."a*b"]', "before the end of a part"),
        ("[channels.a]\nhistory = 3", "is no setting"),
        ('[channels.a]\nslow = "never"', "'never'"),
        ("[channels.a]\nhistory_count = -1", "history_count"),
        ("[channels.a]\nhistory_count = true", "not a whole number"),
    ],
)
def test_wrong_rules_are_refused_with_their_place(text: str, said: str) -> None:
    with pytest.raises(BadSettings, match=r"channels") as caught:
        parse_rules(text)
    assert said in str(caught.value)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(BadSettings) as caught:
        rules_of({"a*b": {}, "c": {"history_count": -1}})
    assert len(caught.value.problems) == 2


def test_a_pattern_twice_and_too_many_rules_are_refused() -> None:
    policy = ChannelPolicy()
    with pytest.raises(BadSettings, match="two policies"):
        ChannelRules([("a", policy), ("a", policy)])
    with pytest.raises(BadSettings, match="1001 rules"):
        ChannelRules((f"a{number}", policy) for number in range(RULES_MAX + 1))
