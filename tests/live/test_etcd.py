"""The store on real etcd processes: every law on one member and on three, faults, passwords and TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from budao.adapters.etcd import EtcdStore
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
