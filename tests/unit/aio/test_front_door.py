"""Names that are loaded when they are asked for are the same names as all others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from budao import aio
from budao.aio import _HOMES


@pytest.mark.parametrize("name", aio.__all__)
def test_every_name_of_the_front_door_is_there_and_is_no_module(name: str) -> None:
    assert name in dir(aio)
    assert type(getattr(aio, name)).__name__ != "module"


def test_a_name_that_is_also_its_modules_own_is_not_left_for_later() -> None:
    assert [name for home, names in _HOMES.items() for name in names if name in {home, *_HOMES}] == []
    assert {name for names in _HOMES.values() for name in names} <= set(aio.__all__)


def test_a_name_nobody_offers_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        _ = aio.Nobody


def test_a_program_that_protects_calls_loads_nothing_of_what_services_need() -> None:
    program = (
        "import sys, budao; print(sorted(m for m in sys.modules if m.startswith(('budao.discovery', 'budao.wire', "
        "'budao.aio.store_', 'budao.aio.journal'))))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
