"""Rolling restarts under load, with endpoint news that travel for two seconds: bare servers beside the drain.

    python -m bench.rolling [uvicorn hypercorn granian grpc.aio] [--rate 300] [--lag 2]

Three instances of each server, each restarted once by SIGTERM: the new one comes first, as in a rolling update. Nobody
retries. Half of the calls come from a directory that acknowledges (two seconds late, too), half from one that cannot. A
bare server is registered and taken off by the bench, at the moment of the signal, as a cluster does with a pod. The two
ways run side by side, on real processes and sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import platform

from bench.rolling.fleet import Fleet
from bench.rolling.killed import killed, lines

GRACE_S = 12.0


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rolling")
    parser.add_argument("kinds", nargs="*", default=["uvicorn", "hypercorn", "granian", "grpc.aio"])
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--lag", type=float, default=2.0)
    asked = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {asked.rate:g} calls/s over 3 instances, each restarted once; no retries"
    )
    print(f"endpoint lag {asked.lag:g} s, grace {GRACE_S:g} s\n")
    print(f"{'server':<10} {'end':<6} {'refused':>8} {'lost':>6} {'nobody':>7} {'ok':>7}   exit after SIGTERM, s")
    for kind in asked.kinds:
        for report in await asyncio.gather(
            *(Fleet(kind, drain, lag_s=asked.lag, grace_s=GRACE_S).roll(asked.rate) for drain in (False, True))
        ):
            counts = report.counts
            exits = " ".join(f"{each:.2f}" for each in report.exits_s)
            print(
                f"{kind:<10} {'drain' if report.drain else 'bare':<6} {counts['refused']:>8} {counts['lost']:>6}"
                f" {counts['nobody']:>7} {counts['ok']:>7}   {exits}",
                flush=True,
            )
            if report.proofs:
                print(f"    {report.proofs[-1]}", flush=True)
    print()
    for line in lines("uvicorn", await killed("uvicorn", asked.rate)):
        print(line, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
