"""Autobahn's cases against our WebSocket, as a server and as a client.

    python -m bench.autobahn [--cases 1.*,2.*] [--client] [--wstest COMMAND]

The test suite is a program for Python 2.7. Unless `--wstest` names it, it is installed into build/autobahn, once, by a Python 2.7 that
is found on the PATH or among those of pyenv. Prints for each group how many cases passed, were not strict, were informational
or failed; ends with 1 if one failed. All cases take about ten minutes, most of them the compressed ones: `--cases` leaves some out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from budao.wire import deflate, http1, websocket

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = ROOT / "build" / "autobahn"
SUITE: Final = "autobahntestsuite==0.8.2"
ALL: Final = "1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*,12.*,13.*"
MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
CASE_S: Final = 120.0
GOOD: Final = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")


@dataclass(slots=True)
class Talk:
    """One WebSocket that answers every message with the same one."""

    reader: websocket.Reader
    agreed: deflate.Agreed | None
    rng: Random | None = None
    """At a client, where masks come from."""
    is_over: bool = False

    def heard(self, data: bytes) -> bytes:
        """What to send for what came."""
        try:
            events = self.reader.feed(data)
        except websocket.BadFrame as bad:
            self.is_over = True
            return self._answers(bad.before) + websocket.close_frame(bad.code, bad.problem, mask=self._mask())
        return self._answers(events)

    def _mask(self) -> bytes | None:
        return None if self.rng is None else self.rng.randbytes(4)

    def _message(self, opcode: int, data: bytes) -> bytes:
        if self.agreed is None:
            return websocket.frame(opcode, data, mask=self._mask())
        packed = deflate.compress(data, window_bits=self.agreed.out_window_bits)
        return websocket.frame(opcode, packed, rsv1=True, mask=self._mask())

    def _answers(self, events: list[websocket.Event] | tuple[websocket.Event, ...]) -> bytes:
        out = []
        for event in events:
            match event:
                case websocket.Text(data):
                    out.append(self._message(websocket.TEXT, data))
                case websocket.Binary(data):
                    out.append(self._message(websocket.BINARY, data))
                case websocket.WsPing(data):
                    out.append(websocket.frame(websocket.PONG, data, mask=self._mask()))
                case websocket.WsClose(code):
                    self.is_over = True
                    out.append(websocket.close_frame(code, mask=self._mask()))
        return b"".join(out)


class Echo(asyncio.Protocol):
    """The server's side of a connection."""

    def __init__(self) -> None:
        self.head = http1.RequestReader(http1.HeadPolicy())
        self.talk: Talk | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.talk is None:
            data = self._open(data)
        if self.talk is not None and not self.talk.is_over:
            self.transport.write(self.talk.heard(data))
            if self.talk.is_over:
                self.transport.close()

    def _open(self, data: bytes) -> bytes:
        try:
            requests = self.head.feed(data)
            if not requests:
                return b""
            assert isinstance(requests[0], http1.Request)
            upgrade = websocket.check_upgrade(requests[0])
            found = deflate.accept(upgrade.extensions, in_takeover=True)
        except http1.BadRequest as bad:
            self.transport.write(http1.format_response(bad.status, bad.headers, keeps_alive=False))
            self.transport.close()
            return b""
        self.transport.write(websocket.accept(upgrade.key, extensions=found.header if found else ""))
        inflate = found.inflate(MESSAGE_BYTES_MAX) if found else None
        self.talk = Talk(websocket.Reader(MESSAGE_BYTES_MAX, is_server=True, inflate=inflate), found)
        return self.head.taken_over()


async def visit(port: int, target: str, rng: Random) -> list[websocket.Event]:
    """Opens a WebSocket at a fuzzing server and echoes until it ends; the first messages it saw."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked, key = websocket.ask(f"127.0.0.1:{port}", target, rng.randbytes(16), extensions=deflate.offer())
    writer.write(asked)
    answers = http1.ResponseReader(http1.HeadPolicy())
    seen: list[websocket.Event] = []
    try:
        found: list[http1.Response | http1.Body | http1.EndOfBody] = []
        while not found:
            found = answers.feed(await reader.read(65536))
        assert isinstance(found[0], http1.Response)
        _, extensions = websocket.check_answer(found[0], key)
        agreed = deflate.agreed(extensions)
        inflate = agreed.inflate(MESSAGE_BYTES_MAX) if agreed else None
        talk = Talk(websocket.Reader(MESSAGE_BYTES_MAX, is_server=False, inflate=inflate), agreed, rng)
        data = answers.taken_over()
        while not talk.is_over:
            if target.startswith("/getCase"):
                seen += talk.reader.feed(data)
            else:
                writer.write(talk.heard(data))
                await writer.drain()
            if not (data := await reader.read(1 << 18)):
                break
    except ConnectionError:
        pass  # some cases end that way
    finally:
        writer.close()
    return seen


def _python() -> str | None:
    """A Python 2.7 that runs; a shim of pyenv may be there and still refuse to."""
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = map(str, sorted(home.glob("versions/2.7.*/bin/python")))
    for command in [shutil.which("python2.7"), *found]:
        asks = [command or "false", "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
        if command and subprocess.run(asks, capture_output=True, check=False).returncode == 0:
            return command
    return None


def suite() -> list[str]:
    """The command of the test suite, installed when it is not there."""
    python = _python()
    if python is None:
        sys.exit("the test suite needs Python 2.7 (pyenv install 2.7.18), or give --wstest COMMAND")
    if not (HOME / "autobahntestsuite").is_dir():
        print(f"installing {SUITE} into {HOME.relative_to(ROOT)}", flush=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--target", str(HOME), SUITE], check=True)
    # A folder that --target filled holds .pth files, which only a site folder obeys.
    begins = f"import site; site.addsitedir({str(HOME)!r}); from autobahntestsuite.wstest import run; run()"
    return [python, "-W", "ignore", "-c", begins]


async def as_server(wstest: list[str], cases: list[str], folder: Path) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    spec = folder / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(folder / "reports"),
                "servers": [{"agent": "budao", "url": f"ws://127.0.0.1:{port}"}],
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    with (folder / "log").open("wb") as log:
        ran = await asyncio.create_subprocess_exec(
            *wstest, "--mode", "fuzzingclient", "--spec", str(spec), stdout=log, stderr=log, cwd=folder
        )
        await ran.wait()
    server.close()


async def as_client(wstest: list[str], cases: list[str], folder: Path, port: int) -> None:
    spec = folder / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(folder / "reports"),
                "url": f"ws://127.0.0.1:{port}",
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
                "webport": 0,
            }
        )
    )
    rng = Random(1)
    with (folder / "log").open("wb") as log:
        ran = await asyncio.create_subprocess_exec(
            *wstest,
            "--mode",
            "fuzzingserver",
            "--spec",
            str(spec),
            "--webport",
            "0",
            stdout=log,
            stderr=log,
            cwd=folder,
        )
        try:
            for _ in range(100):
                await asyncio.sleep(0.3)
                try:
                    counted = await visit(port, "/getCaseCount", rng)
                    break
                except OSError:
                    continue
            else:
                sys.exit(f"the fuzzing server does not answer: {(folder / 'log').read_text()[-500:]}")
            count = next(int(each.data) for each in counted if isinstance(each, websocket.Text))
            for case in range(1, count + 1):
                await asyncio.wait_for(visit(port, f"/runCase?case={case}&agent=budao", rng), CASE_S)
            await visit(port, "/updateReports?agent=budao", rng)
        finally:
            ran.terminate()
            await ran.wait()


def report(folder: Path) -> int:
    """Prints what came of it; how many cases failed."""
    index = folder / "reports" / "index.json"
    if not index.exists():
        sys.exit(f"no report was written: {(folder / 'log').read_text()[-2000:]}")
    found = json.loads(index.read_text())["budao"]
    groups: dict[int, Counter[str]] = defaultdict(Counter)
    failed = []
    for case, result in found.items():
        group = int(case.partition(".")[0])
        # A case is as good as the worse of what was said and of how it ended.
        for kind in (result["behavior"], result["behaviorClose"]):
            if kind not in GOOD:
                failed.append((case, result["behavior"], result["behaviorClose"]))
                break
        groups[group]["failed" if failed and failed[-1][0] == case else result["behavior"]] += 1
    print(f"{'group':>6} {'passed':>7} {'non-strict':>11} {'informational':>14} {'not met':>8} {'failed':>7}")
    for group, counts in sorted(groups.items()):
        columns = [counts[kind] for kind in GOOD]
        print(f"{group:>6} {columns[0]:>7} {columns[1]:>11} {columns[2]:>14} {columns[3]:>8} {counts['failed']:>7}")
    for case in failed:
        print("failed:", *case)
    for case, result in found.items():
        if result["behavior"] in {"NON-STRICT", "UNIMPLEMENTED"}:
            print(f"{result['behavior'].lower()}: {case}")
    return len(failed)


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m bench.autobahn")
    asked.add_argument("--cases", default=ALL, help="groups, such as 1.*,2.*")
    asked.add_argument("--client", action="store_true", help="our client at a fuzzing server, instead of our server")
    asked.add_argument("--port", type=int, default=9301, help="of the fuzzing server, with --client")
    asked.add_argument("--wstest", help="the command of the test suite, where it is installed already")
    told = asked.parse_args()
    wstest = [told.wstest] if told.wstest else suite()
    with tempfile.TemporaryDirectory() as name:
        folder, cases = Path(name), told.cases.split(",")
        asyncio.run(as_client(wstest, cases, folder, told.port) if told.client else as_server(wstest, cases, folder))
        return 1 if report(folder) else 0


if __name__ == "__main__":
    sys.exit(main())
