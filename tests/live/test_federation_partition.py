"""Clusters whose packets are dropped, so that connections stay open and carry nothing. Dropping packets takes root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

from budao.aio import Federation
from budao.discovery import Address, FederationPolicy, Instance

PATIENCE_S = 30.0
LOCAL = "127.0.0.1"


def nft(rules: str) -> None:
    assert os.geteuid() == 0, "to drop packets takes root: run this as root"
    program = shutil.which("nft")
    assert program is not None, "no nft on this machine, and this test needs it"
    done = subprocess.run([program, "-f", "-"], input=rules, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def dropped(port: int) -> Iterator[None]:
    """Every packet to and from a port of ours on loopback is dropped, in a table of its own that goes afterwards."""
    table = f"inet budao_federation_{os.getpid()}_{port}"
    chain = f"type filter hook output priority 0; tcp dport {port} drop; tcp sport {port} drop;"
    nft(f"table {table} {{\nchain out {{\n{chain}\n}}\n}}\n")
    try:
        yield
    finally:
        nft(f"delete table {table}\n")


def instance(id_: str, weight: float = 1.0) -> Instance:
    return Instance(service="shop", id=id_, addresses={"http": Address("10.0.0.1", 80)}, weight=weight)


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - it waits for conditions of any kind
            await asyncio.sleep(0.01)


def agree(*all_: Federation) -> bool:
    first = all_[0].shared.contents()
    return all(each.shared.contents() == first for each in all_)


def test_clusters_whose_packets_were_dropped_notice_the_silence_and_agree_when_it_ends() -> None:
    async def scenario() -> None:
        policy = FederationPolicy(ping_s=0.2, silence_max_s=1.0)
        async with Federation("east", policy=policy) as east:
            peers = [(LOCAL, east.port)]
            async with (
                Federation("west", peers=peers, policy=policy) as west,
                Federation("south", peers=peers, policy=policy) as south,
            ):
                clusters = (east, west, south)
                for each in clusters:
                    each.put(instance(each.cluster))
                    each.put(instance(f"{each.cluster} leaves"))
                await until(lambda: agree(*clusters) and len(south.remote("shop")) == 4)
                with dropped(east.port):
                    # Changes are on their way into nowhere before anybody has noticed.
                    east.put(instance("shared", 1.0))
                    west.put(instance("shared", 2.0))
                    for each in clusters:
                        each.put(instance(each.cluster, 3.0))
                        each.withdraw("shop", f"{each.cluster} leaves")
                    west.remove("shop", "south leaves")
                    await until(lambda: not any(each.connected for each in clusters))
                    for each in (west, south):
                        await until(lambda each=each: each.problems)  # type: ignore[misc]
                        assert "nothing heard for 1 s" in each.problems[0] or "no connection" in each.problems[0]
                    assert east.remote("shop")["west"].weight == 1.0
                    south.put(instance("late"))
                await until(lambda: len(east.connected) == 2 and agree(*clusters))
                for each in clusters:
                    seen = each.shared.visible()
                    assert {id_ for _, id_ in seen} == {"east", "late", "shared", "south", "west"}
                    assert seen["shop", "shared"].cluster == "east"
                    assert seen["shop", "shared"].conflicts == 1
                    assert seen["shop", "west"].instance.weight == 3.0
                    assert each.shared.renewals == 0
                await until(lambda: not west.problems and not south.problems)

    asyncio.run(scenario())
