"""Fan-out, memory, upgrades, latency and recovery of the push gateway, beside a send() loop in C, nchan and `websockets`."""

from __future__ import annotations

import argparse

from bench.push import fan_out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.push", description=__doc__)
    parser.add_argument("--readers", type=int, default=2_000)
    parser.add_argument("--messages", type=int, default=250)
    parser.add_argument("--per-s", type=float, default=50.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only servers whose name holds this, and the floor")
    options = parser.parse_args()
    fan_out.table(
        readers=options.readers,
        messages=options.messages,
        per_s=options.per_s,
        rounds=options.rounds,
        only=options.only,
    )


if __name__ == "__main__":
    main()
