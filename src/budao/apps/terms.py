"""What the demo's shop promises, and what the demo sets by hand."""

from __future__ import annotations

from budao.slo import Latency

OBJECTIVE = Latency(0.99, under_s=0.2)

BY_HAND = """
[guard.inventory.timeout]
call_s = 0.12    # leaves the lower rungs 80 ms of the objective
total_s = 0.12   # retries included

[guard.inventory.breaker]
window_s = 2     # a minute has to show what otherwise takes a quarter of an hour
rest_s = 2
rest_max_s = 4
ramp_s = 2
"""
"""Settings of the guard, in the form of a settings file. Everything else is derived from the objective."""

BY_HAND_SAID = (
    "timeout 0.12 s, retries included, so that the lower rungs have 80 ms of the objective left",
    "breaker looks back 2 s, rests 2 to 4 s and ramps up for 2 s, so that a minute is enough to see it",
)
CALLS_PER_S = 30.0
"""To each shop, on average. Low enough for a small machine that does something else as well."""
