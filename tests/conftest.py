"""What every test shares: how Hypothesis draws, and the mark of the tests that may wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

HERE = Path(__file__).parent

# No deadline anywhere: how long an example takes depends on the machine, and no test asserts on wall-clock speed.
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,  # the same examples every time, so that a red build is red again at home
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# Looks for new failures, prints how to replay each (`make explore`). A seed that once failed becomes an @example.
settings.register_profile(
    "explore",
    deadline=None,
    max_examples=3_000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# For a mutation run: the first failure is enough, so nothing is shrunk.
settings.register_profile(
    "mutants",
    parent=settings.get_profile("ci"),
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in tests/live, so that `-m "not live"` leaves out everything that waits."""
    for item in items:
        if item.path.is_relative_to(HERE / "live"):
            item.add_marker(pytest.mark.live)
