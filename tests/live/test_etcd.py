"""The store on real etcd processes: every law on one member and on three, faults, passwords and TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from budao.adapters.etcd import EtcdStore
from budao.aio import watching
from budao.store import Put, Span, Txn
from tests.live.etcd_server import Cluster
from tests.live.store_suite import LAWS, Law, keep, name_of


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("one")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("three"), 3) as cluster:
        yield cluster


@pytest.mark.parametrize("law", LAWS, ids=name_of)
def test_a_store_on_one_member_keeps(law: Law, one: Cluster) -> None:
    keep(law, lambda: EtcdStore(one.endpoints))


@pytest.mark.parametrize("law", LAWS, ids=name_of)
def test_a_store_on_three_members_keeps(law: Law, three: Cluster) -> None:
    keep(law, lambda: EtcdStore(three.endpoints))


def test_a_watch_that_follows_the_last_one_at_once_sees_its_changes(one: Cluster) -> None:
    async def story() -> None:
        async with EtcdStore(one.endpoints) as store:
            for turn in range(20):
                done = await store.commit(Txn(then=(Put("next", b"%d" % turn),)))
                for _ in range(2):
                    async with watching(store, Span.one("next"), after=done.revision - 1) as batches:
                        batch = await asyncio.wait_for(anext(batches), 30.0)
                        assert batch.revision == done.revision

    asyncio.run(story())
