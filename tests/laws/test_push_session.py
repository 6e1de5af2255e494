"""Whatever a client says, and in whatever order: each request is answered once, and nothing comes before its time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from budao.model import Mono, Wall
from budao.push import (
    Ack,
    Answer,
    ChannelPolicy,
    ChannelRules,
    End,
    FromClient,
    Grant,
    Hello,
    Open,
    Ping,
    Pong,
    Position,
    Promote,
    Pub,
    Publish,
    Redeem,
    Seen,
    Session,
    SessionEffect,
    SessionPolicy,
    Standby,
    Sub,
    Subscribe,
    Unsub,
    Unsubscribe,
)

CHANNELS = st.sampled_from(["room:1", "room:2", "room:3", "secret", "a b", "", "\ud800", "room:**"])
PLACES = st.none() | st.builds(Position, st.sampled_from(["", "e", "f"]), st.integers(0, 9))
MAPS = st.dictionaries(CHANNELS, PLACES, max_size=4)
FRAMES = st.one_of(
    st.builds(Sub, ref=st.just(1), channel=CHANNELS, after=PLACES, last=st.integers(0, 5), presence=st.booleans()),
    st.builds(Unsub, ref=st.just(1), channel=CHANNELS),
    st.builds(Pub, ref=st.just(1), channel=CHANNELS, data=st.sampled_from([b"1", b"1" * 300])),
    st.builds(Seen, channel=CHANNELS, position=PLACES.filter(bool)),
    st.builds(Ping, number=st.integers(0, 3)),
    st.builds(Pong, number=st.integers(0, 3)),
    st.builds(Standby, ref=st.just(1), channels=MAPS),
)
HELLOS = st.builds(
    Hello,
    version=st.sampled_from([1, 1, 1, 1, 2]),
    session=st.sampled_from([None, "s", "a b"]),
    ticket=st.sampled_from([None, None, "t"]),
    channels=MAPS,
    is_standby=st.booleans(),
)
STEPS = st.one_of(
    FRAMES, FRAMES, FRAMES, st.sampled_from(["opened", "redeemed", "refused", "published", "promoted", "wait"]), HELLOS
)
GRANTS = st.sampled_from(
    [None, Grant.nothing(), Grant.of(subscribe=["room:*"], publish=["room:1"], presence=["**"], until=Wall(60.0))]
)
RULES = ChannelRules([("room:1", ChannelPolicy(is_presence=True, message_bytes_max=100))])
POLICY = SessionPolicy(
    subscriptions_max=2, publishes_burst=2, publishes_per_s=1.0, publishing_max=2, frames_burst=30, held_max=5
)


@settings(max_examples=400)
@given(grant=GRANTS, first=HELLOS | HELLOS | HELLOS | FRAMES, steps=st.lists(STEPS, max_size=40))
def test_each_request_is_answered_once_and_nothing_comes_before_the_welcome_or_the_promotion(  # noqa: C901, PLR0912
    grant: Grant | None, first: FromClient, steps: list[FromClient | str]
) -> None:
    session = Session(grant, POLICY, RULES, name="new")
    now, refs, waiting = 0.0, 0, 0
    asked: list[int] = []
    effects: list[SessionEffect] = []
    is_open = is_quiet = has_ended = False
    for step in ["opened", first, *steps, "redeemed", "opened"]:
        said: tuple[SessionEffect, ...] = ()
        match step:
            case "opened":
                is_open = is_open or session.stage.value.startswith("opening")
                said = session.opened(Mono(now), Wall(now))
            case "redeemed" | "refused":
                said = session.redeemed(Grant.of(subscribe=["**"]) if step == "redeemed" else None, Wall(now))
            case "published":
                if waiting:
                    session.published()
                    waiting -= 1
            case "promoted":
                said = session.promoted()
            case "wait":
                now += 5.0
                said = session.wake(Wall(now))
            case str():
                raise AssertionError(step)
            case frame:
                if isinstance(frame, Sub | Unsub | Pub | Standby):
                    refs += 1
                    if not has_ended:
                        asked.append(refs)
                    frame = with_ref(frame, refs)
                said = session.received(frame, Mono(now), Wall(now))
        for effect in said:
            assert not has_ended, "nothing follows the end"
            has_ended = isinstance(effect, End)
            if isinstance(effect, Open):
                is_quiet = effect.is_standby
            if isinstance(effect, Promote):
                assert is_quiet
                is_quiet = False
            elif not isinstance(effect, Open | Redeem | End):
                assert is_open, "nothing is said before the welcome"
            if isinstance(effect, Subscribe | Unsubscribe | Publish):
                assert not is_quiet, "a standby is quiet"
            waiting += isinstance(effect, Publish)
        effects += said
        assert len(session.channels) <= POLICY.subscriptions_max
        assert waiting <= POLICY.publishing_max
    answered = Counter(ref for effect in effects if (ref := ref_of(effect)))
    assert set(answered.values()) <= {1}, "no request is answered twice"
    if not has_ended and session.is_established:
        assert sorted(answered) == asked, "each request is answered"
    assert set(answered) <= set(asked)


def with_ref(frame: Sub | Unsub | Pub | Standby, ref: int) -> FromClient:
    return replace(frame, ref=ref)


def ref_of(effect: SessionEffect) -> int | None:
    if isinstance(effect, Answer):
        return effect.frame.ref if isinstance(effect.frame, Ack) else None
    if isinstance(effect, Subscribe | Unsubscribe | Publish | Promote):
        return effect.ref
    return None


@given(channels=MAPS, is_standby=st.booleans(), seen=st.lists(st.tuples(CHANNELS, PLACES.filter(bool)), max_size=10))
def test_what_was_seen_is_the_largest_of_its_life(
    channels: dict[str, Position | None], is_standby: bool, seen: list[tuple[str, Position]]
) -> None:
    session = Session(Grant.of(subscribe=["**"]), SessionPolicy(), RULES, name="new")
    session.received(Hello(channels=channels, is_standby=is_standby), Mono(0.0), Wall(0.0))
    session.opened(Mono(0.0), Wall(0.0))
    for channel, position in seen:
        before = session.channels.get(channel)
        session.received(Seen(channel=channel, position=position), Mono(0.0), Wall(0.0))
        after = session.channels.get(channel)
        if channel in session.channels:
            assert after is not None
            assert after.epoch == position.epoch
            assert after.seq == (
                max(before.seq, position.seq) if before and before.epoch == position.epoch else position.seq
            )
    again = Session.restored(session.state(), SessionPolicy(), RULES)
    assert again.state() == session.state()
