"""The demo of push: a durable log, two gateways that may be killed, a ticker, and a page to watch nothing being lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from budao.aio import PublishTimedOut, PushClient
from budao.apps import demo_push_said as said
from budao.apps.charges import Charge, free_ports
from budao.apps.demo_push_page import NAMES, page_server, read_assets
from budao.model import Wall
from budao.push import BackoffPolicy, ClientPolicy
from budao.wire import tokens

GATEWAY_PORT: Final = 7440
LOG_PORT: Final = 7430
LOG_AGAIN_S: Final = 1.0
"""Everybody waits for the log, so it is not left dead for long."""
TICKER: Final = "ticker"
TICKS_PER_S: Final = 5
EVENTS_TOLD: Final = 20
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the command line asks for."""

    port: int
    """Of the page, or the first free one after it."""
    data: Path | None = None
    """Where everything is kept; None for a folder that goes with the demo."""
    seconds: float | None = None
    """How long it runs; None until it is told to end."""
    again_s: float = 10.0
    """A gateway that ended is started again after so long."""
    as_json: bool = False


@dataclass(slots=True, kw_only=True)
class Stage:
    """What runs, and what has happened."""

    run: str
    """A name for this run: the ticker counts within it."""
    page: str
    """Where the page is."""
    data: Path
    token: str
    again_s: float
    gateways: tuple[Charge, ...] = ()
    log: Charge | None = None
    urls: Mapping[str, str] = field(default_factory=dict)
    """Of the gateways, by name."""
    session: str | None = None
    """Of the ticker."""
    ticks: int = 0
    """Messages of the ticker that are durable."""
    events: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=EVENTS_TOLD))
    """Wall clock, and what happened then; the latest last."""

    def plain(self) -> dict[str, Any]:
        """How things stand, for the page."""
        now = asyncio.get_running_loop().time()
        return {
            "run": self.run,
            "page": self.page,
            "token": self.token,
            "token_file": str(self.data / "token"),
            "again_s": self.again_s,
            "ticker": {
                "channel": TICKER,
                "per_s": TICKS_PER_S,
                "published": self.ticks,
                "session": self.session,
            },
            "gateways": [{"url": self.urls[each.name], **_plain(each, now)} for each in self.gateways],
            "log": None if self.log is None else {"folder": str(self.data / "log"), **_plain(self.log, now)},
            "events": [{"at": at, "text": text} for at, text in self.events],
        }


def _plain(charge: Charge, now: float) -> dict[str, Any]:
    back_in_s = max(0.0, charge.again_at - now) if charge.state == "down" else 0.0
    return {"name": charge.name, "state": charge.state, "pid": charge.pid, "back_in_s": round(back_in_s, 1)}


async def play(wishes: Wishes) -> None:
    """Runs the demo until it is told to end. When it returns, or raises, its processes have ended and its ports are closed.

    Raises:  NotStarted, NoClient, OSError.
    """
    assets = read_assets()
    with _folder(wishes.data) as data:
        page_port, log_port, one, two = free_ports(wishes.port, LOG_PORT, GATEWAY_PORT, GATEWAY_PORT)
        stage = Stage(
            run=secrets.token_hex(4),
            page=f"http://127.0.0.1:{page_port}/",
            data=data,
            token=_token(data),
            again_s=wishes.again_s,
            urls={"g1": f"http://127.0.0.1:{one}", "g2": f"http://127.0.0.1:{two}"},
        )
        teller = said.Teller(as_json=wishes.as_json)

        def tell(text: str) -> None:
            at = time.time()
            stage.events.append((at, text))
            teller.tell(at, text, stage.gateways)

        with _told_to_end() as ending:
            async with _servers(stage, log_port, page_port, tell):
                served = page_server(page_port, assets, stage.plain, talks_to=tuple(stage.urls.values()))
                client = _ticker(stage)
                async with served, client:
                    teller.opening(stage)
                    await _until(ending, _tick(stage, client), wishes.seconds)
                teller.ending(stage)


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is None:
        with tempfile.TemporaryDirectory(prefix="budao-demo-") as made:
            yield Path(made)
    else:
        given.mkdir(parents=True, exist_ok=True)
        yield given.absolute()


def _token(data: Path) -> str:
    """Makes the keys of this run, and a token that may do everything."""
    secret = secrets.token_hex(SECRET_BYTES)
    _write(data / "token.key", secret)
    _write(data / "ticket.keys", f"demo {secrets.token_hex(SECRET_BYTES)}\n")
    token = tokens.sign_development_token(secret, subject="developer", operate=True, now=Wall(time.time()))
    _write(data / "token", token)
    return token


def _write(file: Path, text: str) -> None:
    """For its owner's eyes only."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
        opened.write(text)


@contextlib.contextmanager
def _told_to_end() -> Iterator[asyncio.Event]:
    """Set by SIGINT and SIGTERM."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, ending.set)
    try:
        yield ending
    finally:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)


@contextlib.asynccontextmanager
async def _servers(stage: Stage, log_port: int, page_port: int, tell: said.Tell) -> AsyncIterator[None]:
    """The log and the gateways; what ends is started again. They are told to end in the other order."""
    data = stage.data
    stage.log = log = Charge(
        "log",
        ("log", "serve", str(data / "log"), "--port", str(log_port)),
        said=data / "log.said",
        again_s=min(LOG_AGAIN_S, stage.again_s),
        tell=tell,
    )
    stage.gateways = tuple(
        Charge(
            name,
            _gateway(stage, name, log_port, page_port),
            said=data / f"{name}.said",
            again_s=stage.again_s,
            tell=tell,
        )
        for name in stage.urls
    )
    keeping: list[asyncio.Task[None]] = []
    try:
        await log.start()
        await asyncio.gather(*(each.start() for each in stage.gateways))
        keeping = [asyncio.create_task(each.keep()) for each in (log, *stage.gateways)]
        yield
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        await asyncio.gather(*(each.end() for each in stage.gateways))
        await log.end()


def _gateway(stage: Stage, name: str, log_port: int, page_port: int) -> tuple[str, ...]:
    peers = (f"{other}={url}" for other, url in stage.urls.items() if other != name)
    origins = (f"http://{each}:{page_port}" for each in NAMES)
    return (
        *("gateway", "--name", name, "--port", stage.urls[name].rpartition(":")[2]),
        *("--log", f"budao://127.0.0.1:{log_port}"),
        *("--token-key", str(stage.data / "token.key"), "--ticket-keys", str(stage.data / "ticket.keys")),
        *(word for peer in peers for word in ("--peer", peer)),
        *(word for origin in origins for word in ("--origin", origin)),
    )


def _ticker(stage: Stage) -> PushClient:
    """A gateway that was killed is back soon, and nobody else asks for it: it is asked for often."""
    policy = ClientPolicy(backoff=BackoffPolicy(max_s=2.0))
    return PushClient(list(stage.urls.values()), token=stage.token, standby=True, policy=policy, name="budao demo")


async def _tick(stage: Stage, client: PushClient) -> None:
    """Publishes numbers without end, each once: one that is not answered in time is published again under its id."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        number = stage.ticks + 1
        value = {"run": stage.run, "n": number}
        while True:
            try:
                await client.publish(TICKER, value, id=f"{stage.run}-{number}")
                break
            except PublishTimedOut:
                continue
        stage.ticks, stage.session = number, client.session
        due = max(due + 1.0 / TICKS_PER_S, loop.time())
        await asyncio.sleep(due - loop.time())


async def _until(ending: asyncio.Event, work: Any, seconds: float | None) -> None:
    """Until it is told to end, its time is over, or the work fails."""
    tasks = [asyncio.create_task(work), asyncio.create_task(ending.wait())]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
