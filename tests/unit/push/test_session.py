from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Mapping

import pytest

from budao.model import Mono, Wall
from budao.push import (
    Ack,
    Answer,
    Bye,
    ChannelPolicy,
    ChannelRules,
    Draft,
    End,
    FromClient,
    Grant,
    Heard,
    Hello,
    Kind,
    Malformed,
    Open,
    Ping,
    Pong,
    Position,
    Problem,
    Promote,
    Pub,
    Publish,
    Redeem,
    Seen,
    Session,
    SessionEffect,
    SessionPolicy,
    SessionState,
    Stage,
    Standby,
    Sub,
    Subscribe,
    Unsub,
    Unsubscribe,
)

NOW, WALL = Mono(10.0), Wall(1000.0)
PLACE = Position("e1", 41)
GRANT = Grant.of(
    subject="anna", subscribe=["room:*", "news"], publish=["room:*"], presence=["room:*"], until=Wall(2000.0)
)
RULES = ChannelRules(
    [
        ("room:small", ChannelPolicy(message_bytes_max=4)),
        ("room:live", ChannelPolicy(is_presence=True, begins_with=1, history_count=5)),
    ]
)


def new(grant: Grant | None = GRANT, **settings: float) -> Session:
    return Session(grant, SessionPolicy(**settings), RULES, name="s-new")  # type: ignore[arg-type]


def opened(
    *, is_standby: bool = False, channels: Mapping[str, Position | None] | None = None, **settings: float
) -> Session:
    session = new(**settings)
    session.received(Hello(is_standby=is_standby, channels=channels or {}), NOW, WALL)
    assert session.opened(NOW, WALL) == ()
    return session


def say(session: Session, *frames: FromClient) -> tuple[SessionEffect, ...]:
    effects: tuple[SessionEffect, ...] = ()
    for frame in frames:
        effects += session.received(frame, NOW, WALL)
    return effects


def ended(effects: tuple[SessionEffect, ...]) -> Bye:
    last = effects[-1]
    assert isinstance(last, End)
    return last.bye


def why(effects: tuple[SessionEffect, ...]) -> str | None:
    (effect,) = effects
    assert isinstance(effect, Answer)
    assert isinstance(effect.frame, Ack)
    return None if effect.frame.problem is None else effect.frame.problem.why


# ------------------------------------------------------------------------------------------------------ hello


def test_a_hello_opens_the_session_with_what_it_may_read() -> None:
    session = new()
    hello = Hello(session="s-1", channels={"room:1": PLACE, "secret": None, "a b": None}, beat_s=5.0, client="c 1")
    (effect,) = say(session, hello)
    assert isinstance(effect, Open)
    assert (effect.session, effect.is_resumed, effect.is_standby, effect.beat_s) == ("s-1", True, False, 5.0)
    assert effect.subscribe == (Subscribe(0, "room:1", PLACE, 0),)
    assert {channel: problem.why for channel, problem in effect.refused.items()} == {
        "secret": "forbidden",
        "a b": "bad-channel",
    }
    welcome = effect.welcome("g-1", {"room:1": PLACE}, peers=("b",), frame_bytes_max=9)
    assert (welcome.session, welcome.gateway, welcome.resumed, set(welcome.refused)) == (
        "s-1",
        "g-1",
        True,
        {"secret", "a b"},
    )
    assert not session.is_established
    assert session.opened(NOW, WALL) == ()
    assert session.stage is Stage.OPEN
    assert session.id == "s-1"


def test_a_hello_without_a_session_has_the_name_it_was_given() -> None:
    (effect,) = say(new(), Hello())
    assert isinstance(effect, Open)
    assert (effect.session, effect.is_resumed) == ("s-new", False)


@pytest.mark.parametrize(("wish_s", "beat_s"), [(None, 25.0), (0.01, 0.05), (500.0, 60.0), (7.0, 7.0)])
def test_the_beat_is_as_wished_within_bounds(wish_s: float | None, beat_s: float) -> None:
    (effect,) = say(new(), Hello(beat_s=wish_s))
    assert isinstance(effect, Open)
    assert effect.beat_s == beat_s


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Sub(ref=1, channel="room:1"), 4303),
        (Ping(number=1), 4303),
        (Hello(version=2), 4305),
        (Hello(version=0), 4305),
        (Hello(session="a b"), 4303),
        (Hello(session=""), 4303),
        (Hello(session="x" * 65), 4303),
        (Bye(), 1000),
    ],
)
def test_what_is_no_good_first_frame_ends_it(frame: FromClient, code: int) -> None:
    session = new()
    assert ended(say(session, frame)).code == code
    assert session.stage is Stage.ENDED
    assert say(session, Hello(), Ping(number=1)) == ()


def test_a_second_hello_ends_it() -> None:
    assert ended(say(opened(), Hello())).code == 4303
    assert ended(say(new(), Hello(), Hello())).code == 4303


def test_more_channels_than_allowed_are_refused_in_the_welcome() -> None:
    (effect,) = say(new(subscriptions_max=2), Hello(channels={f"room:{n}": None for n in range(4)}))
    assert isinstance(effect, Open)
    assert [each.channel for each in effect.subscribe] == ["room:0", "room:1"]
    assert {problem.why for problem in effect.refused.values()} == {"too-many"}


def test_a_flood_of_names_is_not_answered_one_by_one() -> None:
    names = dict.fromkeys(map(str, range(5)), None)
    assert ended(say(new(subscriptions_max=2), Hello(channels=names))).code == 4303
    session = opened(is_standby=True, subscriptions_max=2)
    assert why(say(session, Standby(ref=1, channels=names))) == "too-many"
    assert session.stage is Stage.STANDBY


def test_what_comes_before_the_welcome_waits_for_it() -> None:
    session = new()
    assert len(say(session, Hello())) == 1
    assert say(session, Sub(ref=1, channel="room:1"), Ping(number=3)) == ()
    assert session.opened(NOW, WALL) == (Subscribe(1, "room:1", None, 0), Answer(Pong(number=3)))
    assert session.opened(NOW, WALL) == ()


def test_too_much_before_the_welcome_ends_it() -> None:
    session = new(held_max=2)
    assert ended(say(session, Hello(), *(Ping(number=n) for n in range(1, 4)))).code == 4202
    assert session.opened(NOW, WALL) == ()
    session = new(frame_bytes_max=1024)
    assert ended(say(session, Hello(), *(Pub(ref=n, channel="room:1", data=b"1" * 600) for n in (1, 2)))).code == 4202


def test_nothing_that_was_held_is_dealt_with_after_a_bad_one() -> None:
    session = new()
    say(session, Hello(), Standby(channels={}), Ping(number=1))
    assert [type(effect) for effect in session.opened(NOW, WALL)] == [End]


# ----------------------------------------------------------------------------------------------------- tickets


def test_a_ticket_is_looked_at_before_anything_else() -> None:
    session = new(None)
    assert say(session, Hello(session="s-1", ticket="secret-ticket")) == (Redeem("secret-ticket", "s-1"),)
    assert "secret-ticket" not in repr(Redeem("secret-ticket", "s-1"))
    assert say(session, Ping(number=2)) == ()
    (effect,) = session.redeemed(GRANT, WALL)
    assert isinstance(effect, Open)
    assert session.redeemed(GRANT, WALL) == ()
    assert session.opened(NOW, WALL) == (Answer(Pong(number=2)),)


def test_a_bad_ticket_ends_it_and_an_old_grant_as_well() -> None:
    session = new(None)
    say(session, Hello(ticket="t"))
    bye = ended(session.redeemed(None, WALL, happened="used before"))
    assert (bye.code, bye.detail) == (4304, "used before")
    session = new(None)
    say(session, Hello(ticket="t"))
    assert ended(session.redeemed(GRANT, Wall(3000.0))).code == 4301


def test_without_token_and_ticket_nothing_opens() -> None:
    assert ended(say(new(None), Hello())).code == 4300


# --------------------------------------------------------------------------------------------- sub and unsub


def test_a_sub_becomes_a_subscription_once() -> None:
    session = opened()
    assert say(session, Sub(ref=1, channel="room:1", after=PLACE, last=9)) == (Subscribe(1, "room:1", PLACE, 0),)
    assert why(say(session, Sub(ref=2, channel="room:1"))) == "subscribed"
    assert say(session, Unsub(ref=3, channel="room:1")) == (Unsubscribe(3, "room:1"),)
    assert say(session, Unsub(ref=4, channel="room:1")) == (Answer(Ack(ref=4)),)
    assert say(session, Sub(ref=5, channel="room:1")) == (Subscribe(5, "room:1", None, 0),)


def test_a_sub_begins_with_as_many_as_asked_or_as_its_channel_says_and_never_more_than_are_kept() -> None:
    assert say(opened(), Sub(ref=1, channel="room:live")) == (Subscribe(1, "room:live", None, 1),)
    assert say(opened(), Sub(ref=1, channel="room:live", last=3)) == (Subscribe(1, "room:live", None, 3),)
    assert say(opened(), Sub(ref=1, channel="room:live", last=99)) == (Subscribe(1, "room:live", None, 5),)


@pytest.mark.parametrize(
    ("sub", "problem"),
    [
        (Sub(ref=1, channel="secret"), "forbidden"),
        (Sub(ref=1, channel="*"), "bad-channel"),
        (Sub(ref=1, channel="\ud800"), "bad-channel"),
        (Sub(ref=1, channel="news", presence=True), "forbidden"),
        (Sub(ref=1, channel="room:1", presence=True), "no-presence"),
    ],
)
def test_a_sub_that_may_not_be_is_answered_and_the_connection_stays(sub: Sub, problem: str) -> None:
    session = opened()
    assert why(say(session, sub)) == problem
    assert session.is_established
    assert session.channels == {}


def test_subscriptions_are_bounded_and_what_is_left_makes_room() -> None:
    session = opened(subscriptions_max=1)
    say(session, Sub(ref=1, channel="room:1"))
    assert why(say(session, Sub(ref=2, channel="room:2"))) == "too-many"
    session.forget("room:1")
    assert say(session, Sub(ref=3, channel="room:2")) == (Subscribe(3, "room:2", None, 0),)


# ------------------------------------------------------------------------------------------------- publishing


def test_a_pub_becomes_a_draft() -> None:
    pub = Pub(ref=1, channel="room:1", data=b"1", kind=Kind.BYTES, id="m", trace="t")
    assert say(opened(), pub) == (Publish(1, Draft("room:1", b"1", Kind.BYTES, "m", "t")),)


@pytest.mark.parametrize(
    ("pub", "problem"),
    [
        (Pub(ref=1, channel="news", data=b"1"), "forbidden"),
        (Pub(ref=1, channel="room:", data=b"1"), "bad-channel"),
        (Pub(ref=1, channel="room:small", data=b"12345"), "too-large"),
    ],
)
def test_a_pub_that_may_not_be_is_answered_and_the_connection_stays(pub: Pub, problem: str) -> None:
    session = opened()
    assert why(say(session, pub)) == problem
    assert session.is_established


def test_publishing_too_fast_is_refused_until_as_long_as_it_says() -> None:
    session = opened(publishes_per_s=2.0, publishes_burst=2)
    pub = Pub(ref=1, channel="room:1", data=b"1")
    assert len(say(session, pub, pub)) == 2
    (effect,) = say(session, pub)
    assert isinstance(effect, Answer)
    assert isinstance(effect.frame, Ack)
    assert effect.frame.problem is not None
    assert (effect.frame.problem.why, round(effect.frame.problem.after_s, 9)) == ("rate", 0.5)
    assert isinstance(session.received(pub, Mono(NOW + 0.51), WALL)[0], Publish)


def test_only_so_many_messages_wait_for_the_log() -> None:
    session = opened(publishing_max=1)
    pub = Pub(ref=1, channel="room:1", data=b"1")
    say(session, pub)
    assert why(say(session, pub)) == "busy"
    session.published()
    assert isinstance(say(session, pub)[0], Publish)


def test_too_many_frames_end_it_with_when_to_come_back() -> None:
    session = opened(frames_per_s=10.0, frames_burst=3)
    bye = ended(say(session, *(Ping(number=1) for _ in range(4))))
    assert (bye.code, round(bye.after_s, 9)) == (4202, 0.1)


def test_a_malformed_request_is_answered_and_counts_like_any_other() -> None:
    bad = Malformed(4, Problem(why="bad-data", happened="NaN is not JSON"))
    session = opened(frames_per_s=10.0, frames_burst=2)
    assert session.received(bad, NOW, WALL) == (Answer(Ack(ref=4, problem=bad.problem)),)
    session.received(bad, NOW, WALL)
    assert ended(session.received(bad, NOW, WALL)).code == 4202
    assert ended(new().received(bad, NOW, WALL)).code == 4303


# ------------------------------------------------------------------------------------------- pings, acks, time


def test_pings_are_answered_and_beats_are_not() -> None:
    assert say(opened(), Ping(number=7), Ping(), Pong(number=3)) == (Answer(Pong(number=7)), Heard(3))


def test_what_was_seen_only_grows_within_a_life() -> None:
    session = opened()
    say(session, Sub(ref=1, channel="room:1"))
    for position, kept in [(PLACE, PLACE), (Position("e1", 7), PLACE), (Position("e1", 50), Position("e1", 50)),
                           (Position("e2", 1), Position("e2", 1))]:  # fmt: skip
        assert say(session, Seen(channel="room:1", position=position)) == ()
        assert session.channels["room:1"] == kept
    assert say(session, Seen(channel="room:2", position=PLACE)) == ()
    assert "room:2" not in session.channels


def test_a_grant_that_ran_out_ends_it_at_its_instant() -> None:
    session = opened()
    assert session.wake_at() == Wall(2000.0)
    assert session.wake(Wall(1999.0)) == ()
    assert ended(session.wake(Wall(2000.0))).code == 4301
    assert session.wake(Wall(2000.0)) == ()
    assert session.wake_at() is None
    assert ended(opened().received(Ping(number=1), NOW, Wall(2000.0))).code == 4301
    session = new()
    say(session, Hello(), Ping(number=1))
    assert ended(session.opened(NOW, Wall(2000.0))).code == 4301


def test_the_gateway_ends_it_once() -> None:
    session = opened()
    bye = ended(session.end("slow", after_s=2.0, detail="behind"))
    assert (bye.code, bye.after_s, bye.detail) == (4101, 2.0, "behind")
    assert session.end("slow") == ()
    assert session.promoted() == ()


# ----------------------------------------------------------------------------------------------------- standby


def test_a_standby_remembers_and_delivers_nothing_until_it_is_promoted() -> None:
    session = opened(is_standby=True, channels={"room:1": PLACE})
    assert session.stage is Stage.STANDBY
    assert say(session, Sub(ref=1, channel="room:2")) == (Answer(Ack(ref=1)),)
    assert say(session, Sub(ref=2, channel="room:3"), Unsub(ref=3, channel="room:3")) == (
        Answer(Ack(ref=2)),
        Answer(Ack(ref=3)),
    )
    assert why(say(session, Pub(ref=4, channel="room:1", data=b"1"))) == "standby"
    later = Position("e1", 99)
    (effect,) = say(session, Standby(ref=5, channels={"room:1": later, "secret": PLACE, "room:9": None}))
    assert isinstance(effect, Promote)
    assert effect.ref == 5
    assert effect.subscribe == (
        Subscribe(0, "room:1", later, 0), Subscribe(0, "room:2", None, 0), Subscribe(0, "room:9", None, 0),
    )  # fmt: skip
    assert [problem.why for problem in effect.refused.values()] == ["forbidden"]
    assert session.stage is Stage.OPEN
    assert why(say(session, Standby(ref=6))) == "not-standby"


def test_a_gateway_promotes_from_the_places_it_knows() -> None:
    session = opened(is_standby=True, channels={"room:1": PLACE, "room:live": None})
    say(session, Seen(channel="room:1", position=Position("e1", 60)))
    (effect,) = session.promoted()
    assert isinstance(effect, Promote)
    assert effect.ref is None
    assert effect.subscribe == (Subscribe(0, "room:1", Position("e1", 60), 0), Subscribe(0, "room:live", None, 1))
    assert session.promoted() == ()


def test_a_promotion_without_a_place_goes_on_from_the_remembered_one() -> None:
    session = opened(is_standby=True, channels={"room:1": PLACE})
    (effect,) = say(session, Standby(ref=1, channels={"room:1": None}))
    assert isinstance(effect, Promote)
    assert effect.subscribe == (Subscribe(0, "room:1", PLACE, 0),)


# ------------------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("is_standby", [False, True])
def test_a_session_goes_on_elsewhere_as_it_was(is_standby: bool) -> None:
    session = opened(is_standby=is_standby)
    say(session, Sub(ref=1, channel="room:live", presence=True), Sub(ref=2, channel="room:1"))
    say(session, Seen(channel="room:1", position=PLACE))
    state = session.state()
    assert state == SessionState(
        session="s-new",
        grant=GRANT,
        is_standby=is_standby,
        channels=(("room:live", None), ("room:1", PLACE)),
        presence=("room:live",),
    )
    again = Session.restored(state, SessionPolicy(), RULES)
    assert again.state() == state
    assert why(say(again, Sub(ref=3, channel="room:1"))) == "subscribed"
    assert again.wake_at() == Wall(2000.0)


def test_a_session_with_one_subscription_is_small() -> None:
    policy = SessionPolicy()

    def one(number: int) -> Session:
        session = Session(GRANT, policy, RULES, name=f"{number:032x}")
        session.received(Hello(channels={"room:1": PLACE}), NOW, WALL)
        session.opened(NOW, WALL)
        return session

    one(0)
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        sessions = [one(number) for number in range(500)]
        each = (tracemalloc.get_traced_memory()[0] - before) / len(sessions)
    finally:
        if not was_tracing:
            tracemalloc.stop()
    assert each < 700, (each, sys.version)
