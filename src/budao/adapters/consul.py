"""Services of Consul, read from its health API with blocking queries.

Read only: services register with Consul's own agent. Consul keeps the entries of a dead node for a minute and more;
the balancer leaves them alone before that, since calls to them fail.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from random import Random
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import aiohttp

from budao.adapters._http_source import ELSEWHERE, PAUSES, open_session, read_all, said
from budao.discovery import CameBack, Instance, Listed, Sighting, WentAway, compared
from budao.guard import pause_s
from budao.model import RemoteWireError
from budao.wire import BODY_BYTES_MAX, INDEX_HEADER, next_index, parse_health, parse_index

__all__ = ["ConsulSource"]

WAIT_S: Final = 60.0
"""How long a blocking query waits for news, in seconds. Consul adds up to a sixteenth of it."""
ASK_S: Final = 10.0
REPEAT_MIN_S: Final = 0.05
"""An index that moves without any news, as it does on a busy server, must not make a busy loop."""

_log = logging.getLogger("budao.discovery")


class ConsulSource:
    """Follows services by blocking queries. A token goes into a header, never into a message."""

    def __init__(
        self,
        address: str = "http://127.0.0.1:8500",
        *,
        token: str | None = None,
        datacenter: str = "",
        tls: ssl.SSLContext | None = None,
        rng: Random | None = None,
    ) -> None:
        self.name = f"Consul at {address}"
        self._headers = {} if token is None else {"X-Consul-Token": token}
        self._datacenter = datacenter
        self._session = open_session(address, tls)
        self._rng = Random() if rng is None else rng

    async def follow(self, service: str) -> AsyncIterator[Sighting]:
        """What Consul says about a service, for ever."""
        index, problem, failures = 0, "", 0
        known: dict[str, Instance] | None = None
        while True:
            try:
                answered, instances = await self._asked(service, index)
            except (aiohttp.ClientError, TimeoutError, OSError, RemoteWireError) as error:
                failures += 1
                if said(error) != problem:
                    problem = said(error)
                    yield WentAway(problem)
                await asyncio.sleep(pause_s(failures, PAUSES, self._rng) or 0.0)
                continue
            found = {instance.id: instance for instance in instances}
            if known is None or answered < index:  # Consul lost its state, or was restored: all may be different
                yield Listed(answered, instances)
            else:
                changed = compared(known, found, answered)
                if problem:
                    yield CameBack()
                if changed is not None:
                    yield changed
            known, problem, failures = found, "", 0
            is_new = answered != index
            index = next_index(index, answered)
            if is_new:
                await asyncio.sleep(REPEAT_MIN_S)

    async def acknowledge(self, service: str, watcher: str, revision: int) -> bool:  # noqa: ARG002 -- there is no place
        """Consul has no place to say it that expires with whoever said it."""
        return False

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _asked(self, service: str, index: int) -> tuple[int, tuple[Instance, ...]]:
        query = {"index": str(index), "wait": f"{WAIT_S:g}s"} if index else {}
        if self._datacenter:
            query["dc"] = self._datacenter
        # A sixteenth of the wait is Consul's own jitter.
        total_s = ASK_S + (WAIT_S * 17 / 16 if index else 0.0)
        async with self._session.get(
            f"/v1/health/service/{quote(service, safe='')}",
            params=query,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=total_s, connect=ASK_S),
            allow_redirects=False,  # the token would go along, to whoever that is
        ) as answer:
            if answer.status != 200:
                raise RemoteWireError(f"{self.name} answers {answer.status}: {_advice(answer.status)}")
            raw = await read_all(answer, BODY_BYTES_MAX, self.name)
            instances, skipped = parse_health(raw, service)
            for each in skipped[:10]:
                _log.warning("%s: left out: %s", self.name, each)
            return parse_index(answer.headers.get(INDEX_HEADER)), instances


def _advice(status: int) -> str:
    return {
        301: ELSEWHERE,
        307: ELSEWHERE,
        403: "the token may not read this service",
        500: "it has no leader, or lost it",
        429: "it asks to come back later",
    }.get(status, "nothing more is known")
