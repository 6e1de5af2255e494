"""What the terminal says of an instant."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from budao.apps.recording import Lately, Remark
from budao.apps.screen import View, headline, live, plain, rows
from budao.apps.script import phases

BARE = Lately(requests_per_s=50.2, good_share=0.4, in_time_share=0.0, p50_s=4.2, p99_s=5.0, unanswered=231)
GUARDED = Lately(requests_per_s=50.2, good_share=1.0, in_time_share=0.998, p50_s=0.004, p99_s=0.131, unanswered=0)
NOBODY = Lately(requests_per_s=0.0, good_share=None, in_time_share=None, p50_s=None, p99_s=None, unanswered=0)
VIEW = View(
    at_s=26.4,
    seconds=60,
    phase=phases(60)[2],
    share=0.99,
    under_s=0.2,
    bare=BARE,
    guarded=GUARDED,
    state="open",
    rungs={"direct": 700, "cache": 500, "template": 12, "empty": 0},
    remarks=tuple(Remark(at_s=float(at), text=f"event {at}") for at in range(20)),
    settings=("a shorter rest",),
)


def test_the_table_sets_both_shops_side_by_side() -> None:
    said = {name: (bare[0], guarded[0]) for name, bare, guarded in rows(VIEW)}
    assert said == {
        "requests/s": ("50", "50"),
        "succeeded": ("40 %", "100 %"),
        "within 200 ms": ("0 %", "99.8 %"),
        "p50": ("4200 ms", "4 ms"),
        "p99": ("5000 ms", "131 ms"),
        "waiting now": ("231", "0"),
        "breaker": ("none", "open"),
        "answered by": ("", "direct 700  cache 500  template 12  empty 0"),
    }


def test_below_the_objective_is_red_and_within_it_green() -> None:
    styles = {name: (bare[1], guarded[1]) for name, bare, guarded in rows(VIEW)}
    assert styles["within 200 ms"] == ("bold red", "bold green")
    assert styles["p99"] == ("red", "green")


def test_before_anybody_came_nothing_is_claimed() -> None:
    said = {name: bare[0] for name, bare, _ in rows(replace(VIEW, bare=NOBODY))}
    assert (said["within 200 ms"], said["p99"]) == ("–", "–")
    assert "–" in plain(replace(VIEW, bare=NOBODY, guarded=NOBODY, rungs={}))


def test_a_plain_line_says_phase_shares_breaker_and_rungs() -> None:
    line = plain(VIEW)
    for words in ("26 s", "hanging", "0 % in time", "99.8 % in time", "breaker open", "cache 500"):
        assert words in line
    assert "empty" not in line


def test_the_headline_never_counts_past_the_end() -> None:
    assert headline(replace(VIEW, at_s=61.7)).startswith(" 60 of 60 s")


def test_the_screen_shows_the_newest_events_and_what_was_set_by_hand() -> None:
    file = StringIO()
    Console(width=110, file=file).print(live(VIEW))
    text = file.getvalue()
    assert "event 19" in text
    assert "event 11" not in text
    assert "set by hand: a shorter rest" in text
    assert "HANGING" in text
