"""Whether memory, descriptors, threads and tasks stayed flat: the first third of a life after its warm-up against the last third."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench.soak_push.fleet import Child, Sample

GROWTH_SHARE = 0.08
GROWTH_KIB = 3_072
"""Memory may grow by this much or the share above, whichever is more."""
FILES_GROWTH = 8
TASKS_GROWTH = 5
THREADS_GROWTH = 2
SAMPLES_MIN = 12
JUDGED_S = 240.0
"""What lived for less after its warm-up is shown, and its memory is not judged: histories and rings are still filling."""


def thirds(samples: Sequence[Sample], warm_s: float, born: float) -> tuple[list[Sample], list[Sample]] | None:
    """The first and the last third of what was seen after the warm-up; None if that is too little."""
    warm = [each for each in samples if each.at >= born + warm_s]
    count = len(warm) // 3
    return None if len(warm) < SAMPLES_MIN else (warm[:count], warm[-count:])


def judge(children: Sequence[Child], warm_s: float, lived_min_s: float) -> list[str]:
    """Prints what those held that lived long; what grew."""
    wrong = []
    print(
        f"\n{'process':<10} {'lived s':>8} {'samples':>8}   {'Pss MiB: first third':>20} {'last third':>11} {'growth':>7}"
        f"   {'files':>9}   {'threads':>7}   {'tasks':>7}   {'disk MiB':>11}"
    )
    for child in children:
        if not child.samples or child.samples[-1].at - child.born < lived_min_s:
            continue
        found = thirds(child.samples, warm_s, child.born)
        if found is None:
            continue
        first, _ = found
        kib = [median(each.kib for each in part) for part in found]
        files = [median(each.files for each in part) for part in found]
        threads = [median(each.threads for each in part) for part in found]
        tasks = [median(each.tasks for each in part) for part in found]
        disk = [max(each.disk_kib for each in part) for part in found]
        lived = child.samples[-1].at - child.born
        print(
            f"{child.role:<10} {lived:8.0f} {len(first) * 3:8}   {kib[0] / 1024:20.1f} {kib[1] / 1024:11.1f} "
            f"{100 * (kib[1] / kib[0] - 1):+6.1f}%   {files[0]:4g} {files[1]:4g}   {threads[0]:3g} {threads[1]:3g}"
            f"   {tasks[0]:3g} {tasks[1]:3g}   {disk[0] / 1024:5.1f} {disk[1] / 1024:5.1f}"
        )
        if lived - warm_s >= JUDGED_S and kib[1] - kib[0] > max(GROWTH_KIB, GROWTH_SHARE * kib[0]):
            wrong.append(f"{child.role} grew from {kib[0] / 1024:.1f} to {kib[1] / 1024:.1f} MiB in {lived:.0f} s")
        if lived - warm_s >= JUDGED_S and disk[1] > 2 * disk[0]:
            wrong.append(f"{child.role} took {disk[0] / 1024:.1f} MiB of disk at most, and then {disk[1] / 1024:.1f}")
        if files[1] - files[0] > FILES_GROWTH:
            wrong.append(f"{child.role} went from {files[0]:g} to {files[1]:g} descriptors")
        if threads[1] - threads[0] > THREADS_GROWTH:
            wrong.append(f"{child.role} went from {threads[0]:g} to {threads[1]:g} threads")
        if tasks[1] - tasks[0] > TASKS_GROWTH:
            wrong.append(f"{child.role} went from {tasks[0]:g} to {tasks[1]:g} tasks")
    return wrong
