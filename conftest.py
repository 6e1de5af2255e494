"""Examples in README.md and docs/ are tests: each fenced `python` block runs, top to bottom, in one namespace per page.

A block may use `await` at its top level, as the asyncio prompt allows; all blocks of a page share one event loop. A
block that begins with `>>>` is a doctest. `<!--- skip: next -->` above a block leaves it out, and needs a reason after
it: `<!--- skip: next "needs a cluster" -->`.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from sybil import Sybil
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown import CodeBlockParser, SkipParser

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sybil import Document, Example, Region

from sybil.evaluators.doctest import DocTestEvaluator

RUNNER = "_runner"


class Examples:
    """Finds `python` blocks and runs them; a coroutine is run to its end on the page's own loop."""

    def __init__(self) -> None:
        self._blocks = CodeBlockParser("python", self.run)
        self._doctests = DocTestStringParser(DocTestEvaluator())

    def __call__(self, document: Document) -> Iterable[Region]:
        for region in self._blocks(document):
            if region.parsed.startswith(">>>"):
                for part in self._doctests(region.parsed, document.path):
                    part.adjust(region, region.parsed)
                    yield part
            else:
                yield region

    def run(self, example: Example) -> None:
        """Compile with the page's own line numbers, so that a traceback points into the page."""
        source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
        code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, example.namespace)  # noqa: S307 - our own documents
        if inspect.iscoroutine(result):
            example.namespace[RUNNER].run(result)


def open_page(namespace: dict[str, Any]) -> None:
    """Give a page its loop. Dataclasses and pickling look a module's name up, so it has one."""
    namespace.update({"__name__": "__main__", RUNNER: asyncio.Runner()})


def close_page(namespace: dict[str, Any]) -> None:
    """Close the loop; tasks a page left behind are cancelled, as `asyncio.run` would."""
    namespace[RUNNER].close()


pytest_collect_file = Sybil(
    parsers=[Examples(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md", "docs/*/*/*.md"],  # matched from the right, one star a level
    setup=open_page,
    teardown=close_page,
).pytest()
