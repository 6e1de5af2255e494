"""Bad ends are counted by where the peers are, in a table that cannot grow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import Mono
from budao.push import BadEnd, Prefixes, PrefixPolicy, prefix_of


def test_a_prefix_is_what_a_site_usually_has() -> None:
    assert prefix_of("192.0.2.77") == "192.0.2.0/24"
    assert prefix_of("2001:db8:7:1::9") == prefix_of("2001:db8:7:2::1%eth0") == "2001:db8:7::/48"
    assert prefix_of("::ffff:192.0.2.9") == "192.0.2.0/24"
    assert prefix_of("") == prefix_of("nonsense") == prefix_of("1.2.3") == "-"


@given(st.text(max_size=60))
def test_no_text_is_too_odd_for_a_prefix(text: str) -> None:
    assert prefix_of(text)


def test_a_steady_rate_shows_as_ends_per_minute() -> None:
    prefixes = Prefixes()
    for second in range(600):
        prefixes.count("192.0.2.0/24", BadEnd.RESET, Mono(second * 12.0))  # five a minute
    assert prefixes.ends_per_min("192.0.2.0/24", Mono(599 * 12.0)) == pytest.approx(5.0, rel=0.15)
    assert prefixes.ends_per_min("192.0.2.0/24", Mono(599 * 12.0 + 600)) < 0.01
    assert prefixes.ends_per_min("198.51.100.0/24", Mono(0.0)) == 0.0


def test_the_worst_come_first_with_their_kinds() -> None:
    prefixes = Prefixes()
    for number in range(10):
        prefixes.count("a", BadEnd.SILENT if number else BadEnd.RESET, Mono(1.0))
    prefixes.count("b", BadEnd.BLOCKED, Mono(1.0))
    worst = prefixes.worst(5, Mono(1.0))
    assert [each.prefix for each in worst] == ["a", "b"]
    assert worst[0].total == 10
    assert worst[0].kinds == ((BadEnd.SILENT, 9), (BadEnd.RESET, 1))
    assert prefixes.worst(5, Mono(3_600.0)) == ()
    assert prefixes.totals[BadEnd.SILENT] == 9


def test_a_spray_of_addresses_does_not_push_out_who_has_much_to_tell() -> None:
    prefixes = Prefixes(PrefixPolicy(prefixes_max=50))
    for number in range(5_000):
        now = Mono(number * 0.01)
        if number % 20 == 0:
            prefixes.count("bad", BadEnd.RESET, now)
        prefixes.count(f"10.{number // 256}.{number % 256}.0/24", BadEnd.RESET, now)
        assert len(prefixes) <= 50
    assert prefixes.worst(1, Mono(50.0))[0].prefix == "bad"
    assert prefixes.forgotten > 4_000
    assert prefixes.totals[BadEnd.RESET] == 5_250
