"""A recording as one HTML page that needs nothing beside itself: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from budao.apps.charts import charts
from budao.apps.plot import tag
from budao.apps.recording import Recording, answered_by, percent, result, shares

_STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1b2330; --soft: #5c6675; --line: #d8dde5; --card: #f5f7fa; --ill: #b4530914;
  --bare: #c2410c; --guarded: #1d5fd0; --good: #15803d; --bad: #b91c1c; --objective: #15803d;
  --closed: #2f9e63; --open: #d64545; --probing: #e0a100; --ramping: #5b9bd5;
  --direct: #1d5fd0; --cache: #16a3a3; --template: #8b5cd6; --empty: #98a2b3; --none: #c2410c; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #11161d; --ink: #e6eaf0; --soft: #9aa6b5; --line: #2c3541; --card: #1a212b; --ill: #f59e0b14;
  --bare: #fb8a4c; --guarded: #6ea8ff; --good: #4ade80; --bad: #f87171; --objective: #4ade80;
  --closed: #2c8a57; --open: #c04444; --probing: #b98500; --ramping: #3f7fb8;
  --direct: #4b8df0; --cache: #1fa8a8; --template: #9b78e0; --empty: #7b8696; --none: #fb8a4c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 24px 64px; }
.kicker { margin: 0 0 6px; color: var(--soft); font-size: 14px; }
h1 { margin: 0 0 10px; font-size: 27px; line-height: 1.3; font-weight: 650; text-wrap: balance; }
h2 { margin: 40px 0 10px; font-size: 19px; }
p { margin: 6px 0; } .soft { color: var(--soft); } .small { font-size: 14px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.shares { margin: 22px 0 10px; } .by { margin-bottom: 26px; }
.shares th, .shares td { padding: 8px 10px; border-bottom: 1px solid var(--line); text-align: right; }
.shares thead th { font-size: 14px; font-weight: 500; color: var(--soft); }
.shares th:first-child { text-align: left; } .shares tbody th { font-weight: 600; white-space: nowrap; }
.shares td { font-size: 19px; } .shares .sum { background: var(--card); font-weight: 700; }
.good { color: var(--good); } .bad { color: var(--bad); }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 8px; }
figure { margin: 0; overflow-x: auto; } svg { display: block; width: 100%; min-width: 860px; height: auto; }
svg text { font: 12.5px system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; fill: var(--soft); }
svg .title { font-size: 14px; font-weight: 650; fill: var(--ink); } svg .phase { font-size: 14px; font-weight: 650; fill: var(--ink); }
svg .key { fill: var(--ink); } svg .goal { fill: var(--objective); font-weight: 600; }
svg .on { fill: #fff; font-weight: 600; font-size: 12px; }
.illness { fill: var(--ill); } .border { stroke: var(--line); stroke-dasharray: 3 4; } .grid { stroke: var(--line); }
.axis { stroke: var(--soft); } .objective { stroke: var(--objective); stroke-width: 1.6; stroke-dasharray: 7 4; }
.p99, .p50, .share { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.p99, .share { stroke-width: 2.6; } .p50 { stroke-width: 1.6; stroke-dasharray: 1 4.5; }
.p50.bare, .p50.guarded { stroke-width: 2.4; }
.bare { stroke: var(--bare); } .guarded { stroke: var(--guarded); } .error { fill: none; stroke-width: 1.8; }
.hover { fill: transparent; } .hover:hover { fill: var(--soft); fill-opacity: 0.14; }
.closed { fill: var(--closed); } .open { fill: var(--open); } .probing { fill: var(--probing); } .ramping { fill: var(--ramping); }
.direct { fill: var(--direct); } .cache { fill: var(--cache); } .template { fill: var(--template); }
.empty { fill: var(--empty); } .none { fill: var(--none); }
.events { list-style: none; padding: 0; margin: 0; columns: 2; column-gap: 36px; }
.events li { display: flex; gap: 12px; padding: 3px 0; border-bottom: 1px solid var(--line); break-inside: avoid; }
.events span { flex: 0 0 3.6em; text-align: right; color: var(--soft); font-variant-numeric: tabular-nums; }
pre { margin: 0; padding: 14px 16px; background: var(--card); border-radius: 8px; font: 13px/1.5 ui-monospace, "SF Mono",
  "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
ul { margin: 6px 0; padding-left: 20px; }
"""


def page(recording: Recording) -> str:
    """The whole page. Depends on nothing but the recording, and says the same of the same."""
    under_ms = f"{recording.under_s * 1000:.0f} ms"
    how_long = f"{recording.seconds} s"
    if recording.interrupted:
        how_long += f" of {recording.seconds_planned} (interrupted)"
    facts = (
        f"Objective: {percent(recording.share)} of requests answered well within {under_ms}. {how_long}, "
        f"{recording.calls_per_s:g} requests a second to each shop on average, the same customers at the same instants "
        f"(seed {recording.seed})."
    )
    body = (
        tag("p", "budao demo guard: two shops, one ailing inventory service", class_="kicker"),
        tag("h1", escape(_kept_together(result(recording)))),
        tag("p", escape(facts), class_="soft"),
        _shares(recording, under_ms),
        tag("p", escape(answered_by(recording)), class_="soft by"),
        tag("figure", charts(recording)),
        tag("h2", "What happened"),
        _events(recording),
        tag("h2", "Set by hand for this demo"),
        tag("ul", "".join(tag("li", escape(each)) for each in recording.settings)),
        tag(
            "p",
            "The shop without the guard is not a straw man: it is the same program with its HTTP client's ordinary "
            "defaults, 5 s of patience and 100 connections. Customers of both walk away after 5 s.",
            class_="soft small",
        ),
        tag("h2", "guard.explain()"),
        tag("pre", escape(recording.explain)),
    )
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>budao demo guard</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{tag("main", "".join(body))}</body></html>\n'


def _kept_together(words: str) -> str:
    """No line ends between a number and its unit."""
    return words.replace(" %", "\u00a0%").replace(" ms", "\u00a0ms")


def _shares(recording: Recording, under_ms: str) -> str:
    """The result by phase: the page at a glance."""
    found = shares(recording)
    names = [name for name in found if name not in {"ill", "all"}]
    heads = [f"answered within {under_ms}", *names, "slow to failing", "all"]
    columns = [*names, "ill", "all"]
    head = "".join(tag("th", escape(each), scope="col") for each in heads)
    rows = [
        _row("without guard", "bare", [found[each]["bare"] for each in columns], recording.share),
        _row("with guard", "guarded", [found[each]["guarded"] for each in columns], recording.share),
    ]
    return tag("table", tag("thead", tag("tr", head)) + tag("tbody", "".join(rows)), class_="shares")


def _row(name: str, color: str, values: Sequence[float | None], goal: float) -> str:
    swatch = tag("span", class_="swatch", style=f"background: var(--{color})")
    cells = [tag("th", swatch + escape(name), scope="row")]
    for index, value in enumerate(values):
        verdict = "" if value is None else "good" if value >= goal else "bad"
        is_sum = index == len(values) - 2
        shown = "–" if value is None else percent(value)
        cells.append(tag("td", escape(shown), class_=f"{verdict} sum" if is_sum else verdict))
    return tag("tr", "".join(cells))


def _events(recording: Recording) -> str:
    rows = [tag("li", tag("span", f"{remark.at_s:.1f} s") + escape(remark.text)) for remark in recording.remarks]
    return tag("ol", "".join(rows), class_="events small") if rows else tag("p", "Nothing.", class_="soft")
