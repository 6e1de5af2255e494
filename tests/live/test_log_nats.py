"""A log in NATS JetStream holds the laws of every log, and what NATS does to it is noticed and mended."""

from __future__ import annotations

import asyncio
import hashlib
import json
from base64 import b32encode, urlsafe_b64encode
from binascii import crc_hqx
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from budao.adapters.logs import open_log
from budao.adapters.nats import NatsLog, StreamPolicy, Where
from budao.push import (
    START,
    Appended,
    ChannelPolicy,
    ChannelRules,
    Draft,
    Hole,
    Jumped,
    Kind,
    LogAway,
    LogCameBack,
    LogRefused,
    LogWentAway,
    NotPlaced,
    Placed,
    Position,
)
from tests.live.certificates import Authority
from tests.live.log_suite import Fresh, Open, hold, patient
from tests.live.nats_server import NatsServer, nats_serving

NUMBERS = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_serving(tmp_path_factory.mktemp("nats")) as serving:
        yield serving


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_serving(tmp_path / "nats") as serving:
        yield serving


def policy(**settings: Any) -> StreamPolicy:
    number = next(NUMBERS)
    return StreamPolicy(**{"stream": f"S{number}", "prefix": f"p{number}"} | settings)


def log_at(server: NatsServer, stream: StreamPolicy, kept: ChannelPolicy | None = None, **settings: Any) -> NatsLog:
    where = Where(servers=(("127.0.0.1", server.port),))
    return NatsLog(where, rules=ChannelRules(otherwise=kept), policy=stream, **settings)


def on(server: NatsServer) -> Fresh:
    def fresh(kept: ChannelPolicy) -> Open:
        stream = policy(spare_count=300)
        return lambda: log_at(server, stream, kept)

    return fresh


def test_the_laws_of_a_log_hold_on_a_real_server(server: NatsServer) -> None:
    asyncio.run(hold(on(server), survives=True))


async def holds(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not claim():  # noqa: ASYNC110 - conditions of any kind
            await asyncio.sleep(0.01)


async def until_heard(feed: Any, wanted: int, seen: list[int]) -> None:
    while len(seen) < wanted:
        for news in await patient(feed.next()):
            if isinstance(news, Appended):
                seen += [message.position.seq for message in news.messages]


def test_several_logs_publish_to_one_channel_without_holes_or_twins(server: NatsServer) -> None:
    async def main() -> None:
        stream = policy()
        async with log_at(server, stream) as one, log_at(server, stream) as other, one.feed() as feed:
            await patient(feed.follow("news"))
            drafts = [[Draft("news", b"%d" % number, id=f"{who}-{number}")] for number in range(40) for who in "ab"]
            answers = await patient(
                asyncio.gather(*(log.publish(each) for each in drafts for log in (one, other)))  # everything twice
            )
            placed = [answer for (answer,) in answers if isinstance(answer, Placed)]
            assert len(placed) == len(answers)
            assert sorted(each.position.seq for each in placed if not each.is_repeat) == list(range(1, 81))
            assert {each.position.seq for each in placed if each.is_repeat} == set(range(1, 81))
            seen: list[int] = []
            await until_heard(feed, 80, seen)
            assert seen == list(range(1, 81))

    asyncio.run(main())


def test_logs_that_know_nothing_of_each_other_give_no_number_twice(server: NatsServer) -> None:
    async def main() -> None:
        stream = policy()
        async with log_at(server, stream) as one, log_at(server, stream) as other:
            answers = await patient(
                asyncio.gather(*(log.publish([Draft("news", b"1")]) for _ in range(60) for log in (one, other)))
            )
            places = sorted(answer.position.seq for (answer,) in answers if isinstance(answer, Placed))
            assert places == list(range(1, 121))
            messages = (await patient(one.read("news", START))).messages
            assert [each.position.seq for each in messages] == places

    asyncio.run(main())


def test_reading_from_the_middle_of_a_long_channel_among_many_finds_its_place(server: NatsServer) -> None:
    async def main() -> None:
        async with log_at(server, policy()) as log:
            for turn in range(20):
                drafts = [Draft(f"c{index % 5}", b"%d" % (turn * 50 + index)) for index in range(100)]
                await patient(log.publish(drafts))
            head = (await patient(log.latest("c3", 0))).head
            assert head.seq == 400
            for after in (0, 1, 7, 150, 233, 380, 399, 400):
                stretch = await patient(log.read("c3", Position(head.epoch, after), count_max=90))
                assert [each.position.seq for each in stretch.messages] == list(range(after + 1, min(401, after + 91)))
                assert stretch.more == (after + 90 < 400)
            small = await patient(log.read("c3", Position(head.epoch, 100), bytes_max=1))
            assert [each.position.seq for each in small.messages] == [101]
            elsewhere = await patient(log.read("c3", Position("other", 100), count_max=3))
            assert [each.position.seq for each in elsewhere.messages] == [1, 2, 3]

    asyncio.run(main())


def test_the_bounds_of_a_channels_own_rule_hold_when_it_is_read(server: NatsServer) -> None:
    rules = ChannelRules(
        [
            ("few", ChannelPolicy(history_count=2)),
            ("none", ChannelPolicy(history_count=0)),
            ("light", ChannelPolicy(history_bytes=25)),
            ("brief", ChannelPolicy(history_age_s=0.2)),
        ]
    )

    async def main() -> None:
        where = Where(servers=(("127.0.0.1", server.port),))
        async with NatsLog(where, rules=rules, policy=policy()) as log:
            for channel in ("few", "none", "light", "brief"):
                await patient(log.publish([Draft(channel, b"0123456789")] * 30))

            async def seqs(channel: str) -> list[int]:
                return [each.position.seq for each in (await patient(log.read(channel, START))).messages]

            assert await seqs("few") == [29, 30]
            assert await seqs("none") == []
            assert (await patient(log.latest("none", 5))).head.seq == 30
            assert await seqs("light") == [29, 30]
            async with asyncio.timeout(30):
                while await seqs("brief"):  # noqa: ASYNC110 - nothing tells that it is old
                    await asyncio.sleep(0.05)
            assert (await patient(log.latest("brief", 5))).head.seq == 30

    asyncio.run(main())


def test_names_ids_traces_and_data_come_back_as_they_were(server: NatsServer) -> None:
    async def main() -> None:
        drafts = [
            Draft("a.b:c/d>e*"[:-1], b"\x00\r\n\xff", Kind.BYTES, "an id:\u00fc %41 ", "00-trace"),
            Draft("$JS.API", b"1"),
            Draft("\u4e0d\u5012", b"", Kind.BYTES, "*>." * 20),
            Draft("x" * 200, b"2", id="\u00fc" * 100),
        ]
        async with log_at(server, policy()) as log, log.feed() as feed:
            for draft in drafts:
                await patient(feed.follow(draft.channel))
                (placed,) = await patient(log.publish([draft]))
                assert isinstance(placed, Placed), placed
                (message,) = (await patient(log.read(draft.channel, START))).messages
                assert Draft(message.channel, message.data, message.kind, message.id, message.trace) == draft
                (news,) = await patient(feed.next())
                assert news == Appended(draft.channel, (message,))

    asyncio.run(main())


def test_a_repeat_of_what_is_kept_no_more_stands_before_what_is(server: NatsServer) -> None:
    async def main() -> None:
        stream = policy(spare_count=0)
        async with log_at(server, stream, ChannelPolicy(history_count=5)) as log:
            await patient(log.publish([Draft("news", b"1", id=f"id{number}") for number in range(20)]))
        async with log_at(server, stream, ChannelPolicy(history_count=5)) as log:
            (again,) = await patient(log.publish([Draft("news", b"1", id="id3")]))
            assert isinstance(again, Placed)
            assert (again.is_repeat, again.position.seq) == (True, 15)
            assert (await patient(log.latest("news", 1))).head.seq == 20

    asyncio.run(main())


def test_a_channel_whose_messages_are_gone_begins_a_new_life(server: NatsServer) -> None:
    async def main() -> None:
        stream = policy()
        async with log_at(server, stream) as log, log.feed() as feed:
            await patient(log.publish([Draft("news", b"1")] * 3))
            before = (await patient(feed.follow("news"))).head
            await log.keeper.api(f"STREAM.PURGE.{stream.stream}")
            assert (await patient(log.read("news", before))).head == START
            (placed,) = await patient(log.publish([Draft("news", b"2")]))
            assert isinstance(placed, Placed)
            assert placed.position.seq == 1
            assert placed.position.epoch != before.epoch
            told: list[Any] = []
            while len(told) < 2:
                told += await patient(feed.next())
            assert told[0] == Jumped("news", Position(placed.position.epoch, 0), Hole.EPOCH)
            assert isinstance(told[1], Appended)
            assert told[1].messages[0].position == placed.position

    asyncio.run(main())


def test_a_last_message_that_was_not_told_is_found(server: NatsServer) -> None:
    async def main() -> None:
        async with log_at(server, policy(), check_s=0.2) as log, log.feed() as feed:
            await patient(feed.follow("news"))
            log.link.unsubscribe(feed._sids["news"])  # as if the news had been lost on its way
            await patient(log.publish([Draft("news", b"1")] * 3))
            seen: list[int] = []
            await until_heard(feed, 3, seen)
            assert seen == [1, 2, 3]

    asyncio.run(main())


def test_what_is_larger_than_the_server_takes_is_refused(tmp_path: Path) -> None:
    async def main(server: NatsServer) -> None:
        async with log_at(server, policy()) as log:
            answers = await patient(log.publish([Draft("news", b"x" * 5000), Draft("news", b"1")]))
            assert isinstance(answers[0], NotPlaced)
            assert answers[0].why == "too-large"
            assert isinstance(answers[1], Placed)
            assert answers[1].position.seq == 1

    with nats_serving(tmp_path, more="max_payload: 4096") as server:
        asyncio.run(main(server))


# ------------------------------------------------------------------------------------------- the server goes away


@asynccontextmanager
async def publishing(log: NatsLog, done: dict[str, Position], *, until: asyncio.Event) -> AsyncIterator[None]:
    """Publishes numbers in order, each with its id until it is acknowledged, as a client does."""

    async def work(channel: str) -> None:
        number = 0
        while not until.is_set():
            name = f"{channel}-{number}"
            try:
                (placed,) = await log.publish([Draft(channel, b"%d" % number, id=name)])
            except LogAway:
                continue
            assert isinstance(placed, Placed)
            done[name] = placed.position
            number += 1
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(work(channel)) for channel in ("a", "b", "c")]
    try:
        yield
    finally:
        until.set()
        await patient(asyncio.gather(*tasks))


async def check_all(log: NatsLog, done: dict[str, Position]) -> None:
    for channel in ("a", "b", "c"):
        messages = (await patient(log.read(channel, START, count_max=100_000, bytes_max=1 << 30))).messages
        assert [each.data for each in messages] == [b"%d" % number for number in range(len(messages))], "each once"
        assert [each.position.seq for each in messages] == list(range(1, len(messages) + 1))
        for message in messages:
            assert done.get(message.id or "", message.position) == message.position
        assert sum(name.startswith(channel) for name in done) <= len(messages), "nothing acknowledged is lost"


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_nothing_acknowledged_is_lost_or_doubled_while_the_server_is(how: str, own_server: NatsServer) -> None:
    async def main() -> None:
        done: dict[str, Position] = {}
        kept = ChannelPolicy(history_count=100_000, history_bytes=1 << 30)
        # Nothing is looked for later: what was missed is found as soon as the server is back.
        async with log_at(own_server, policy(), kept, timeout_s=1.0, check_s=3_600.0) as log, log.feed() as feed:
            heads = {channel: (await patient(feed.follow(channel))).head for channel in "abc"}
            over = asyncio.Event()
            away = back = 0
            places = dict(heads)

            async def listen() -> None:
                nonlocal away, back
                while True:
                    for news in await feed.next():
                        away += isinstance(news, LogWentAway)
                        back += isinstance(news, LogCameBack)
                        assert not isinstance(news, Jumped)
                        if isinstance(news, Appended):
                            for message in news.messages:
                                assert message.position.seq == places[news.channel].seq + 1
                                places[news.channel] = message.position

            listening = asyncio.create_task(listen())
            async with publishing(log, done, until=over):
                for _ in range(3):
                    count_before = len(done)
                    await holds(lambda: len(done) >= count_before + 30)  # noqa: B023 - it is awaited here
                    if how == "killed":
                        own_server.kill()
                        await asyncio.sleep(0.3)
                        own_server.start(waits=False)
                    else:
                        with own_server.frozen():
                            await holds(lambda: not log.link.is_up)
            await check_all(log, done)
            ends = {channel: (await patient(log.latest(channel, 0))).head for channel in "abc"}
            await holds(lambda: places == ends)
            assert away == back >= 3
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    asyncio.run(main())


def test_a_server_that_is_not_there_is_away_and_nothing_was_done(own_server: NatsServer) -> None:
    async def main() -> None:
        async with log_at(own_server, policy(), timeout_s=0.3) as log:
            own_server.kill()
            with pytest.raises(LogAway) as away:
                await patient(log.publish([Draft("news", b"1")]))
            assert not away.value.may_have_taken_effect
            with pytest.raises(LogAway):
                await patient(log.read("news", START))
            own_server.start()
            async with asyncio.timeout(30):
                while True:
                    try:
                        (placed,) = await log.publish([Draft("news", b"1")])
                    except LogAway:
                        continue
                    break
            assert isinstance(placed, Placed)
            with own_server.frozen(), pytest.raises(LogAway) as away:
                await patient(log.publish([Draft("news", b"2")]))
            assert away.value.may_have_taken_effect

    asyncio.run(main())


def test_an_attempt_that_nobody_heard_of_is_found_in_the_stream_and_not_repeated(server: NatsServer) -> None:
    """The answer to a publish without an id is lost: whether it was taken is looked up, once it was and once it was not."""

    async def main() -> None:
        async with log_at(server, policy()) as log:
            await patient(log.publish([Draft("news", b"0")]))
            request, lost = log.link.request, ["taken", "not taken"]

            async def losing(subject: str, data: bytes, **how: Any) -> Any:
                if subject.startswith(log.policy.channels) and lost:
                    if lost.pop(0) == "taken":
                        await request(subject, data, **how)
                    raise TimeoutError
                return await request(subject, data, **how)

            log.link.request = losing  # type: ignore[method-assign]
            answers = [(await patient(log.publish([Draft("news", b"%d" % number)])))[0] for number in (1, 2, 3)]
            assert [each.position.seq for each in answers if isinstance(each, Placed)] == [2, 3, 4]
            assert [each.data for each in (await patient(log.latest("news", 9))).messages] == [b"0", b"1", b"2", b"3"]

    asyncio.run(main())


# ---------------------------------------------------------------------------------------------- streams and access


def test_somebody_elses_stream_is_not_used(server: NatsServer) -> None:
    async def main() -> None:
        theirs, ours = policy(), policy()
        async with log_at(server, theirs) as log:
            await patient(log.publish([Draft("news", b"1")]))
            settings = {"name": ours.stream, "subjects": ["orders"], "storage": "file", "retention": "workqueue"}
            await log.keeper.api(f"STREAM.CREATE.{ours.stream}", settings)
        async with log_at(server, ours) as log:
            with pytest.raises(LogRefused, match="retention is 'workqueue' and has to be 'limits'"):
                await patient(log.publish([Draft("news", b"1")]))
        overlapping = StreamPolicy(stream="Another", prefix=theirs.prefix)
        async with log_at(server, overlapping) as log:
            with pytest.raises(LogRefused, match="overlap"):
                await patient(log.read("news", START))

    asyncio.run(main())


def test_bounds_of_a_stream_grow_with_the_rules_and_never_shrink(server: NatsServer) -> None:
    async def main() -> None:
        stream = policy(spare_count=0)
        for count_, bound in ((10, 10), (50, 50), (20, 50)):
            async with log_at(server, stream, ChannelPolicy(history_count=count_)) as log:
                await patient(log.publish([Draft("news", b"1")]))
                found = (await log.keeper.api(f"STREAM.INFO.{stream.stream}"))["config"]
                assert found["max_msgs_per_subject"] == bound

    asyncio.run(main())


def test_replicas_need_a_server_that_takes_one_message_for_each_place(server: NatsServer) -> None:
    async def main() -> None:
        async with log_at(server, policy(replicas=3)) as log:
            await patient(log.link.up(30.0))
            log.link.info["version"] = "2.9.20"
            with pytest.raises(LogRefused, match="4320"):
                await log.keeper.ensure()

    asyncio.run(main())


def test_a_stream_that_is_taken_away_is_made_again(server: NatsServer) -> None:
    async def main() -> None:
        stream = policy()
        async with log_at(server, stream) as log:
            await patient(log.publish([Draft("news", b"1", id="a")] * 3))
            await log.keeper.api(f"STREAM.DELETE.{stream.stream}")
            (placed,) = await patient(log.publish([Draft("news", b"1", id="a")]))
            assert isinstance(placed, Placed)
            assert (placed.position.seq, placed.is_repeat) == (1, False)

    asyncio.run(main())


def test_without_jetstream_it_says_what_to_do(tmp_path: Path) -> None:
    async def main(server: NatsServer) -> None:
        async with log_at(server, policy(), timeout_s=1.0) as log:
            with pytest.raises((LogRefused, LogAway), match="-js"):
                await patient(log.publish([Draft("news", b"1")]))

    with nats_serving(
        tmp_path, more="accounts { A: { users: [ {user: a, password: a} ] } }\nno_auth_user: a"
    ) as server:
        asyncio.run(main(server))


def test_users_and_tokens_are_let_in_or_refused_without_showing_a_secret(tmp_path: Path) -> None:
    async def main(server: NatsServer, good: str, bad: str) -> None:
        async with open_log(good) as log:
            assert isinstance((await patient(log.publish([Draft("news", b"1")])))[0], Placed)
            assert "s3cret" not in repr(log) + log.name
        async with open_log(bad) as log:
            assert isinstance(log, NatsLog)
            await holds(lambda: log.link.is_denied)
            with pytest.raises(LogRefused, match=r"(?i)authorization") as refused:
                await patient(log.publish([Draft("news", b"1")]))
            assert "wrong" not in str(refused.value)

    with nats_serving(tmp_path / "user", more="authorization { user: me, password: s3cret }") as server:
        at = f"127.0.0.1:{server.port}"
        asyncio.run(main(server, f"nats://me:s3cret@{at}", f"nats://me:wrong@{at}"))
    with nats_serving(tmp_path / "token", more="authorization { token: s3cret }") as server:
        at = f"127.0.0.1:{server.port}"
        asyncio.run(main(server, f"nats://s3cret@{at}", f"nats://wrong@{at}"))


def test_tls_is_spoken_both_ways_and_an_unknown_server_is_told_nothing(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    authority, stranger = Authority(ours), Authority(theirs)
    certificate, key = authority.issue("nats")
    own, own_key = authority.issue("client")
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{authority.path}", verify: true }}'

    async def main(server: NatsServer) -> None:
        good = f"tls://localhost:{server.port}?authority={authority.path}&certificate={own}&key={own_key}"
        async with open_log(good) as log, log.feed() as feed:
            await patient(feed.follow("news"))
            assert isinstance((await patient(log.publish([Draft("news", b"x" * 100_000)])))[0], NotPlaced)
            assert isinstance((await patient(log.publish([Draft("news", b"x" * 60_000)])))[0], Placed)
            (news,) = await patient(feed.next())
            assert isinstance(news, Appended)
        for bad, said in (
            (f"tls://localhost:{server.port}?authority={stranger.path}", "certificate is not accepted"),
            (f"nats://localhost:{server.port}", "it wants TLS"),
        ):
            async with open_log(bad) as log:
                assert isinstance(log, NatsLog)
                log.timeout_s = 0.5
                with pytest.raises((LogAway, LogRefused), match=said):
                    await patient(log.publish([Draft("news", b"1")]))

    with nats_serving(tmp_path / "nats", more=tls) as server:
        asyncio.run(main(server))


def test_a_file_of_credentials_signs_what_the_server_asks(tmp_path: Path) -> None:
    """The server trusts an operator, whose JWT names an account, whose JWT names the user in the file."""
    operator, account, user, system = (Ed25519PrivateKey.generate() for _ in range(4))
    of_system = nkey("A", system.public_key().public_bytes_raw())
    names = {
        kind: nkey(kind, key.public_key().public_bytes_raw())
        for kind, key in zip("OAU", (operator, account, user), strict=True)
    }
    limits = {
        "subs": -1,
        "data": -1,
        "payload": -1,
        "imports": -1,
        "exports": -1,
        "wildcards": True,
        "conn": -1,
        "leaf": -1,
    }
    disk = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    jwts = {
        "O": jwt(operator, names["O"], names["O"], {"type": "operator", "version": 2}),
        "A": jwt(operator, names["O"], names["A"], {"type": "account", "version": 2, "limits": limits | disk}),
        "U": jwt(
            account, names["A"], names["U"], {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
        ),
    }
    file = tmp_path / "me.creds"
    seed = nkey("U", user.private_bytes_raw(), is_seed=True)
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwts['U']}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    its_jwt = jwt(operator, names["O"], of_system, {"type": "account", "version": 2, "limits": limits})
    more = (
        f"operator: {jwts['O']}\nsystem_account: {of_system}\nresolver: MEMORY\n"
        f"resolver_preload {{ {names['A']}: {jwts['A']}, {of_system}: {its_jwt} }}"
    )

    async def main(server: NatsServer) -> None:
        async with open_log(f"{server.url}?credentials={file}") as log:
            assert isinstance((await patient(log.publish([Draft("news", b"1")])))[0], Placed)
        file.write_text("nothing")
        async with open_log(f"{server.url}?credentials={file}") as log:
            with pytest.raises(LogRefused, match="hold no JWT"):
                await patient(log.publish([Draft("news", b"1")]))

    with nats_serving(tmp_path / "nats", more=more) as server:
        asyncio.run(main(server))


def nkey(kind: str, raw: bytes, *, is_seed: bool = False) -> str:
    """A key in the spelling of NATS: a prefix, the bytes, a checksum, all in base 32."""
    prefix = {"O": 14 << 3, "A": 0, "U": 20 << 3}[kind]
    body = bytes([(18 << 3) | (prefix >> 5), (prefix & 31) << 3]) + raw if is_seed else bytes([prefix]) + raw
    return b32encode(body + crc_hqx(body, 0).to_bytes(2, "little")).decode().rstrip("=")


def jwt(signer: Ed25519PrivateKey, issuer: str, subject: str, claims: dict[str, Any]) -> str:
    said = {"iat": 1_700_000_000, "iss": issuer, "sub": subject, "name": "n", "nats": claims}
    said["jti"] = b32encode(sha512_256(json.dumps(said).encode())).decode().rstrip("=")
    parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, said]
    text = ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return f"{text}.{urlsafe_b64encode(signer.sign(text.encode())).decode().rstrip('=')}"


def sha512_256(raw: bytes) -> bytes:
    return hashlib.new("sha512_256", raw).digest()


def test_a_server_that_is_full_is_away_and_does_not_refuse_for_good(tmp_path: Path) -> None:
    async def main(server: NatsServer) -> None:
        stream = policy()
        first = log_at(server, stream)
        await patient(first.publish([Draft("news", b"1")]))
        async with log_at(server, stream, timeout_s=0.5) as other:
            with pytest.raises(LogAway, match="maximum connections"):
                await patient(other.publish([Draft("news", b"2")]))
            await first.aclose()
            other.timeout_s = 30.0
            (placed,) = await patient(other.publish([Draft("news", b"2")]))
            assert isinstance(placed, Placed)
            assert placed.position.seq == 2

    with nats_serving(tmp_path, more="max_connections: 1") as server:
        asyncio.run(main(server))


def test_what_comes_while_a_channel_is_read_is_told_though_the_reading_did_not_hold_it(server: NatsServer) -> None:
    async def main() -> None:
        async with log_at(server, policy(), check_s=3_600.0) as log, log.feed() as feed:
            await patient(log.publish([Draft("news", b"1")]))
            await patient(feed.follow("news"))
            read, has_read, go_on = log.read, asyncio.Event(), asyncio.Event()

            async def slow(*asked: Any, **how: Any) -> Any:
                stretch = await read(*asked, **how)
                has_read.set()
                await go_on.wait()
                return stretch

            log.read = slow  # type: ignore[method-assign]
            feed.came()  # everything is looked at anew
            await patient(has_read.wait())
            await patient(log.publish([Draft("news", b"2")]))
            await holds(lambda: "news" in feed._seen)
            go_on.set()
            seen: list[int] = []
            await until_heard(feed, 1, seen)
            assert seen == [2]

    asyncio.run(main())
