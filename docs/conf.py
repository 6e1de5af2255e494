"""How the site is built: Markdown pages by hand, and one reference page per room from its docstrings."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOMS = HERE.parent / "src" / "budao"

project = "Budao"
author = "The Budao maintainers"
copyright = f"2026, {author}"  # noqa: A001 - the name Sphinx reads

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["**/_*.md"]
suppress_warnings = [
    "ref.python",  # a name is documented in its room and again at the package's front door
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_type_comments = False
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
python_display_short_literal_types = True

html_theme = "furo"
html_title = "Budao"
html_copy_source = False

# The package's door repeats the rooms' names; both gRPC adapters offer the same errors.
REPEATS = {"budao", "budao.adapters.grpc_aio"}

# A section of a house-style docstring: one capital word, a colon, two or more spaces or the end of the line.
SECTION = re.compile(r"^(?P<name>[A-Z][a-z]+):(?:\s{2,}(?P<text>.*)|$)")
BULLETS = ("- ", "* ")
SPECIAL = re.compile(r"([\\*_|`])")
FENCE = re.compile(r"```\w*$")
CODE = re.compile(r"`+([^`]+)`+")


def setup(app: Sphinx) -> None:
    """Connect the two steps below to the build."""
    app.connect("builder-inited", lambda _app: write_reference())
    app.connect("autodoc-process-docstring", rewrite)
    # A section of the site may be empty until its first page. Sphinx's warning for that cannot be suppressed by name.
    other = logging.getLogger("sphinx.sphinx.directives.other")
    other.addFilter(lambda record: getattr(record, "subtype", None) != "empty_glob")


# ------------------------------------------------------------------------------------------------ reference pages


def write_reference() -> None:
    """Write docs/reference/rooms/, one page for each room that has a front door.

    A page is rewritten only when it would differ, so that a second build has little to do.
    """
    folder = HERE / "reference" / "rooms"
    folder.mkdir(exist_ok=True)
    pages = {f"{name}.md": page(name) for name in modules()}
    for stale in {path.name for path in folder.glob("*.md")} - pages.keys():
        (folder / stale).unlink()
    for file_name, text in pages.items():
        path = folder / file_name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def modules() -> Iterator[str]:
    """Name the package, each room, and each adapter (an adapter is its own front door)."""
    if (ROOMS / "__init__.py").exists():
        yield "budao"
    for door in sorted(ROOMS.glob("*/__init__.py")):
        yield f"budao.{door.parent.name}"
        if door.parent.name == "adapters":
            yield from (f"budao.adapters.{path.stem}" for path in sorted(door.parent.glob("[!_]*.py")))


def page(module: str) -> str:
    """The page of one module. What repeats names of another page shows them, and leaves them out of the index."""
    options = ":no-index:\n" if module in REPEATS else ""
    return f"# {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   {options}```\n"


# --------------------------------------------------------------------------------------------------- docstrings


def rewrite(_app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Turn a docstring, which is plain text with backticks, into what autodoc reads."""
    lines[:] = list(plain_to_rst(lines))


def plain_to_rst(lines: Iterable[str]) -> Iterator[str]:
    """Prose stays prose, `Section:  text` becomes a field, indented text and `>>>` become literal blocks.

    Nothing else is markup, so no docstring can break the build: stars, underscores and bars mean themselves.
    """
    for block in blocks(lines):
        first = block[0]
        if first.startswith((" ", ">>>", "|", "+-")) or FENCE.match(first):
            shown = ["   " + line for line in block if not FENCE.match(line)]
            if any(map(str.strip, shown)):
                yield from ("::", "", *shown, "")
        elif match := SECTION.match(first):
            yield from (f":{match['name']}: {prose([match['text'] or '', *block[1:]])}", "")
        elif first.startswith(BULLETS):
            yield from ("- " + prose([first[2:], *block[1:]]), "")
        else:
            yield from (prose(block), "")


def blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Cut a docstring at blank lines, and before each section and each list item."""
    block = list[str]()
    fenced = False
    for line in lines:
        starts = line.startswith(BULLETS) or SECTION.match(line) is not None
        if block and not fenced and (starts or not line.strip()):
            yield block
            block = []
        if FENCE.match(line):
            fenced = not fenced
        if line.strip() or fenced:
            block.append(line)
    if block:
        yield block


def prose(lines: Iterable[str]) -> str:
    """Join lines and escape what reStructuredText would read as markup, except code between backticks.

    A backslash before a space is nothing at all, but ends a word: it lets code touch letters ("`Guard`s"), and at the
    start it keeps a line from being read as a list, a title or a directive.
    """
    pieces = CODE.split(" ".join(line.strip() for line in lines).strip())
    text = "".join(
        f"\\ ``{piece.strip()}``\\ " if index % 2 and piece.strip() else SPECIAL.sub(r"\\\1", piece)
        for index, piece in enumerate(pieces)
    )
    return "\\ " + text.replace("::", ":\\ :")
