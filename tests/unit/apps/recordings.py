"""A recording made of numbers, for the tests of this room."""

from __future__ import annotations

from budao.apps.recording import Recording, Remark, Second, StateSpan
from budao.apps.script import Manner, phases

SHOWN = {
    Manner.WELL: (0.022, 0.04),
    Manner.SLOW: (0.9, 1.19),
    Manner.HANGING: (5.0, 5.0),
    Manner.FAILING: (0.012, 0.03),
}


def recording(seconds: int = 60, recorded: int | None = None, explain: str = "inventory: 99 % < 200 ms") -> Recording:
    """As a good demo would be: 50 requests a second, the guarded shop always in time."""
    script = phases(seconds)
    recorded = seconds if recorded is None else recorded
    bare, guarded = [], []
    for phase in script:
        p50_s, p99_s = SHOWN[phase.manner]
        is_well = phase.manner is Manner.WELL
        answers = phase.manner in {Manner.WELL, Manner.SLOW}
        for _ in range(phase.start_s, phase.end_s):
            bare.append(
                Second(
                    requests=50,
                    succeeded=50 if answers else 0,
                    in_time=50 if is_well else 0,
                    p50_s=p50_s,
                    p99_s=p99_s,
                    rungs={"direct": 50} if answers else {},
                )
            )
            rungs = {"direct": 50} if is_well else {"direct": 1, "cache": 44, "template": 5}
            guarded.append(Second(requests=50, succeeded=50, in_time=50, p50_s=0.006, p99_s=0.13, rungs=rungs))
    first, last = script[1].start_s, script[-1].start_s
    return Recording(
        seconds_planned=seconds,
        calls_per_s=50.0,
        seed=1,
        under_s=0.2,
        share=0.99,
        phases=script,
        bare=tuple(bare[:recorded]),
        guarded=tuple(guarded[:recorded]),
        states=(
            StateSpan(state="closed", start_s=0.0, end_s=first + 0.6),
            StateSpan(state="open", start_s=first + 0.6, end_s=float(last)),
            StateSpan(state="probing", start_s=float(last), end_s=last + 0.4),
            StateSpan(state="closed", start_s=last + 0.4, end_s=float(seconds)),
        ),
        remarks=(
            Remark(at_s=0.0, text="inventory healthy: answers in about 20 ms"),
            Remark(at_s=11.6, text="breaker open: 26 of 50"),
        ),
        settings=("timeout 0.12 s for each try",),
        explain=explain,
        interrupted=recorded < seconds,
    )
