"""The page: it says the result, needs nothing beside itself, and no text can break it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from budao.apps.page import page
from budao.apps.recording import result
from tests.unit.apps.recordings import recording


class Reader(HTMLParser):
    """Collects tags, addresses and words."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def test_the_result_stands_on_top() -> None:
    found = re.search(r"<h1>(.*?)</h1>", page(recording()))
    assert found is not None
    assert found.group(1).replace("\u00a0", " ") == result(recording())


def test_the_page_asks_nobody_for_anything() -> None:
    text = page(recording())
    reader = read(text)
    assert reader.addresses == []
    assert {"script", "link", "img", "iframe", "object", "embed"} & set(reader.tags) == set()
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_what_the_guard_explains_cannot_become_markup() -> None:
    said = "</pre><script>alert(1)</script> & a < b"
    reader = read(page(recording(explain=said)))
    assert "script" not in reader.tags
    assert said in "".join(reader.words)


def test_the_same_recording_gives_the_same_page() -> None:
    assert page(recording()) == page(recording())


def test_dark_and_light_are_both_there() -> None:
    assert "prefers-color-scheme: dark" in page(recording())


def test_an_interrupted_demo_says_so_and_leaves_unseen_phases_open() -> None:
    text = page(recording(recorded=15))
    assert "15 s of 60 (interrupted)" in text
    assert ">–</td>" in text
    assert page(recording(recorded=0))


def test_every_color_that_is_used_is_defined_for_light_and_for_dark() -> None:
    text = page(recording())
    used = set(re.findall(r"var\(--([a-z]+)\)", text))
    light, _, rest = text.partition("@media")
    dark = rest.partition("} }")[0]
    for part in (light, dark):
        assert used <= set(re.findall(r"--([a-z]+):", part))
