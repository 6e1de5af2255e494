"""The site: no docstring, whatever it says, can break the build or lose its words."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

from docutils.core import publish_doctree
from docutils.nodes import field, literal, literal_block, system_message
from hypothesis import example, given
from hypothesis import strategies as st

from tests.shape import tree


def docs_configuration() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_conf", tree.ROOT / "docs" / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONF = docs_configuration()
MARKS = "* ** _ x_ ` `` | :: : .. ==== ---- --flag -f :field: [1]_ \\ >>> ``` +- - 1. a) (i)"
WORDS = st.sampled_from([*MARKS.split(), "a", "word", "`code`", "`a_b*`s", ".. ", "   ", "Raises:", "Units:  s"])
LINES = st.lists(st.lists(WORDS, max_size=5).map(" ".join), max_size=8)


@given(lines=LINES)
@example(
    lines=["Raises:  `Bad` if `a`s.", "         Or *b*.", "", "- one", "  more", "- two", "", "    code", "", "after"]
)
def test_any_docstring_becomes_clean_markup_and_keeps_its_words(lines: list[str]) -> None:
    tree_of_text = publish_doctree(
        "\n".join(CONF.plain_to_rst(lines)),
        settings_overrides={"report_level": 2, "halt_level": 5, "warning_stream": False},
    )
    said = [message.astext() for message in tree_of_text.findall(system_message) if message["level"] > 1]
    assert said == []
    lost = [word for word in re.findall(r"[a-zA-Z]{3,}", " ".join(lines)) if word not in tree_of_text.astext()]
    assert lost == []


def test_sections_lists_code_and_examples_are_told_apart() -> None:
    lines = ["Say it.", "", "Shapes:  `a` has one", "         per slice.", "Units:   s", "", ">>> f()", "3"]
    shown = publish_doctree("\n".join(CONF.plain_to_rst(lines)))
    assert [part[0].astext() for part in shown.findall(field)] == ["Shapes", "Units"]
    assert [code.astext() for code in shown.findall(literal)] == ["a"]
    assert [block.astext() for block in shown.findall(literal_block)] == [">>> f()\n3"]
