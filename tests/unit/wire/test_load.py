from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import Load
from budao.wire import LOAD, format_load, parse_load


def test_a_load_reads_like_a_sentence_of_two_fields() -> None:
    assert LOAD == "budao-load"
    assert format_load(Load(3, 0.0125)) == "in-flight=3;service-ms=12.500"
    assert parse_load(" in-flight=3;service-ms=12.500\t") == Load(3, 0.0125)
    assert parse_load("in-flight=0;service-ms=7") == Load(0, 0.007)


def test_a_field_of_a_later_version_is_passed_over() -> None:
    assert parse_load("in-flight=3;service-ms=12.500;lag-ms=2") == Load(3, 0.0125)


@pytest.mark.parametrize(
    "text",
    [
        "", ";", "in-flight=3", "service-ms=1.0", "in-flight=-1;service-ms=1", "in-flight=1;service-ms=-1",
        "in-flight=1;service-ms=nan", "in-flight=1;service-ms=1e3", "in-flight=1;service-ms=.5", "in-flight=1.5;service-ms=1",
        "in-flight=٣;service-ms=1", "in-flight=1;service-ms=1x", "in-flight=1;service-ms=1\n", "in-flight=1;service-ms=1;\n",
        "in-flight=1, service-ms=1", "in-flight=1234567890;service-ms=1", "in-flight=1;service-ms=1;" + "x" * 256,
    ],
)  # fmt: skip
def test_what_is_not_a_load_is_none(text: str) -> None:
    assert parse_load(text) is None


@pytest.mark.parametrize("service_s", [nan, inf, -inf, -1.0])
def test_a_service_time_that_is_none_is_written_as_0(service_s: float) -> None:
    assert format_load(Load(-4, service_s)) == "in-flight=0;service-ms=0.000"


def test_no_load_is_larger_than_a_reader_takes() -> None:
    assert parse_load(format_load(Load(10**20, 1e300))) == Load(999_999_999, 86_400.0)
    assert parse_load("in-flight=1;service-ms=999999999") == Load(1, 86_400.0)


@given(st.text(max_size=300))
def test_no_text_raises(text: str) -> None:
    parse_load(text)
    parse_load("in-flight=1;service-ms=1" + text)


@given(st.integers(0, 999_999_999), st.floats(0.0, 86_400.0))
def test_what_is_written_is_read_to_half_a_microsecond(in_flight: int, service_s: float) -> None:
    read = parse_load(format_load(Load(in_flight, service_s)))
    assert read is not None
    assert read.in_flight == in_flight
    assert abs(read.service_s - service_s) <= 0.51e-6
