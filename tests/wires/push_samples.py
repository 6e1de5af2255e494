"""One frame of every kind at least, and how any frame at all is drawn."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from budao.model import Wall
from budao.push import (
    BY_CODE,
    START,
    Ack,
    Advice,
    Bye,
    Frame,
    Gap,
    Hello,
    Hole,
    Kind,
    Message,
    Missing,
    Move,
    Msg,
    Ping,
    Pong,
    Position,
    Present,
    Problem,
    Pub,
    Seen,
    Standby,
    Sub,
    Unsub,
    Welcome,
)

HERE = Position("e1", 41)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

CLIENT: Mapping[str, Frame] = {
    "hello": Hello(client="example 1.0"),
    "hello that resumes": Hello(session="s-1", channels={"room:42": HERE, "news": None}, beat_s=10.0),
    "hello of a standby": Hello(session="s-1", ticket="t-1", channels={"room:42": HERE}, is_standby=True),
    "sub": Sub(ref=1, channel="room:42"),
    "sub that goes on": Sub(ref=2, channel="room:42", after=HERE),
    "sub with the latest": Sub(ref=3, channel="room:42", last=10, presence=True),
    "unsub": Unsub(ref=4, channel="room:42"),
    "pub": Pub(ref=5, channel="room:42", data=b'{"text":"hi","size":1.50}', id="m-1"),
    "pub with a trace": Pub(ref=6, channel="room:42", data=b'"\xc3\xa9"', trace=TRACE),
    "pub of bytes": Pub(ref=7, channel="room:42", data=b"\x00\xff", kind=Kind.BYTES),
    "ack": Seen(channel="room:42", position=HERE),
    "standby that promotes": Standby(ref=8, channels={"room:42": HERE}),
    "ping": Ping(number=9),
    "pong": Pong(number=9),
    "bye": Bye(),
}

GATEWAY: Mapping[str, Frame] = {
    "welcome": Welcome(
        session="s-1",
        gateway="g-1",
        resumed=True,
        channels={"room:42": HERE},
        refused={"secret": Problem(why="forbidden", happened="the token does not allow to read 'secret'")},
        beat_s=10.0,
        peers=("wss://g-2.example/v1/stream",),
        frame_bytes_max=262144,
    ),
    "ack of a sub": Ack(ref=1, position=HERE),
    "ack of a pub said twice": Ack(ref=5, position=HERE, is_repeat=True),
    "ack of a refusal": Ack(
        ref=5, problem=Problem(why="rate", happened="more than 50 messages a second", after_s=0.25)
    ),
    "ack of a promotion": Ack(
        ref=8, channels={"room:42": HERE}, refused={"x": Problem(why="forbidden", happened="not allowed")}
    ),
    "msg": Msg(
        Message("room:42", Position("e1", 42), b'{"text":"hi","size":1.50}', Kind.JSON, Wall(1700000000.25), "m-1")
    ),
    "msg with a trace": Msg(Message("news", Position("e1", 1), b"null", Kind.JSON, Wall(0.0), trace=TRACE)),
    "msg of bytes": Msg(Message("room:42", Position("e1", 43), b"\x00\xff", Kind.BYTES, Wall(1700000001.0))),
    "gap": Missing(Gap("room:42", HERE, Position("e1", 90), Hole.TRIMMED)),
    "gap from the start": Missing(Gap("room:42", START, Position("e2", 7), Hole.EPOCH)),
    "presence": Present(channel="room:42", joined=("anna",), left=("ben",), count=2),
    "standby": Standby(url="wss://g-2.example/v1/stream", ticket="t-1"),
    "move": Move(url="wss://g-2.example/v1/stream", ticket="t-1", within_s=5.0),
    "beat": Ping(),
    "pong": Pong(number=9),
    "pong with load": Pong(number=9, load_share=0.25),
    "bye": Bye(code=4200, why="full", advice=Advice.LATER, after_s=3.5, detail="no room for more connections"),
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
refs = st.integers(1, 2**53)
positions = st.builds(Position, texts, st.integers(0, 2**63 - 1))
spans = st.floats(0.0, 1e9) | st.integers(0, 1000).map(float)
channels = st.dictionaries(names, st.none() | positions, max_size=3)
placed = st.dictionaries(names, positions, max_size=3)
problems = st.builds(Problem, why=names, happened=texts, after_s=spans)
refused = st.dictionaries(names, problems, max_size=2)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
traces = st.none() | st.just(TRACE)
ids = st.none() | printable
advices = st.sampled_from(Advice)

without_data_from_client = st.one_of(
    st.builds(
        Hello,
        version=st.integers(0, 9),
        session=st.none() | texts,
        ticket=st.none() | texts,
        channels=channels,
        is_standby=st.booleans(),
        beat_s=st.none() | spans,
        client=st.none() | texts,
    ),
    st.builds(
        Sub, ref=refs, channel=names, after=st.none() | positions, last=st.integers(0, 9), presence=st.booleans()
    ),
    st.builds(Unsub, ref=refs, channel=names),
    st.builds(Seen, channel=names, position=positions),
    st.builds(Standby, ref=refs, channels=channels),
    st.builds(Ping, number=st.integers(0, 2**53)),
    st.builds(Pong, number=st.integers(0, 2**53)),
    st.builds(Bye, code=st.sampled_from(sorted(BY_CODE)), why=names, advice=advices, after_s=spans, detail=texts),
)
without_data_from_gateway = st.one_of(
    st.builds(
        Welcome,
        version=st.integers(0, 9),
        session=names,
        gateway=names,
        resumed=st.booleans(),
        channels=placed,
        refused=refused,
        beat_s=spans,
        peers=st.lists(texts, max_size=3).map(tuple),
        frame_bytes_max=st.integers(0, 10**9),
    ),
    st.builds(
        Ack,
        ref=refs,
        position=st.none() | positions,
        is_repeat=st.booleans(),
        problem=st.none() | problems,
        channels=placed,
        refused=refused,
    ),
    st.builds(Gap, names, positions, positions, st.sampled_from(Hole)).map(Missing),
    st.builds(
        Present,
        channel=names,
        joined=st.lists(texts, max_size=3).map(tuple),
        left=st.lists(texts, max_size=3).map(tuple),
        count=st.integers(0, 10**6),
    ),
    st.builds(Standby, url=st.none() | texts, ticket=st.none() | texts),
    st.builds(Move, url=names, ticket=st.none() | texts, within_s=spans, why=names),
    st.builds(Ping, number=st.integers(0, 2**53)),
    st.builds(Pong, number=st.integers(0, 2**53), load_share=st.floats(0.0, 1.0)),
    st.builds(Bye, code=st.sampled_from(sorted(BY_CODE)), why=names, advice=advices, after_s=spans, detail=texts),
)
