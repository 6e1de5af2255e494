"""`budao services` and `budao drain`: who is there, what changes, and taking one instance out."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from budao.aio import Followed, Lost, Store, follow
from budao.apps.stores import advised, shown
from budao.discovery import Instance
from budao.model import RemoteWireError, Stage
from budao.store import Change, Entry, Put, Txn, unchanged
from budao.wire import (
    Watcher,
    format_instance,
    instances_span,
    parse_instance,
    parse_key,
    parse_watcher,
    watchers_span,
)

COLOURS: Mapping[Stage, str] = {Stage.STARTING: "yellow", Stage.READY: "green", Stage.DRAINING: "magenta"}
MORE: Mapping[str, Callable[[Instance], str]] = {
    "zone": lambda instance: instance.zone,
    "version": lambda instance: instance.version,
    "weight": lambda instance: "" if instance.weight == 1.0 else f"{instance.weight:g}",
    "capacity": lambda instance: str(instance.capacity or ""),
}
"""Columns that are shown if there is anything in them, and room for them."""
WIDE = 100
"""Characters below which only the columns that nobody can do without are shown."""
TRIES_MAX = 8
SETTLE_S = 0.3
"""How much longer a drain listens once everybody it knows of has acknowledged."""


@dataclass(slots=True)
class Overview:
    """Every instance and every watcher of a store, as they stand."""

    instances: dict[str, Instance] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    watchers: dict[str, tuple[str, Watcher]] = field(default_factory=dict)
    """By key: the service, and who follows it."""
    revision: int = 0
    problem: str = ""
    """Why the store cannot be asked, if it cannot."""
    listed: set[bool] = field(default_factory=set)
    """What is known to be whole at present: False for the instances, True for the watchers."""

    def take(self, change: Change) -> tuple[Instance | None, Instance | None]:
        """An instance came, changed or went: as it was, and as it is."""
        before = self.instances.pop(change.key, None)
        self.unreadable.discard(change.key)
        if change.entry is None:
            return before, None
        try:
            now = parse_instance(change.entry.value)
        except RemoteWireError:
            self.unreadable.add(change.key)
            return before, None
        self.instances[change.key] = now
        return before, now

    def take_watcher(self, change: Change) -> None:
        """A watcher came, acknowledged, or went."""
        self.watchers.pop(change.key, None)
        if change.entry is not None:
            try:
                service, name = parse_key(change.key)
                self.watchers[change.key] = service, parse_watcher(name, change.entry.value)
            except RemoteWireError:
                self.unreadable.add(change.key)

    def sorted(self) -> list[Instance]:
        """Every instance, by service and id."""
        return sorted(self.instances.values(), key=lambda instance: (instance.service, instance.id))

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "revision": self.revision,
            "instances": [plain(instance) for instance in self.sorted()],
            "watchers": [
                {"service": service, "name": watcher.name, "revision": watcher.revision, "at": watcher.at}
                for service, watcher in sorted(self.watchers.values(), key=lambda each: (each[0], each[1].name))
            ],
            "unreadable": sorted(self.unreadable),
        }


def plain(instance: Instance) -> dict[str, Any]:
    """An instance for JSON."""
    return {
        "service": instance.service,
        "id": instance.id,
        "stage": instance.stage.value,
        "addresses": {name: {"host": at.host, "port": at.port} for name, at in instance.addresses.items()},
        "zone": instance.zone,
        "weight": instance.weight,
        "version": instance.version,
        "capacity": instance.capacity,
        "metadata": dict(instance.metadata),
    }


def addresses(instance: Instance) -> str:
    """Where it listens, the main address first."""
    return ", ".join(
        f"{name} [{at.host}]:{at.port}" if ":" in at.host else f"{name} {at.host}:{at.port}"
        for name, at in instance.addresses.items()
    )


def table(overview: Overview, store: str, *, width: int = 80, service: str = "") -> Table | Text:
    """What a person reads: a line for each instance, and a column for all that any of them says."""
    services = {instance.service for instance in overview.instances.values()}
    count = f"{_many(len(overview.instances), 'instance')} of {_many(len(services), 'service')}"
    caption = f"{store}, revision {overview.revision}; {_many(len(overview.watchers), 'watcher')}"
    if overview.unreadable:
        caption += f"; {_many(len(overview.unreadable), 'entry', 'entries')} cannot be read"
    if overview.problem:
        caption = f"the store cannot be asked, this may be old: {overview.problem}"
    if not overview.instances:
        if not overview.revision and not overview.problem:
            return Text(f"asking {store}")
        return Text(f"no instance{f' of {service}' if service else ''} is registered\n{caption}")
    made = Table(title=count, caption=caption, title_justify="left", caption_justify="left", highlight=False)
    columns = [name for name, says in MORE.items() if width >= WIDE and any(map(says, overview.instances.values()))]
    for name in ("service", "id", "stage", "addresses"):
        made.add_column(name, overflow="fold", no_wrap=name == "stage")
    for name in columns:
        made.add_column(name, overflow="fold", justify="right" if name in {"weight", "capacity"} else "left")
    every = overview.sorted()
    for before, instance in zip((None, *every), every, strict=False):
        made.add_row(
            Text(instance.service if before is None or instance.service != before.service else ""),
            Text(instance.id),
            Text(instance.stage.value, style=COLOURS[instance.stage]),
            Text(addresses(instance)),
            *(Text(MORE[name](instance)) for name in columns),
        )
    return made


def _many(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or f'{one}s'}"


async def followed(
    store: Store, overview: Overview, namespace: str, service: str
) -> AsyncGenerator[list[tuple[Instance | None, Instance | None]], None]:
    """Keeps the overview up to date for ever; each time what changed, as pairs of before and after."""
    queue: asyncio.Queue[tuple[bool, Followed | Lost]] = asyncio.Queue(maxsize=100)

    async def read(is_watchers: bool) -> None:
        span = (watchers_span if is_watchers else instances_span)(namespace, service)
        async with aclosing(follow(store, span)) as news:
            async for fact in news:
                await queue.put((is_watchers, fact))

    # No task group: a generator that is closed while it waits would end one with a group of errors.
    reading = [asyncio.create_task(read(is_watchers)) for is_watchers in (False, True)]
    try:
        while True:
            is_watchers, fact = await queue.get()
            if isinstance(fact, Lost):
                overview.problem = fact.problem
                overview.listed.discard(is_watchers)
                yield []
                continue
            overview.problem, overview.revision = "", max(overview.revision, fact.revision)
            overview.listed.add(is_watchers)
            if is_watchers:
                for change in fact.changes:
                    overview.take_watcher(change)
                yield []
            else:
                yield [overview.take(change) for change in fact.changes]
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


async def show(store: Store, *, as_json: bool, is_live: bool, namespace: str, service: str) -> int:
    """Prints the table once, or keeps it up to date until it is stopped."""
    overview = Overview()
    console = Console()

    def drawn() -> Table | Text:
        return table(overview, store.name, width=console.width, service=service)

    async with aclosing(followed(store, overview, namespace, service)) as changes:
        if is_live:
            with Live(drawn(), console=console, auto_refresh=False) as live:
                async for _ in changes:
                    live.update(drawn(), refresh=True)
        async for _ in changes:
            if overview.problem:
                print(advised(overview.problem), file=sys.stderr)
                return 1
            if len(overview.listed) == 2:
                break
    if as_json:
        print(json.dumps(overview.as_plain(), indent=1, ensure_ascii=False))
    else:
        console.print(drawn())
    return 0


async def watch(store: Store, *, as_json: bool, namespace: str, service: str) -> int:
    """Prints a line for each instance that comes, changes or goes, until it is stopped."""
    overview = Overview()
    problem = ""
    async with aclosing(followed(store, overview, namespace, service)) as changes:
        async for pairs in changes:
            if overview.problem != problem:
                problem = overview.problem
                print(advised(problem) if problem else "the store is back", file=sys.stderr)
            for before, now in pairs:
                line = _event(before, now, overview.revision, as_json=as_json)
                if line:
                    print(line, flush=True)
    return 0


def _event(before: Instance | None, now: Instance | None, revision: int, *, as_json: bool) -> str:
    about = now or before
    if about is None or before == now:
        return ""
    kind = "came" if before is None else "gone" if now is None else "changed"
    if as_json:
        return json.dumps({"event": kind, "revision": revision, **plain(about)}, ensure_ascii=False)
    at = datetime.fromtimestamp(time.time()).astimezone().strftime("%H:%M:%S")
    said = f"{at}  {kind:<8}{about.service}  {about.id}"
    if now is None:
        return said
    was = f" (was {before.stage.value})" if before is not None and before.stage is not now.stage else ""
    return f"{said}  {now.stage.value}{was}  {addresses(now)}" + (f"  {now.zone}" if now.zone else "")


async def drain(
    store: Store, name: str, *, service: str, within_s: float, as_json: bool, namespace: str, say: Callable[[str], None]
) -> int:
    """Takes one instance out: publishes that it drains, and waits until everybody who follows it has acknowledged."""
    marked = await _mark(store, name, service, namespace)
    if isinstance(marked, str):
        print(marked, file=sys.stderr)
        return 1
    instance, revision, is_news = marked
    about = f"{instance.id} of {instance.service}"
    say(f"{about}: draining, published at revision {revision}" if is_news else f"{about} drains already")
    acknowledged, waiting, problem = await _heard(store, instance.service, revision, within_s, namespace)
    if as_json:
        proof = {"id": instance.id, "service": instance.service, "revision": revision}
        found = {"acknowledged_s": acknowledged, "waiting": waiting, "problem": problem}
        print(json.dumps(proof | found, ensure_ascii=False))
        return 1 if waiting or problem else 0
    for who, after_s in acknowledged.items():
        say(f"  {shown(who)} acknowledged after {after_s:.3f} s")
    for who in waiting:
        say(f"  {shown(who)} did not acknowledge within {within_s:g} s")
    if problem:
        say(f"  {problem}")
        say("somebody may still call it; ask again before you stop it")
    elif waiting:
        say("those may still call it; look at them before you stop it")
    elif acknowledged:
        say("nobody who watches calls it any more; stop it once its calls in flight have ended")
    else:
        say("nobody watches this service through the store; whoever calls it otherwise has to be told otherwise")
    return 1 if waiting or problem else 0


async def _mark(store: Store, name: str, service: str, namespace: str) -> tuple[Instance, int, bool] | str:
    """Publishes that it drains: the instance, since which revision, and whether that is news; or what is wrong."""
    for _ in range(TRIES_MAX):
        found = await _find(store, name, service, namespace)
        if isinstance(found, str):
            return found
        entry, instance = found
        if instance.stage is Stage.DRAINING:
            return instance, entry.modified, False
        raw = format_instance(replace(instance, stage=Stage.DRAINING))
        done = await store.commit(Txn(when=(unchanged(entry),), then=(Put(entry.key, raw, entry.lease),)))
        if done.held:
            return instance, done.revision, True
    return f"{name}: it keeps changing; try again"


async def _heard(
    store: Store, service: str, revision: int, within_s: float, namespace: str
) -> tuple[dict[str, float], list[str], str]:
    """Who has acknowledged the revision, after how many seconds; who has not by the end; why nobody knows, if so."""
    begun = time.monotonic()
    acknowledged: dict[str, float] = {}
    waiting: list[str] = []
    overview = Overview()
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(within_s),
            aclosing(followed(store, overview, namespace, service)) as changes,
        ):
            while True:
                # Instances and watchers have been listed, and all have heard: one may have come at the same moment.
                is_done = len(overview.listed) == 2 and not waiting
                await asyncio.wait_for(anext(changes), SETTLE_S if is_done else None)
                waiting = sorted(each.name for _, each in overview.watchers.values() if each.revision < revision)
                for _, watcher in overview.watchers.values():
                    if watcher.revision >= revision:
                        acknowledged.setdefault(watcher.name, time.monotonic() - begun)
    if len(overview.listed) == 2:
        return acknowledged, waiting, ""
    return acknowledged, waiting, overview.problem or f"the store did not say within {within_s:g} s who watches"


async def _find(store: Store, name: str, service: str, namespace: str) -> tuple[Entry, Instance] | str:
    """The one instance of that id, or what keeps it from being found."""
    page = await store.read(instances_span(namespace, service))
    found: list[tuple[Entry, Instance]] = []
    known: list[str] = []
    for entry in page.entries:
        try:
            instance = parse_instance(entry.value)
        except RemoteWireError:
            continue
        known.append(instance.id)
        if instance.id == name:
            found.append((entry, instance))
    if len(found) == 1:
        return found[0]
    if found:
        services = ", ".join(sorted(instance.service for _, instance in found))
        return f"{name}: several services have an instance of that id ({services}); say which with --service"
    of = f" of {service}" if service else ""
    return f"{name}: no such instance{of}; {_listed(known)}"


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    more = f" and {len(known) - 10} more" if len(known) > 10 else ""
    return f"there are {', '.join(known[:10])}{more}" if known else "there is none at all"
