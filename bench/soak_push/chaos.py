"""What is done to the processes: drained, killed, frozen, taken over, one or two at a time."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter

from bench.soak_push.fleet import Fleet
from bench.soak_push.truth import Truth


class Chaos:
    """Does it, and counts it."""

    def __init__(self, fleet: Fleet, truth: Truth, rng: random.Random) -> None:
        self.fleet = fleet
        self.truth = truth
        self.rng = rng
        self.done: Counter[str] = Counter()
        self.taken_over = 0
        self.may_kill_log = True

    async def drain(self) -> None:
        """SIGTERM moves everybody; a successor on the same ports comes when it is gone."""
        role = self.rng.choice("aat")
        code = await self.fleet.end(role, signal.SIGTERM)
        if code:
            self.truth.blame(f"{role} ended with {code} after SIGTERM: {self.fleet.buried[-1].stderr[-3:]}")
        await asyncio.sleep(self.rng.uniform(0.0, 2.0))
        await self.fleet.start_gateway(role)

    async def kill(self) -> None:
        """SIGKILL, and another one a moment later."""
        role = self.rng.choice("aat")
        await self.fleet.end(role, signal.SIGKILL)
        await asyncio.sleep(self.rng.choice((0.0, self.rng.uniform(0.0, 8.0))))
        await self.fleet.start_gateway(role)

    async def freeze(self) -> None:
        """SIGSTOP for a while."""
        await self.fleet.freeze(self.rng.choice("aabbt"), self.rng.uniform(0.2, 6.0))

    async def take_over(self) -> None:
        """A successor takes the sockets of `a`, which ends then."""
        old = self.fleet.children["a"]
        try:
            new = await self.fleet.start_gateway("a", takes_over=True)
        except (RuntimeError, TimeoutError) as problem:
            self.truth.blame(f"no successor could take over: {problem}; the old one said {old.stderr[-3:]}")
            return
        code = await old.gone()
        self.fleet.buried.append(old)
        said = next((line for line in new.stderr if line.startswith("took over")), "")
        if code or not said.endswith(" 0 failed"):
            self.truth.blame(f"taken over, the old one ended with {code}; the new one said {said or new.stderr[-3:]}")
        else:
            self.taken_over += int(said.split()[2])

    async def kill_log(self) -> None:
        """SIGKILL in the middle of writes, and again on its folder."""
        await self.fleet.end("log", signal.SIGKILL)
        await asyncio.sleep(self.rng.choice((0.0, self.rng.uniform(0.0, 6.0))))
        await self.fleet.start_log()

    async def restart_log(self) -> None:
        """SIGTERM while everybody is connected."""
        code = await self.fleet.end("log", signal.SIGTERM)
        if code:
            self.truth.blame(f"the log ended with {code} after SIGTERM: {self.fleet.buried[-1].stderr[-3:]}")
        await self.fleet.start_log()

    async def freeze_log(self) -> None:
        """SIGSTOP for a while."""
        await self.fleet.freeze("log", self.rng.uniform(0.2, 5.0))

    async def reload(self) -> None:
        """A hangup, which reloads the certificate."""
        self.fleet.children["t"].signal(signal.SIGHUP)

    async def rest(self) -> None:
        """Nothing, for once."""
        await asyncio.sleep(self.rng.uniform(1.0, 5.0))

    async def round(self) -> str:
        """One of the gateways, the log, or both, until it is over."""
        gateways = {self.drain: 3, self.kill: 3, self.freeze: 4, self.take_over: 4, self.reload: 1, self.rest: 4}
        logs = {self.freeze_log: 3, **({self.kill_log: 3, self.restart_log: 2} if self.may_kill_log else {})}
        picks = [self.rng.choices(list(gateways), list(gateways.values()))[0]]
        if self.rng.random() < 0.35:
            picks.append(self.rng.choices(list(logs), list(logs.values()))[0])
        names = [each.__name__.replace("_", " ") for each in picks]
        self.done.update(names)

        async def act(index: int) -> None:
            await asyncio.sleep(self.rng.uniform(0.0, 1.5))
            await picks[index]()

        await asyncio.gather(*map(act, range(len(picks))))
        return " + ".join(names)
