"""The servers that are measured: each in a process of its own, started, asked to fan out, and asked what it cost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MESSAGE_BYTES = 128
PATIENCE_S = 30.0
TICKS = os.sysconf("SC_CLK_TCK")

WEBSOCKET = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)
SSE = "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def payload(number: int) -> bytes:
    """A message of 128 bytes: its number, when it was made, and filling."""
    return f'{{"n":{number},"at":{time.monotonic_ns()},"x":"'.ljust(MESSAGE_BYTES - 2, "x").encode() + b'"}'


@dataclass
class Running:
    """A server that runs, and how to reach and to feed it."""

    name: str
    pids: list[int]
    port: int
    head: str
    tls: bool = False

    def cpu_s(self) -> float:
        """CPU seconds of its processes so far, user and system."""
        spent = 0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            spent += int(fields[11]) + int(fields[12])
        return spent / TICKS

    def memory_kib(self) -> float:
        """Proportional set size of its processes."""
        found = 0
        for pid in self.pids:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    found += int(line.split()[1])
        return float(found)

    def fan_out(self, messages: int, per_s: float) -> None:
        """Publishes so many messages, evenly."""
        raise NotImplementedError


class Spoken(Running):
    """A server that is told by lines on its stdin."""

    process: subprocess.Popen[bytes]

    def fan_out(self, messages: int, per_s: float) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{messages} {per_s}\n".encode())
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == b"sent", "the server ended"


class Posted(Running):
    """A server that is published to over HTTP, one request for each message, on one connection."""

    publish_path = ""
    publish_port = 0
    wraps = False
    headers: dict[str, str]
    number = 0

    def fan_out(self, messages: int, per_s: float) -> None:
        connection: http.client.HTTPConnection
        if self.tls and not self.publish_port:
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.publish_port or self.port)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.monotonic()
        for each in range(messages):
            if (left := start + each / per_s - time.monotonic()) > 0:
                time.sleep(left)
            self.number += 1
            body = payload(self.number)
            if self.wraps:
                body = b'{"channel":"bench","data":' + body + b"}"
            connection.request("POST", self.publish_path, body, self.headers)
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status < 300, f"{self.name}: {answer.status} {said[:200]!r}"
        connection.close()


def built(folder: Path, name: str) -> Path:
    """A program of ours in C, compiled."""
    source = Path(__file__).with_name(f"{name}.c")
    target = folder / name
    libraries = ["-lssl", "-lcrypto"] if name == "sink" else []
    subprocess.run(["gcc", "-O2", "-o", str(target), str(source), *libraries], check=True)
    return target


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for loopback that signs itself, and its key."""
    made, key = folder / "certificate.pem", folder / "key.pem"
    if not made.exists():
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-keyout", str(key), "-out", str(made), "-days", "30", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            ],
            check=True,
            capture_output=True,
        )
        key.chmod(0o600)
    return made, key


@contextlib.contextmanager
def floor(folder: Path, connections: int) -> Iterator[Spoken]:
    """The C loop over send()."""
    port = free_port()
    with process([str(built(folder, "floor")), str(port), str(connections), str(MESSAGE_BYTES + 4)]) as started:
        running = Spoken("floor: send() in C", [started.pid], port, WEBSOCKET.format(path="/", more=""))
        running.process = started
        wait_for(port)
        yield running


@contextlib.contextmanager
def peer_websockets(folder: Path, *, tls: bool = False) -> Iterator[Spoken]:
    """`websockets`, with its own broadcast."""
    port = free_port()
    more = [str(each) for each in certificate(folder)] if tls else []
    with process([sys.executable, "-m", "bench.push.peer_websockets", str(port), *more]) as started:
        assert started.stdout is not None
        assert started.stdout.readline().strip() == b"listening", "websockets did not start"
        name = "websockets broadcast" + (", TLS" if tls else "")
        running = Spoken(name, [started.pid], port, WEBSOCKET.format(path="/", more=""), tls)
        running.process = started
        yield running


@contextlib.contextmanager
def nchan(folder: Path, *, sse: bool, tls: bool = False) -> Iterator[Posted]:
    """The web server nginx with nchan: one worker."""
    port, publish = free_port(), free_port()
    home = folder / f"nchan-{port}"
    home.mkdir()
    module = next(iter(Path("/usr/lib/nginx/modules").glob("ngx_nchan_module.so")), None)
    assert module is not None, "nchan is not there: apt-get install libnginx-mod-nchan"
    made, key = certificate(folder)
    safety = f"ssl_certificate {made}; ssl_certificate_key {key};" if tls else ""
    (home / "nginx.conf").write_text(
        f"""
load_module {module};
worker_processes 1; daemon off; master_process off; error_log {home}/error.log; pid {home}/pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
  access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s; keepalive_requests 10000000; nchan_shared_memory_size 128M;
  server {{ listen 127.0.0.1:{port} {"ssl" if tls else ""} backlog=4096; {safety}
    location /sub {{ nchan_subscriber; nchan_channel_id bench; nchan_subscriber_first_message newest; }} }}
  server {{ listen 127.0.0.1:{publish}; location /pub {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 100; }} }}
}}
"""
    )
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    with process([binary, "-c", str(home / "nginx.conf"), "-p", str(home)]) as started:
        wait_for(publish)
        head = SSE.format(path="/sub") if sse else WEBSOCKET.format(path="/sub", more="")
        running = Posted(f"nchan {'SSE' if sse else 'WS'}{', TLS' if tls else ''}", [started.pid], port, head, tls)
        running.publish_path, running.publish_port, running.headers = "/pub", publish, {"Content-Type": "text/plain"}
        yield running


@contextlib.contextmanager
def ours(folder: Path, *, sse: bool = False, tls: bool = False, codec: str = "json", log: str = "") -> Iterator[Posted]:
    """Our gateway as its command starts it, with a durable log in the same process unless another is named."""
    port = free_port()
    home = folder / f"budao-{port}"
    command = [sys.executable, "-m", "budao", "gateway", "--port", str(port), "--name", "bench"]
    command += ["--log", log] if log else ["--data", str(home)]
    command += ["--anonymous-subscribe", "**", "--anonymous-publish", "**", "--json"]
    # The sink opens everything at once and does not come back when it is told to: it would be paced.
    settings = folder / "gateway.toml"
    settings.write_text("[pace]\nrate_per_s = 1_000_000\nburst = 100_000\n[gateway]\npublishes_per_s = 1e9\n")
    command += ["--settings", str(settings)]
    if tls:
        made, key = certificate(folder)
        command += ["--tls-certificate", str(made), "--tls-key", str(key)]
    with process(command) as started:
        wait_for(port)
        hello = json.dumps({"type": "hello", "version": 1, "channels": {"bench": None}})
        path = "/v1/events?channel=bench" if sse else "/v1/stream?hello=" + _base64(hello)
        head = (
            SSE.format(path=path)
            if sse
            else WEBSOCKET.format(path=path, more=f"Sec-WebSocket-Protocol: budao.v1.{codec}\r\n")
        )
        running = Posted(f"budao {'SSE' if sse else 'WS'}{', TLS' if tls else ''}", [started.pid], port, head, tls)
        running.publish_path, running.wraps = "/v1/publish", True
        running.headers = {"Content-Type": "application/json"}
        yield running


def _base64(text: str) -> str:
    import base64

    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@contextlib.contextmanager
def process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(5)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        for stream in (started.stdin, started.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def wait_for(port: int) -> None:
    """Until something listens there; asks the kernel, since a probe would count as a connection."""
    until = time.monotonic() + PATIENCE_S
    wanted = f":{port:04X} "
    while time.monotonic() < until:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and (fields[1] + " ").endswith(wanted):
                return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port} after {PATIENCE_S:g} s")
