"""What `python -m bench.fuzz` holds against bytes of all kinds, on a few hundred of them for each reader."""

from __future__ import annotations

from random import Random

import pytest

from bench.fuzz.samples import edited
from bench.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_good_bytes_and_spoilt_ones_are_a_value_or_the_documented_error(name: str) -> None:
    target, rng = TARGETS[name], Random(name)
    seeds = target.seeds()
    for raw in seeds:
        target.read(raw)
    for _ in range(200):
        raw = rng.choice(seeds)
        shaped = target.shape(raw, rng) if target.shape is not None and rng.random() < 0.5 else None
        target.read(edited(raw, rng) if shaped is None else shaped)
