"""Names from DNS: a caching resolver for hosts and SRV records, and services that are found by such names.

It needs dnspython, since the resolver of the operating system tells nobody how long an answer holds, and knows no SRV.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from budao.discovery import Address, CameBack, Instance, Listed, NamePolicy, Sighting, WentAway, compared, names
from budao.model import BudaoError, Clock, Mono

__all__ = ["DnsSource", "NotResolved", "Resolver"]

TARGETS_MAX: Final = 100
"""Targets of one SRV name that are looked up."""


class NotResolved(BudaoError):
    """A name has no address, or nobody could say. Nothing was sent to it."""

    def __init__(self, name: str, happened: str) -> None:
        super().__init__(name, happened)
        self.name = name
        self.happened = happened

    def __str__(self) -> str:
        return f"{self.name}: {self.happened}; check the name and the name servers"


def _monotonic() -> Mono:
    return Mono(time.monotonic())


class Resolver:
    """Answers from memory wherever it can; an answer past its time is used while nobody has a newer one.

    Must be used within one event loop. `servers` are addresses of name servers, by default those of the system.
    """

    def __init__(
        self,
        servers: Sequence[Address] = (),
        *,
        policy: NamePolicy | None = None,
        clock: Clock = _monotonic,
    ) -> None:
        self._names = names.Names(NamePolicy() if policy is None else policy)
        self._clock = clock
        self._tasks: dict[names.Question, asyncio.Task[None]] = {}
        self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [server.host for server in servers]
            self._resolver.nameserver_ports = {server.host: server.port for server in servers}
        self._resolver.cache = None  # a second cache would keep its own time

    @property
    def policy(self) -> NamePolicy:
        """How long names are believed."""
        return self._names.policy

    async def host(self, name: str, port: int) -> tuple[Address, ...]:
        """The addresses of a host, each with the port.

        Raises:  NotResolved.
        """
        known = await self.ask(names.Question(name))
        return tuple(replace(each.address, port=port) for each in known.located)

    async def service(self, name: str) -> tuple[names.Located, ...]:
        """What the SRV records of a name lead to, such as "_http._tcp.shop.example", best priority first.

        Raises:  NotResolved.
        """
        known = await self.ask(names.Question(name, names.Kind.SERVICE))
        return known.located

    async def ask(self, question: names.Question) -> names.Known:
        """What is known of a name, waiting for at most `wait_max_s` if nothing is.

        Raises:  NotResolved if there is no such name, or nobody says in time.
        """
        known, lookups = self._names.ask(question, self._clock())
        for each in lookups:
            self._look_up(each)
        task = self._tasks.get(question)
        if known is None and task is not None:
            # Not cancelled with whoever waits: others may wait for the same lookup, and the next one to ask will.
            await asyncio.wait((task,), timeout=self.policy.wait_max_s)
            known, _ = self._names.ask(question, self._clock())
        if known is None:
            raise NotResolved(question.name, f"no answer within {self.policy.wait_max_s:g} s")
        if not known.located:
            raise NotResolved(question.name, known.problem or "it has no address")
        return known

    async def aclose(self) -> None:
        """Ends lookups that are under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    def _look_up(self, order: names.LookUp) -> None:
        question = order.question
        task = asyncio.create_task(self._answered(question), name=f"budao looks up {question.name}")
        self._tasks[question] = task
        task.add_done_callback(lambda _: self._tasks.pop(question, None))

    async def _answered(self, question: names.Question) -> None:
        fact: names.Found | names.NotThere | names.LookupFailed
        try:
            async with asyncio.timeout(self.policy.lookup_max_s):
                fact = await (self._hosts if question.kind is names.Kind.HOST else self._services)(question)
        except (dns.exception.DNSException, TimeoutError, OSError, ValueError) as error:
            said = str(error) or type(error).__name__
            fact = names.LookupFailed(question, f"the name servers do not say: {said:.200}")
        self._names.handle(fact, self._clock())

    async def _hosts(self, question: names.Question) -> names.Found | names.NotThere:
        if len(question.name) > names.NAME_LENGTH_MAX:
            return names.NotThere(question)
        found, ttl_s = await self._addresses(question.name)
        return (
            names.Found(question, tuple(names.Located(Address(host, 0)) for host in found), ttl_s)
            if found
            else names.NotThere(question)
        )

    async def _services(self, question: names.Question) -> names.Found | names.NotThere:
        records, ttl_s = await self._records(question.name, "SRV")
        # "A Target of '.' means that the service is decidedly not available at this domain." RFC 2782
        # Nobody can call port 0, and such a record must not hide the others.
        wanted = [record for record in records if record.target != dns.name.root and record.port][:TARGETS_MAX]
        targets = {record.target.to_text(omit_final_dot=True) for record in wanted}
        answers = await asyncio.gather(*(self._addresses(target) for target in targets), return_exceptions=True)
        hosts = dict(zip(targets, answers, strict=True))
        located: list[names.Located] = []
        for record in wanted:
            answer = hosts[record.target.to_text(omit_final_dot=True)]
            if isinstance(answer, BaseException):
                continue  # one target that cannot be found must not hide the others
            addresses, host_ttl_s = answer
            ttl_s = min(ttl_s, host_ttl_s)
            located += [names.Located(Address(host, record.port), record.priority, record.weight) for host in addresses]
        if wanted and not located:
            failures = [answer for answer in answers if isinstance(answer, BaseException)]
            raise failures[0] if failures else ValueError("no target of it has an address")
        located.sort(key=lambda each: (each.priority, -each.weight))
        return names.Found(question, tuple(located), ttl_s) if located else names.NotThere(question)

    async def _addresses(self, name: str) -> tuple[list[str], float]:
        """Addresses of both families, IPv4 first. One family that fails does not hide the other."""
        answers = await asyncio.gather(self._records(name, "A"), self._records(name, "AAAA"), return_exceptions=True)
        found: list[str] = []
        ttl_s = float("inf")
        for answer in answers:
            if not isinstance(answer, BaseException):
                records, own_ttl_s = answer
                found += [record.address for record in records]
                ttl_s = min(ttl_s, own_ttl_s)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if failures and not found:
            raise failures[0]
        return found, ttl_s

    async def _records(self, name: str, kind: str) -> tuple[list[Any], float]:
        try:
            answer = await self._resolver.resolve(name, kind, lifetime=self.policy.lookup_max_s, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return [], float("inf")
        assert answer.rrset is not None, "an answer without records is raised as NoAnswer"
        return list(answer), float(answer.rrset.ttl)


class DnsSource:
    """Services found by name: "shop.example:8080" by its addresses, "_http._tcp.shop.example" by its SRV records.

    Asks when the last answer has used up its time. Read only: nobody can acknowledge anything to DNS.
    """

    def __init__(self, resolver: Resolver) -> None:
        self.name = "DNS"
        self._resolver = resolver

    async def follow(self, service: str) -> AsyncIterator[Sighting]:
        """What the name leads to, for ever."""
        question, port = _asked(service)
        known: dict[str, Instance] | None = None
        revision, problem = 0, ""
        while True:
            before = problem
            try:
                answer = await self._resolver.ask(question)
                problem = answer.problem
            except NotResolved as error:
                answer, problem = None, error.happened
            if problem and problem != before:
                yield WentAway(problem)
            if answer is not None and not problem:
                revision += 1
                found = _instances(service, answer.located, port)
                changed = compared(known or {}, found, revision)
                if known is None:
                    yield Listed(revision, tuple(found.values()))
                elif before:
                    yield CameBack()
                if known is not None and changed is not None:
                    yield changed
                known = found
            policy = self._resolver.policy
            await asyncio.sleep(policy.retry_s if problem else max(policy.ttl_min_s * policy.early_share, 0.01))

    async def acknowledge(self, service: str, watcher: str, revision: int) -> bool:  # noqa: ARG002 -- there is no place
        """DNS has no place to say it."""
        return False

    async def aclose(self) -> None:
        """Closes the resolver."""
        await self._resolver.aclose()


def _asked(service: str) -> tuple[names.Question, int]:
    """What to look up for a service: a host if it names a port, else its SRV records."""
    host, colon, port = service.rpartition(":")
    if colon and port.isascii() and port.isdigit() and 0 < int(port) < 65_536:
        return names.Question(host.strip("[]")), int(port)
    return names.Question(service, names.Kind.SERVICE), 0


def _instances(service: str, located: Sequence[names.Located], port: int) -> dict[str, Instance]:
    """Those of the best priority; the others are for when the best cannot be reached at all (RFC 2782)."""
    best = min(each.priority for each in located)
    is_weighted = any(each.weight for each in located)
    instances: dict[str, Instance] = {}
    for each in located:
        if each.priority == best:
            address = replace(each.address, port=port) if port else each.address
            key = f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
            # A weight of 0 means "hardly ever" beside others, and nothing where all have it.
            weight = float(each.weight) if each.weight else (0.1 if is_weighted else 1.0)
            instances[key] = Instance(service=service, id=key, addresses={"main": address}, weight=weight)
    return instances
