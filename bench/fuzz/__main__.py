"""Bytes that nobody would send, for everything that reads bytes.

    python -m bench.fuzz [--seconds 60] [--seed 1] [--corpus FOLDER] [target ...]

Decoders are fuzzed by coverage, each in a process of its own, one after the other. For these atheris is needed:
pip install -r bench/requirements.txt, in an environment that has budao[store] too. What waits (folders, ports) is fed by a
seeded mutator of ours. Prints for each target how many inputs were tried and the slowest one that was kept, measured
again without instruments; ends with 1 if anything was found, and says where the input is.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Final

INPUT_BYTES_MAX: Final = 65_536
INPUT_MAX_S: Final = 0.05
"""Of a processor, for one input, without instruments."""
SLOWED: Final = 10
"""How much slower instruments may make it, and still no alarm."""
MEMORY_MAX: Final = 1 << 30
"""Bytes of addresses beyond what the fuzzer begins with."""
WORD: Final = re.compile(rb"[A-Za-z_-]{3,24}")
NEEDS: Final = (
    "decoders need atheris: pip install -r bench/requirements.txt (CPython 3.11 to 3.13 on Linux, no compiler)"
)


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m bench.fuzz")
    asked.add_argument("--seconds", type=int, default=60, help="for each target")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--corpus", type=Path, help="keeps what was found interesting, for the next run")
    asked.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked.add_argument("target", nargs="*", help="all, if none is named")
    said = asked.parse_args()
    if said.child:
        return _fuzz(said.target[0], said.seconds, said.seed, said.corpus)
    from bench.fuzz.shells import SHELLS
    from bench.fuzz.targets import TARGETS

    wanted = said.target or [*TARGETS, *SHELLS]
    if unknown := [name for name in wanted if name not in TARGETS and name not in SHELLS]:
        asked.error(f"no target {', '.join(unknown)}; there are {', '.join([*TARGETS, *SHELLS])}")
    if not find_spec("atheris") and any(name in TARGETS for name in wanted):
        print(NEEDS, file=sys.stderr)
        return 2
    print(f"{'target':<18}{'inputs':>10}{'kept':>7}{'slowest ms':>12}  found", flush=True)
    is_clean = True
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            corpus = (said.corpus or Path(folder)) / name
            if name in SHELLS:
                count, found = SHELLS[name](said.seconds, Random(said.seed))
                print(f"{name:<18}{count:>10}{'':>7}{'':>12}  {found or 'nothing'}", flush=True)
            else:
                count, found = _fuzzed(name, said.seconds, said.seed, corpus)
                kept, slowest_s = _slowest(name, corpus)
                if not found and slowest_s > INPUT_MAX_S:
                    found = f"an input that takes more than {INPUT_MAX_S:g} s"
                print(f"{name:<18}{count:>10}{kept:>7}{slowest_s * 1e3:>12.1f}  {found or 'nothing'}", flush=True)
            is_clean &= not found
    return 0 if is_clean else 1


def _fuzzed(name: str, seconds: int, seed: int, corpus: Path) -> tuple[int, str]:
    """How many inputs were tried, and what was found."""
    from bench.fuzz.targets import TARGETS

    corpus.mkdir(parents=True, exist_ok=True)
    seeds = TARGETS[name].seeds()
    for index, raw in enumerate(seeds):
        (corpus / f"seed-{index}").write_bytes(raw)
    words = {word for raw in seeds for word in WORD.findall(raw)}
    corpus.with_suffix(".dict").write_text("".join(f'"{word.decode()}"\n' for word in sorted(words)))
    command = [sys.executable, "-m", "bench.fuzz", "--child", "--seconds", str(seconds), "--seed", str(seed)]
    ran = subprocess.run([*command, "--corpus", str(corpus), name], capture_output=True, check=False)
    said = ran.stderr.decode(errors="replace") + ran.stdout.decode(errors="replace")
    counted = re.findall(r"number_of_executed_units: (\d+)|^#(\d+)", said, re.MULTILINE)
    count = max((int(one or other) for one, other in counted), default=0)
    if ran.returncode == 0:
        return count, ""
    trace = re.search(r"=== Uncaught Python exception: ===\n(.*?)(?:\n==|\Z)", said, re.DOTALL)
    kept = re.search(r"Test unit written to (\S+)", said)
    where = Path(f"fuzz-{name}.bin")
    if kept and Path(kept[1]).exists():
        where.write_bytes(Path(kept[1]).read_bytes())
    return count, f"{trace[1].strip() if trace else said[-2000:]}\n    the input is in {where}"


def _slowest(name: str, corpus: Path) -> tuple[int, float]:
    from bench.fuzz.targets import TARGETS

    files = [path for path in corpus.iterdir() if path.is_file()]
    slowest_s = 0.0
    for path in files:
        raw = path.read_bytes()
        took_s = []
        for _ in range(3):
            begun = time.process_time()
            TARGETS[name].read(raw)
            took_s.append(time.process_time() - begun)
        slowest_s = max(slowest_s, min(took_s))
    return len(files), slowest_s


def _fuzz(name: str, seconds: int, seed: int, corpus: Path) -> int:
    """In a process of its own, since the fuzzer ends it."""
    import resource

    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["budao", "json", "tomllib"]):
        from bench.fuzz.targets import TARGETS
    read, shape = TARGETS[name].read, TARGETS[name].shape

    def one(raw: bytes) -> None:
        begun = time.process_time()
        read(raw)
        if time.process_time() - begun > INPUT_MAX_S * SLOWED:
            raise TimeoutError(f"{len(raw)} bytes take more than {INPUT_MAX_S * SLOWED:g} s")

    def mutated(raw: bytes, size_max: int, chance: int) -> bytes:
        # Half of the time in its shape: by its bytes alone a value seldom stays one.
        rng = Random(chance)
        bent = shape(raw, rng) if shape is not None and rng.random() < 0.5 else None
        return atheris.Mutate(raw, size_max) if bent is None else bent[:size_max]

    words = corpus.with_suffix(".dict")
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={INPUT_BYTES_MAX}",
        *([f"-dict={words}"] if words.stat().st_size else []),
        f"-artifact_prefix={corpus.parent}{os.sep}{name}-",
        "-print_final_stats=1",
        "-len_control=20",
        "-rss_limit_mb=2048",
        str(corpus),
    ]
    atheris.Setup(arguments, one, custom_mutator=mutated)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_MAX, resource.RLIM_INFINITY))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
