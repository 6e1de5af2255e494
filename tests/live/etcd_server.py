"""Real etcd processes on loopback ports, one or several, to be killed, frozen, cut off and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from budao.wire import etcd, protobuf

PATIENCE_S = 30.0


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"no {name} on this machine: `make servers` installs it, and this test needs it"
    return found


def _run(*words: str, said: str = "") -> None:
    _program(words[0])
    done = subprocess.run(words, input=said, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def free_ports(wanted: int) -> list[int]:
    """Ports nobody uses, all different. Etcd takes them soon after; until then nobody is likely to."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(wanted)]
        return [int(probe.getsockname()[1]) for probe in probes]


class Member:
    """One etcd process, with the same data and ports through all its lives."""

    def __init__(
        self, folder: Path, name: str, client_port: int, peer_port: int, *, program: str | None = None
    ) -> None:
        self.folder, self.name = folder / name, name
        self.client_port, self.peer_port = client_port, peer_port
        self.program = program or os.environ.get("BUDAO_ETCD") or _program("etcd")
        self.process: subprocess.Popen[bytes] | None = None
        self.host, self.within = "127.0.0.1", ()  # type: tuple[str, tuple[str, ...]]

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.client_port}"

    def start(self, cluster: str, *more: str, scheme: str = "http") -> None:
        assert self.process is None, "stop it before it is started again"
        self.folder.mkdir(exist_ok=True, parents=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.within,  # replaces itself by etcd, so that signals go there
                    self.program,
                    *("--name", self.name, "--data-dir", str(self.folder / "data")),
                    *("--listen-client-urls", f"{scheme}://{self.endpoint}"),
                    *("--advertise-client-urls", f"{scheme}://{self.endpoint}"),
                    *("--listen-peer-urls", f"http://{self.host}:{self.peer_port}"),
                    *("--initial-advertise-peer-urls", f"http://{self.host}:{self.peer_port}"),
                    *("--initial-cluster", cluster, "--logger", "zap", "--log-level", "warn"),
                    # Nothing here outlives the test, and a slow disk shall not decide when an election ends.
                    *("--unsafe-no-fsync",) * self._knows("--unsafe-no-fsync"),
                    *more,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                close_fds=True,
            )

    def _knows(self, option: str) -> bool:
        asked = subprocess.run([self.program, "--help"], capture_output=True, check=False)
        return option.encode() in asked.stdout + asked.stderr

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def status(self, credentials: grpc.ChannelCredentials | None = None) -> etcd.StatusResponse | None:
        """What it says of itself; None if it says nothing within a second."""
        with (
            grpc.insecure_channel(self.endpoint)
            if credentials is None
            else grpc.secure_channel(self.endpoint, credentials)
        ) as channel:
            try:
                answer = channel.unary_unary("/etcdserverpb.Maintenance/Status")(b"", timeout=1.0)
            except grpc.RpcError:
                return None
        return protobuf.decode(etcd.StatusResponse, answer)


class Streets:
    """A network namespace for each member, joined by a bridge to the test. Only root may build it."""

    _built = count()

    def __init__(self, members: list[Member]) -> None:
        number = next(self._built)
        self._members = members
        self._net = f"198.18.{(os.getpid() * 7 + number) % 254 + 1}"  # a range for tests of networks, RFC 2544
        self._prefix = f"bd{os.getpid() % 100_000}n{number}"
        self._bridge = f"{self._prefix}b"

    def build(self) -> None:
        assert os.geteuid() == 0, "to cut a member off takes network namespaces, and those take root: run this as root"
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "addr", "add", f"{self._net}.1/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        for index, member in enumerate(self._members):
            space, outer, inner = self._space(member.name), f"{self._prefix}o{index}", f"{self._prefix}i{index}"
            member.host, member.within = f"{self._net}.{index + 2}", (_program("ip"), "netns", "exec", space)
            _run("ip", "netns", "add", space)
            _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
            _run("ip", "link", "set", inner, "netns", space)
            _run("ip", "link", "set", outer, "master", self._bridge, "up")
            _run("ip", "-n", space, "addr", "add", f"{member.host}/24", "dev", inner)
            _run("ip", "-n", space, "link", "set", inner, "up")
            _run("ip", "-n", space, "link", "set", "lo", "up")

    def cut(self, name: str) -> None:
        chains = "".join(
            f"chain {hook} {{\ntype filter hook {hook} priority 0; policy drop;\n}}\n" for hook in ("input", "output")
        )
        self._nft(name, f"table inet cut {{\n{chains}}}\n")

    def mend(self, name: str) -> None:
        self._nft(name, "delete table inet cut\n")

    def remove(self) -> None:
        for member in self._members:
            subprocess.run(["ip", "netns", "del", self._space(member.name)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True, check=False)

    def _space(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _nft(self, name: str, rules: str) -> None:
        _run("ip", "netns", "exec", self._space(name), _program("nft"), "-f", "-", said=rules)


class Cluster:
    """Members that know each other. Entering starts them and waits for a leader."""

    def __init__(
        self,
        folder: Path,
        size: int = 1,
        *,
        more: tuple[str, ...] = (),
        scheme: str = "http",
        credentials: grpc.ChannelCredentials | None = None,
        program: str | None = None,
        apart: bool = False,
    ) -> None:
        ports = free_ports(2 * size)
        self.members = [
            Member(folder, f"m{index}", ports[2 * index], ports[2 * index + 1], program=program)
            for index in range(size)
        ]
        self.more, self.scheme, self.credentials = more, scheme, credentials
        self._streets = Streets(self.members) if apart else None

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    def start(self, member: Member) -> None:
        cluster = ",".join(f"{each.name}=http://{each.host}:{each.peer_port}" for each in self.members)
        member.start(cluster, *self.more, scheme=self.scheme)

    def leader(self) -> Member:
        """The member that leads, as soon as one does and the others agree."""
        until = time.monotonic() + PATIENCE_S
        while True:
            running = [each for each in self.members if each.process is not None]
            for each in running:
                assert each.process is not None
                assert each.process.poll() is None, f"etcd ended: {(each.folder / 'log').read_text()[-2000:]}"
            said = [each.status(self.credentials) for each in running]
            leaders = {each.leader for each in said if each is not None}
            if None not in said and len(leaders) == 1 and leaders != {0}:
                for each in running:
                    if self._leads(each):
                        return each
            assert time.monotonic() < until, f"no leader after {PATIENCE_S:g} s: {said}"
            time.sleep(0.05)

    def _leads(self, member: Member) -> bool:
        said = member.status(self.credentials)
        return said is not None and said.header is not None and said.leader == said.header.member_id

    def ctl(self, *words: str, more: Mapping[str, str] | None = None) -> str:
        """What etcdctl answers."""
        asked = subprocess.run(
            [_program("etcdctl"), "--endpoints", ",".join(self.endpoints), *words],
            env={"ETCDCTL_API": "3", **(more or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert asked.returncode == 0, f"etcdctl {words[0]}: {asked.stderr}"
        return asked.stdout

    @contextmanager
    def frozen(self, *members: Member) -> Iterator[None]:
        """Inside, their machines accept connections and bytes, and nobody answers."""
        for member in members:
            member.freeze()
        try:
            yield
        finally:
            for member in members:
                member.thaw()

    @contextmanager
    def cut_off(self, member: Member) -> Iterator[None]:
        """Inside, every packet to and from this member vanishes, those to the test included. Needs `apart`."""
        assert self._streets is not None, "say apart=True"
        self._streets.cut(member.name)
        try:
            yield
        finally:
            self._streets.mend(member.name)

    def __enter__(self) -> Self:
        try:
            if self._streets is not None:
                self._streets.build()
            for member in self.members:
                self.start(member)
            self.leader()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        for member in self.members:
            member.kill()
        if self._streets is not None:
            self._streets.remove()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
