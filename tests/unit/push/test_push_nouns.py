"""The contract modules of the room: names, places, endings, policies, frames, problems."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, RemoteWireError
from budao.push import (
    BY_CODE,
    BY_WHY,
    CHANNEL_BYTES_MAX,
    START,
    WHYS,
    Ack,
    Advice,
    Bye,
    ChannelPolicy,
    Hello,
    LogAway,
    LogRefused,
    Position,
    SessionPolicy,
    Welcome,
    advice_for,
    check_channel,
    follows,
)


@pytest.mark.parametrize("name", ["news", "room:42", "shop/orders.new", "日本", "a-b_c~d", "x" * CHANNEL_BYTES_MAX])
def test_names_of_channels_are_taken_as_they_are(name: str) -> None:
    assert check_channel(name) == name


@pytest.mark.parametrize(
    "name",
    [
        None,
        7,
        b"a",
        "",
        "a b",
        "a\n",
        "a\x00",
        "*",
        "a.*",
        ".a",
        "a:",
        "a..b",
        "a:.b",
        "\ud800",
        "日" * 67,
        "x" * 201,
        "\u200b",
    ],
)
def test_what_is_no_name_is_refused_in_few_words(name: object) -> None:
    with pytest.raises(RemoteWireError) as caught:
        check_channel(name)
    assert len(str(caught.value)) < 250


@given(name=st.text(max_size=50))
def test_a_good_name_has_no_empty_part_and_no_space(name: str) -> None:
    try:
        check_channel(name)
    except RemoteWireError:
        return
    parts = name.replace(":", ".").replace("/", ".").split(".")
    assert all(parts)
    assert name.isprintable()
    assert not set(name) & set(" *")


def test_only_the_very_next_message_of_the_same_life_follows() -> None:
    assert follows(Position("e", 4), Position("e", 5))
    assert not follows(Position("e", 4), Position("e", 6))
    assert not follows(Position("e", 4), Position("e", 4))
    assert not follows(Position("e", 4), Position("f", 5))
    assert follows(START, Position("e", 1))
    assert not follows(START, Position("e", 2))
    assert not follows(Position("e", 0), Position("f", 1))
    assert not follows(Position("", 3), Position("e", 4))


def test_every_ending_is_known_by_code_and_by_word_and_ours_follow_their_hundred() -> None:
    assert len(BY_CODE) == len(BY_WHY)
    hundreds = {41: {Advice.NOW, Advice.NEVER}, 42: {Advice.LATER}, 43: {Advice.NEVER, Advice.NOW}}
    for code, ending in BY_CODE.items():
        assert advice_for(code) is ending.advice
        assert ending.advice in hundreds.get(code // 100, set(Advice))


@pytest.mark.parametrize(
    ("code", "advice"), [(4199, Advice.NOW), (4299, Advice.LATER), (4399, Advice.NEVER), (3000, Advice.NOW)]
)
def test_an_unknown_code_is_taken_by_its_hundred(code: int, advice: Advice) -> None:
    assert advice_for(code) is advice


def test_each_word_of_a_refusal_has_a_status_that_is_an_error() -> None:
    assert all(400 <= status < 600 and meaning for status, meaning in WHYS.values())


def test_wrong_policies_say_every_problem() -> None:
    with pytest.raises(BadSettings) as caught:
        ChannelPolicy(history_count=-1, history_age_s=0.0, slow="latest", behind_bytes_max=1)  # type: ignore[arg-type]
    assert [path for path, _ in caught.value.problems] == [
        "channel.history_count", "channel.history_age_s", "channel.slow", "channel.behind_bytes_max",
    ]  # fmt: skip
    with pytest.raises(BadSettings, match="not between"):
        SessionPolicy(beat_s=5.0, beat_min_s=10.0)
    with pytest.raises(BadSettings, match="subscriptions_max"):
        SessionPolicy(subscriptions_max=0)


def test_frames_with_nothing_said_have_their_defaults_and_share_no_map() -> None:
    assert Hello().channels == {}
    assert Hello().channels is not Hello().channels
    assert Bye() == Bye(code=1000, why="done", advice=Advice.NEVER)
    assert Ack(ref=1).problem is None
    assert Welcome(session="s", gateway="g").peers == ()


def test_errors_of_a_log_say_whether_it_may_have_happened() -> None:
    assert "nothing was done" in str(LogAway("memory", "no answer"))
    assert "it may have taken effect" in str(LogAway("memory", "no answer", may_have_taken_effect=True))
    assert str(LogRefused("follow 'a'", "too many")) == "cannot follow 'a': too many"
