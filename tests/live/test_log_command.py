"""`budao log serve` keeps channels until it is told to stop, and says what is wrong before it begins."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

from budao.aio import RemoteLog
from budao.push import START, Draft

PATIENCE_S = 30.0


def budao(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from budao.apps.command import main; sys.exit(main())", *arguments]


def test_a_log_is_served_by_its_settings_until_it_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[channels.'last.*']\nhistory_count = 1\n")
    token = tmp_path / "token"
    token.write_text("a-token-that-nobody-guesses\n")
    token.chmod(0o600)
    folder, settings = tmp_path / "log", tmp_path / "settings.toml"
    served = subprocess.Popen(
        budao(
            "log",
            "serve",
            str(folder),
            "--port",
            "0",
            "--token-file",
            str(token),
            "--settings",
            str(settings),
            "--json",
        ),
        stdout=subprocess.PIPE,
    )
    assert served.stdout is not None
    port = json.loads(served.stdout.readline())["port"]

    async def story() -> None:
        async with RemoteLog("127.0.0.1", port, token=token.read_text().strip()) as log:
            await log.publish([Draft("last.a", b"1"), Draft("last.a", b"2"), Draft("b", b"1"), Draft("b", b"2")])
            assert [message.data for message in (await log.read("last.a", START)).messages] == [b"2"]
            assert len((await log.read("b", START)).messages) == 2

    try:
        asyncio.run(asyncio.wait_for(story(), PATIENCE_S))
        served.send_signal(signal.SIGTERM)
        assert served.wait(PATIENCE_S) == 0
    finally:
        served.kill()
        served.wait()
        served.stdout.close()


def test_what_is_wrong_is_said_and_nothing_is_served(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[channels.a]\nhistory_cuont = 1\n")
    (tmp_path / "note.txt").write_text("")
    for arguments, said in (
        (["--settings", str(tmp_path / "bad.toml")], "history_cuont"),
        (["--settings", str(tmp_path / "none.toml")], "cannot be read"),
        (["--host", "0.0.0.0"], "needs TLS and a token"),
        ([], "other things: bad.toml, note.txt"),
    ):
        ran = subprocess.run(
            budao("log", "serve", str(tmp_path), "--port", "0", *arguments),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert ran.returncode == 1
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr
