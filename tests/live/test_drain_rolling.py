"""Real servers in real processes, restarted by real signals while they are called without a retry: nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from bench.rolling.fleet import Fleet


@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn", "granian", "grpc.aio"])
def test_a_rolling_restart_refuses_and_loses_nothing(kind: str) -> None:
    fleet = Fleet(kind, drain=True, lag_s=0.3, grace_s=30.0, size=1)
    report = asyncio.run(fleet.roll(rate=60.0, silent=(False,)))
    assert report.counts["ok"] > 0
    assert +report.counts == {"ok": report.counts["ok"]}
    assert len(report.proofs) == 1
    for proof in report.proofs:
        assert 'why="everyone acknowledged"' in proof
        assert "acknowledged=1 " in proof
        assert "missing=0" in proof
        assert "calls_cut=0" in proof
