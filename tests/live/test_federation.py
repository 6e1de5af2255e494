"""Three clusters on loopback: changes, partitions, frozen and forgotten clusters, strangers on the port."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Self

import pytest

from budao.aio import Federation
from budao.aio.directory import Directory
from budao.aio.latest import Latest
from budao.aio.memory_store import MemoryStore
from budao.aio.registrar import Registrar
from budao.aio.security import client_tls, server_tls
from budao.aio.store_source import StoreSource
from budao.discovery import Address, FederationPolicy, Instance, Listed, Sighting, WentAway
from budao.model import BadSettings, Stage

PATIENCE_S = 30.0
TOKEN = "a token of some length"
LOCAL = "127.0.0.1"
CHILD = """
import asyncio, sys
from budao.aio import Federation
from budao.discovery import Address, Instance
async def main():
    async with Federation("south", peers=[("127.0.0.1", int(sys.argv[1]))], listen=None) as mine:
        mine.put(Instance(service="shop", id="s1", addresses={"http": Address("10.3.0.1", 80)}))
        print("up", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def instance(id_: str, weight: float = 1.0) -> Instance:
    return Instance(service="shop", id=id_, addresses={"http": Address("10.0.0.1", 80)}, zone="a", weight=weight)


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - it waits for conditions of any kind
            await asyncio.sleep(0.01)


class Cable:
    """A connection that can be cut: forwards a port, counts bytes, and drops everything while it is cut."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.is_cut = False
        self.bytes = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self.carry, LOCAL, 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self.server.close()

    def cut(self) -> None:
        self.is_cut = True
        for writer in self.writers:
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(LOCAL, self.to)
        self.writers |= {writer, far_writer}
        await asyncio.gather(self.pump(reader, far_writer), self.pump(far_reader, writer))
        self.writers -= {writer, far_writer}

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65_536):
                self.bytes += len(piece)
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()


class Scripted:
    """A source that tells each follower what the test said so far, and nothing else."""

    name = "scripted"

    def __init__(self) -> None:
        self.said: Latest[tuple[Sighting, ...]] = Latest(())

    async def follow(self, service: str) -> AsyncGenerator[Sighting, None]:
        told = 0
        async for said in self.said.watch():
            for sighting in said[told:]:
                yield sighting
            told = len(said)

    async def acknowledge(self, service: str, watcher: str, revision: int) -> bool:
        return False

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def say(self, sighting: Sighting) -> None:
        self.said.publish((*self.said.value, sighting))


def agree(*all_: Federation) -> bool:
    first = all_[0].shared.contents()
    return all(each.shared.contents() == first for each in all_)


@contextlib.asynccontextmanager
async def two(count: int = 0) -> AsyncIterator[tuple[Federation, Federation, Cable]]:
    async with (
        Federation("east") as east,
        Cable(east.port) as cable,
        Federation("west", peers=[(LOCAL, cable.port)]) as west,
    ):
        for number in range(count):
            east.put(instance(f"i{number}"))
        await until(lambda: west.connected and agree(east, west))
        yield east, west, cable


def test_three_clusters_cut_apart_and_changed_meanwhile_agree_again() -> None:
    async def scenario() -> None:
        async with (
            Federation("east") as east,
            Cable(east.port) as one,
            Cable(east.port) as other,
            Federation("west", peers=[(LOCAL, one.port)]) as west,
            Federation("south", peers=[(LOCAL, other.port)]) as south,
        ):
            for each in (east, west, south):
                each.put(instance(each.cluster))
            await until(lambda: agree(east, west, south) and len(south.remote("shop")) == 2)
            one.cut()
            other.cut()
            await until(lambda: not east.connected)
            east.put(instance("shared", 1.0))
            west.put(instance("shared", 2.0))
            south.remove("shop", "west")
            south.withdraw("shop", "south")
            one.is_cut = other.is_cut = False
            await until(lambda: agree(east, west, south) and south.shared.seen(("shop", "shared")))
            seen = south.shared.seen(("shop", "shared"))
            assert seen is not None
            assert (seen.cluster, seen.conflicts) == ("east", 1)
            assert set(east.shared.visible()) == {("shop", "east"), ("shop", "shared")}

    asyncio.run(scenario())


def test_a_cluster_that_was_away_catches_up_with_what_changed_only() -> None:
    async def scenario() -> None:
        async with two(2_000) as (east, west, cable):
            first = cable.bytes
            cable.cut()
            await until(lambda: not east.connected and not west.connected)
            for number in range(10):
                east.put(instance(f"i{number}", 2.0))
            east.withdraw("shop", "i1999")
            before, cable.is_cut = cable.bytes, False
            await until(lambda: agree(east, west))
            assert cable.bytes - before < 8_000 < first
            assert len(west.remote("shop")) == 1_999

    asyncio.run(scenario())


def test_a_frozen_cluster_is_noticed_and_is_not_picked_while_nobody_hears_of_it() -> None:
    async def scenario() -> None:
        policy = FederationPolicy(stale_max_s=1.0, ping_s=0.2, silence_max_s=1.0)
        async with Federation("east", policy=policy) as east:
            child = subprocess.Popen([sys.executable, "-c", CHILD, str(east.port)])  # noqa: ASYNC220 - it only starts it
            try:
                await until(lambda: "s1" in east.remote("shop"))
                child.send_signal(signal.SIGSTOP)
                await until(lambda: not east.connected and east.stale == {"south"})
                assert east.remote("shop")["s1"].stage is Stage.STARTING
                child.send_signal(signal.SIGCONT)
                await until(lambda: east.connected and not east.stale)
                await until(lambda: east.remote("shop")["s1"].stage is Stage.READY)
            finally:
                child.kill()
                child.wait()

    asyncio.run(scenario())


def test_a_forgotten_cluster_is_gone_everywhere_until_it_starts_anew() -> None:
    async def scenario() -> None:
        async with Federation("east") as east, Federation("west", peers=[(LOCAL, east.port)]) as west:
            async with Federation("south", peers=[(LOCAL, west.port)]) as south:
                south.put(instance("s1"))
                await until(lambda: "s1" in east.remote("shop"))
                east.forget("south")
                assert not east.remote("shop")
                await until(lambda: not west.remote("shop") and "south" not in west.connected)
                assert not south.put(instance("s2")) or not west.remote("shop")
            async with Federation("south", peers=[(LOCAL, west.port)], epoch=south.shared.epoch + 1) as again:
                again.put(instance("s3"))
                await until(lambda: list(east.remote("shop")) == ["s3"])

    asyncio.run(scenario())


def test_a_directory_sees_local_and_remote_instances_in_one_roster() -> None:
    async def scenario() -> None:
        store, far = MemoryStore(), MemoryStore()
        source, far_source = StoreSource(store), StoreSource(far)
        async with (
            Federation("east", source, ["shop"]) as east,
            Federation("west", far_source, ["shop"], peers=[(LOCAL, east.port)]),
            Registrar(store, instance("near")),
            Directory(east.source(), "shop") as directory,
        ):
            async with Registrar(far, instance("far")):
                await until(lambda: len(directory.roster.instances) == 2)
                there, here = directory.roster.instances
                assert (there.id, there.zone, there.metadata["cluster"]) == ("far", "west/a", "west")
                assert (here.id, here.zone) == ("near", "a")
            await until(lambda: [each.id for each in directory.roster.instances] == ["near"])
        await source.aclose()
        await far_source.aclose()

    asyncio.run(scenario())


def test_of_two_processes_with_one_name_that_share_only_a_third_cluster_the_earlier_one_gives_in() -> None:
    async def scenario() -> None:
        async with (
            Federation("mid") as mid,
            Federation("far", peers=[(LOCAL, mid.port)]) as far,
            Federation("west", peers=[(LOCAL, mid.port)], epoch=1) as earlier,
        ):
            earlier.put(instance("old"))
            await until(lambda: "old" in mid.remote("shop") and "old" in far.remote("shop"))
            async with Federation("west", peers=[(LOCAL, far.port)], epoch=2) as later:
                later.put(instance("new"))
                await until(lambda: any("another process lives as 'west'" in each for each in earlier.problems))
                await until(lambda: not earlier.connected)
                await until(lambda: list(mid.remote("shop")) == list(far.remote("shop")) == ["new"])
                assert later.connected
                assert any("does another process have its name?" in each for each in later.problems)
                renewals = earlier.shared.renewals + later.shared.renewals
                assert renewals <= 2 * earlier.policy.renewals_max + 1
                # What comes later does not wake the dispute.
                later.put(instance("newer"))
                await until(lambda: "newer" in mid.remote("shop"))
                assert earlier.shared.renewals + later.shared.renewals == renewals

    asyncio.run(scenario())


def test_two_processes_with_one_name_that_meet_both_say_so() -> None:
    async def scenario() -> None:
        async with Federation("west") as one, Federation("west", peers=[(LOCAL, one.port)]) as other:
            for each in (one, other):
                await until(lambda each=each: any("both sides are called 'west'" in p for p in each.problems))  # type: ignore[misc]
            assert not one.connected
            assert not other.connected

    asyncio.run(scenario())


def test_a_directory_lets_the_instances_of_a_forgotten_cluster_go_at_once_and_doubts_those_a_cluster_lost() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        source = StoreSource(store)
        async with (
            Federation("east", source, ["shop"]) as east,
            Federation("west", peers=[(LOCAL, east.port)]) as west,
            Federation("south", peers=[(LOCAL, east.port)]) as south,
            Registrar(store, instance("e1")),
            Directory(east.source(), "shop") as directory,
        ):
            for number in range(4):
                west.put(instance(f"w{number}"))
                south.put(instance(f"s{number}"))
            await until(lambda: len(directory.roster.instances) == 9)
            east.forget("south")
            await until(lambda: len(directory.roster.instances) == 5)
            assert not directory.roster.doubted
            assert directory.machine.counts.doubted == 0
            for number in range(4):
                west.withdraw("shop", f"w{number}")
            # It may be west's store that lost its memory.
            await until(lambda: directory.roster.doubted == {f"w{number}" for number in range(4)})
        await source.aclose()

    asyncio.run(scenario())


def test_remote_changes_get_through_while_the_local_source_is_away() -> None:
    async def scenario() -> None:
        source = Scripted()
        async with (
            Federation("east", source, ["shop"]) as east,
            Federation("west", peers=[(LOCAL, east.port)]) as west,
            Directory(east.source(), "shop") as directory,
        ):
            # Nothing local is known yet, and the source says that it is away.
            west.put(instance("w1"))
            source.say(WentAway("no route"))
            roster = await directory.ready()
            assert [each.id for each in roster.instances] == ["w1"]
            await until(lambda: directory.problem == "no route")
            source.say(Listed(7, (instance("e1"),)))
            await until(lambda: directory.problem is None)
            assert [each.id for each in directory.roster.instances] == ["e1", "w1"]
            source.say(WentAway("no route"))
            await until(lambda: directory.problem == "no route")
            west.put(instance("w2"))
            await until(lambda: len(directory.roster.instances) == 3)
            assert directory.problem == "no route"
            source.say(Listed(8, ()))
            await until(lambda: [each.id for each in directory.roster.instances] == ["w1", "w2"])
            assert directory.problem is None

    asyncio.run(scenario())


def test_a_restarted_cluster_is_not_taken_for_empty_before_its_source_has_listed() -> None:
    async def scenario() -> None:
        async with Federation("east") as east:
            source = Scripted()
            async with Federation("west", source, ["shop"], peers=[(LOCAL, east.port)], epoch=1):
                source.say(Listed(1, (instance("w1"),)))
                await until(lambda: "w1" in east.remote("shop"))
            source = Scripted()
            async with Federation("west", source, ["shop"], peers=[(LOCAL, east.port)], epoch=2) as west:
                # The second is only sent once the first is acknowledged, and behind whatever west said of itself.
                for id_ in ("e1", "e2"):
                    east.put(instance(id_))
                    await until(lambda id_=id_: id_ in west.remote("shop"))  # type: ignore[misc]
                assert list(east.remote("shop")) == ["w1"]
                source.say(Listed(2, (instance("w2"),)))
                await until(lambda: list(east.remote("shop")) == ["w2"])

    asyncio.run(scenario())


def test_a_restarted_cluster_whose_source_never_lists_is_empty_after_a_while() -> None:
    async def scenario() -> None:
        async with Federation("east") as east:
            source, policy = Scripted(), FederationPolicy(first_list_max_s=0.2)
            async with Federation("west", source, ["shop"], peers=[(LOCAL, east.port)], epoch=1):
                source.say(Listed(1, (instance("w1"),)))
                await until(lambda: "w1" in east.remote("shop"))
            peers = [(LOCAL, east.port)]
            async with Federation("west", Scripted(), ["shop", "cart"], peers=peers, epoch=2, policy=policy) as west:
                await until(lambda: not east.remote("shop"))
                west.put(instance("w2"))
                await until(lambda: list(east.remote("shop")) == ["w2"])

    asyncio.run(scenario())


def test_garbage_on_the_port_harms_nobody_else() -> None:
    async def scenario() -> None:
        async with two(1) as (east, west, _):
            for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x02\xff\xff", b"\x00\x00\x00\x00"):
                reader, writer = await asyncio.open_connection(LOCAL, east.port)
                writer.write(garbage)
                async with asyncio.timeout(PATIENCE_S):
                    await reader.read()
                writer.close()
            east.put(instance("after"))
            await until(lambda: "after" in west.remote("shop"))

    asyncio.run(scenario())


def test_a_peer_whose_address_can_be_no_name_is_a_problem_and_dialled_again() -> None:
    async def scenario() -> None:
        async with Federation(
            "east", peers=[("a..b", 1)], listen=None, client_tls=ssl.create_default_context(), token=TOKEN
        ) as east:
            await until(lambda: any("a..b:1" in each for each in east.problems))

    asyncio.run(scenario())


def test_a_wrong_token_learns_nothing_and_is_told_why() -> None:
    async def scenario() -> None:
        async with Federation("east", token=TOKEN) as east:
            east.put(instance("i1"))
            async with Federation("west", token=TOKEN[::-1], peers=[(LOCAL, east.port)]) as west:
                await until(lambda: any("token" in each for each in west.problems))
                assert not west.remote("shop")
                assert TOKEN not in repr(west) + "".join(west.problems)
            async with Federation("west", token=TOKEN, peers=[(LOCAL, east.port)]) as west:
                await until(lambda: "i1" in west.remote("shop"))

    asyncio.run(scenario())


def test_clusters_talk_over_tls_and_a_plain_peer_is_turned_away(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)

    async def scenario() -> None:
        async with Federation("east", token=TOKEN, server_tls=server_tls(certificate, key)) as east:
            east.put(instance("i1"))
            peers = [(LOCAL, east.port)]
            async with (
                Federation("west", token=TOKEN, peers=peers, client_tls=client_tls(certificate)) as west,
                Federation("plain", token=TOKEN, peers=peers) as plain,
            ):
                await until(lambda: "i1" in west.remote("shop") and plain.problems)
                assert not plain.remote("shop")

    asyncio.run(scenario())


def test_nothing_goes_beyond_loopback_without_tls_and_a_token() -> None:
    with pytest.raises(BadSettings, match="TLS and a token"):
        Federation("east", listen=("0.0.0.0", 0))
    with pytest.raises(BadSettings):
        Federation("east", peers=[("192.0.2.1", 7000)])
