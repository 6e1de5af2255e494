"""Fan-out, memory, upgrades, latency and recovery of the push gateway, beside a send() loop in C, nchan and `websockets`."""

from __future__ import annotations

import argparse

from bench.push import fan_out, idle, publishing, recovery

PARTS = ("idle", "latency", "durable", "recovery", "fan-out")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.push", description=__doc__)
    parser.add_argument("--readers", type=int, default=2_000)
    parser.add_argument("--messages", type=int, default=250)
    parser.add_argument("--per-s", type=float, default=50.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only servers whose name holds this, and the floor")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    options = parser.parse_args()
    if "idle" in options.parts:
        idle.table(connections=10_000, tls_connections=2_000)
    if "latency" in options.parts:
        publishing.latency(readers=100, per_s=100.0, seconds=10.0)
    if "durable" in options.parts:
        for publishers in (1, 16, 64):
            publishing.durable(publishers=publishers, seconds=5.0)
    if "recovery" in options.parts:
        recovery.table((1_000, 2_000, 5_000))
    if "fan-out" not in options.parts:
        return
    fan_out.table(
        readers=options.readers,
        messages=options.messages,
        per_s=options.per_s,
        rounds=options.rounds,
        only=options.only,
    )


if __name__ == "__main__":
    main()
