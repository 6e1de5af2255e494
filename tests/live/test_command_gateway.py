"""`budao gateway` and `budao token` as programs: what they say, what they refuse, and that they leave when they are told."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from budao.apps.gateway import _target, read_settings
from budao.model import BadSettings
from budao.push import Slow, Target
from tests.live.redis_server import PATIENCE_S


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "budao", *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_it_serves_until_it_is_told_to_leave_and_takes_the_tokens_that_were_signed_for_it(tmp_path: Path) -> None:
    key, settings = tmp_path / "key", tmp_path / "gateway.toml"
    key.write_text("k" * 40)
    key.chmod(0o600)
    settings.write_text("[leaving]\nlag_s = 0.0\n")
    signed = run("token", "--key", str(key), "--publish", "a.*", "--for", "60")
    assert signed.returncode == 0, signed.stderr
    command = [sys.executable, "-m", "budao", "gateway", "--port", "0", "--data", str(tmp_path / "log")]
    command += ["--token-key", str(key), "--settings", str(settings), "--control", str(tmp_path / "c"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            bearer = {"Authorization": f"Bearer {signed.stdout.strip()}"}
            with httpx.Client(base_url=said["url"], headers=bearer) as client:
                assert client.post("/v1/publish", json={"channel": "a.b", "data": 1}).json()["seq"] == 1
                assert client.post("/v1/publish", json={"channel": "b", "data": 1}).status_code == 403
            status = run("gateway", "status", "--control", str(tmp_path / "c"))
            assert json.loads(status.stdout)["ready"] is True
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def test_who_waits_for_a_drain_sees_its_proof(tmp_path: Path) -> None:
    settings, control = tmp_path / "gateway.toml", tmp_path / "c"
    settings.write_text("[leaving]\nlag_s = 0.0\n")
    command = [
        sys.executable,
        "-m",
        "budao",
        "gateway",
        "--port",
        "0",
        "--log",
        "memory:",
        "--anonymous-subscribe",
        "**",
    ]
    command += ["--settings", str(settings), "--control", str(control), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            with httpx.stream("GET", f"{said['url']}/v1/events?channel=a", timeout=PATIENCE_S) as reader:
                assert reader.status_code == 200
                drained = run("gateway", "drain", "--wait", "--control", str(control))
            assert drained.returncode == 0, drained.stderr
            proof = json.loads(drained.stdout)
            assert proof["stage"] == "gone"
            assert proof["returned"] == 1
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    late = run("gateway", "drain", "--wait", "--control", str(control))
    assert late.returncode == 1
    assert "is not there" in late.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nobody could do anything"),
        (("--anonymous-subscribe", "**"), "name one of --data FOLDER"),
        (("--anonymous-subscribe", "**", "--log", "ftp://a"), "is no log"),
        (("--anonymous-subscribe", "a b", "--log", "memory:"), "anonymous:"),
        (("--anonymous-subscribe", "**", "--log", "memory:", "--host", "0.0.0.0"), "needs TLS and a token"),
        (("--anonymous-subscribe", "**", "--log", "memory:", "--peer", "nowhere"), "peer:"),
        (("--anonymous-subscribe", "**", "--log", "memory:", "--tls-key", "k"), "go together"),
        (("--anonymous-subscribe", "**", "--log", "memory:", "--issuer", "us"), "name --token-key or --jwks"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    ended = run("gateway", "--port", "0", *arguments)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_keys_that_change_are_taken_while_it_serves_and_tokens_must_name_issuer_and_audience(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for key in (old, new):
        key.write_text(key.name * 20)
        key.chmod(0o600)
    named = ("--issuer", "us", "--audience", "push")
    first, second, bare = (
        run("token", "--key", str(key), "--publish", "**", *more).stdout.strip()
        for key, more in ((old, named), (new, named), (old, ()))
    )
    live = tmp_path / "live"
    shutil.copy2(old, live)
    command = [sys.executable, "-m", "budao", "gateway", "--port", "0", "--log", "memory:", "--token-key", str(live)]
    with subprocess.Popen([*command, *named, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]

            def publish(token: str) -> int:
                said = {"Authorization": f"Bearer {token}"}
                return httpx.post(
                    f"{url}/v1/publish", json={"channel": "a", "data": 1}, headers=said, timeout=PATIENCE_S
                ).status_code

            assert [publish(first), publish(second), publish(bare)] == [200, 401, 401]
            shutil.copy2(new, tmp_path / "aside")
            (tmp_path / "aside").replace(live)
            process.send_signal(signal.SIGHUP)
            ends_at = time.monotonic() + PATIENCE_S
            while publish(second) != 200:
                assert time.monotonic() < ends_at
                time.sleep(0.05)
            assert publish(first) == 401
        finally:
            process.kill()


def test_what_is_needed_for_tickets_and_was_not_given_is_said_once(tmp_path: Path) -> None:
    keys = tmp_path / "tickets"
    keys.write_text("k1 " + "ab" * 32 + "\n")
    keys.chmod(0o600)
    command = [
        sys.executable,
        "-m",
        "budao",
        "gateway",
        "--port",
        "0",
        "--log",
        "memory:",
        "--anonymous-subscribe",
        "**",
    ]
    command += ["--ticket-keys", str(keys), "--peer", "http://127.0.0.1:7441", "--peer", "b=http://127.0.0.1:7442"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert "listens on" in process.stdout.readline()
        finally:
            process.kill()
        said = process.stderr.read().splitlines()
    assert len(said) == 2
    assert "--peer NAME=http://127.0.0.1:7441" in said[0]
    assert "--name" in said[1]


def test_settings_state_bounds_and_channels_by_pattern() -> None:
    found = read_settings(
        """
        [gateway]
        connections_max = 10
        [session]
        subscriptions_max = 3
        [pace]
        rate_per_s = 5
        [channels."chat:*"]
        history_count = 7
        slow = "close"
        """,
        "here",
    )
    assert (found.gateway.connections_max, found.session.subscriptions_max, found.pace.rate_per_s) == (10, 3, 5.0)
    assert found.rules.of("chat:1").history_count == 7
    assert found.rules.of("chat:1").slow is Slow.CLOSE
    assert found.rules.of("news").history_count == 1_000


def test_settings_state_how_connections_are_watched_and_moved() -> None:
    found = read_settings(
        """
        [gateway]
        write_high_bytes = 100_000
        [watch]
        look_s = 1.5
        [watch.heartbeat]
        quiet_s = 9
        [watch.health]
        strays_max = 0.4
        [watch.block]
        [ticket]
        life_s = 4
        [standby]
        per_session_max = 2
        [takeover]
        """,
        "here",
    )
    assert (found.watch.look_s, found.watch.heartbeat.quiet_s, found.ticket.life_s) == (1.5, 9.0, 4.0)
    assert found.watch.outbox_bytes_max == 100_000
    assert read_settings("[watch]\noutbox_bytes_max = 7", "here").watch.outbox_bytes_max == 7
    with pytest.raises(BadSettings) as bad:
        read_settings("[watch.heartbeat]\nlate_max = 0\n[ticket]\nlife_s = 1e9\n[standby]\nx = 1\n", "here")
    assert [path for path, _ in bad.value.problems] == ["watch.heartbeat.late_max", "ticket.life_s", "standby.x"]


def test_a_peer_is_told_to_clients_without_the_path_that_they_add() -> None:
    for said in ("b=https://b.example:7440", "b=https://b.example:7440/", "b=https://b.example:7440/v1/stream"):
        assert _target(said) == Target("b", "https://b.example:7440")


def test_every_problem_of_the_settings_is_said_at_once() -> None:
    with pytest.raises(BadSettings) as bad:
        read_settings(
            '[gateway]\nconnections_max = 0\nconections = 1\n[nothing]\n[channels."a"]\nhistory_count = -1\n', "here"
        )
    assert len(bad.value.problems) == 4
