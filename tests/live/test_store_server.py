"""The store as a server keeps the laws that every store must keep, and comes back from whatever strikes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from budao.aio import RemoteStore
from tests.live.store_process import serving
from tests.live.store_suite import LAWS, Law, keep, name_of


@pytest.mark.parametrize("law", LAWS, ids=name_of)
def test_a_store_server_keeps(law: Law, tmp_path: Path) -> None:
    with serving(tmp_path / "store") as server:
        keep(law, lambda: RemoteStore("127.0.0.1", server.port))
