"""Where the keys of a text stand."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.settings.lines import DEPTH_MAX, TooDeep, lines_of


def test_every_key_and_table_has_the_line_it_first_stands_on() -> None:
    text = '# a comment = 1\n[guard.a]\nkeys_max = 1\n\n[guard.a.breaker] # [not.this]\nrest_s = 2\r\nmode = "shadow"\n'
    assert lines_of(text).found == {
        ("guard",): 2,
        ("guard", "a"): 2,
        ("guard", "a", "keys_max"): 3,
        ("guard", "a", "breaker"): 5,
        ("guard", "a", "breaker", "rest_s"): 6,
        ("guard", "a", "breaker", "mode"): 7,
    }


def test_strings_comments_and_arrays_hold_no_keys() -> None:
    text = 'a = """\nb = 1\n"""\nc = [\n  "d = 1", # e = 2\n  { f = 3 },\n]\ng = \'\'\'h\n= 1\'\'\'\n"i.\\u006a" = "#"\nk.\'l\' = 1.5\n'
    assert {".".join(path): line for path, line in lines_of(text).found.items()} == {
        "a": 1,
        "c": 4,
        "f": 6,
        "g": 8,
        "i.j": 10,
        "k": 11,
        "k.l": 11,
    }


def test_keys_of_inline_tables_are_found_below_their_key() -> None:
    found = lines_of("[t]\nobjective = { latency = 0.99, inner = { deep = 1 }, under_s = 0.2 }\nnext = 1").found
    assert found["t", "objective", "latency"] == 2
    assert found["t", "objective", "inner", "deep"] == 2
    assert found["t", "objective", "under_s"] == 2
    assert found["t", "next"] == 3


def test_a_key_that_is_set_again_is_found_twice() -> None:
    assert lines_of("a = 1\nb = 2\na = 3\n").twice == [(("a",), 3)]


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * (DEPTH_MAX + 1)) + " = 1",
        "\n[" + ".".join("a" * (DEPTH_MAX + 1)) + "]",
        "a = " + "[" * 50,
        "a = " + "{b = " * 50,
    ],
)
def test_a_text_that_nests_too_deep_is_not_read_on(text: str) -> None:
    with pytest.raises(TooDeep) as caught:
        lines_of(text)
    assert caught.value.line == text.count("\n") + 1


@pytest.mark.parametrize(
    "text", ['a = "never closed\nb = 1', "= = =\n]]}},\nb = 1", "[[[[]]]]\nb = 1", '"bad \\q" = 1\nb = 1']
)
def test_what_is_not_toml_is_read_as_far_as_it_goes(text: str) -> None:
    assert lines_of(text).found.get(("b",), 2) == 2 + text.count("\n") - 1


def paths(tree: dict[str, Any], above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    below = {(*above, name): value for name, value in tree.items()}
    deeper = [paths(value, path) for path, value in below.items() if isinstance(value, dict)]
    return set(below).union(*deeper)


NAMES = st.sampled_from(["a", "b-1", '"c d"', "'e.f'", '"\\u0067"'])
KEYS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
VALUES = st.sampled_from(
    ["1", "-1.5e3", '"x = 1"', "'''\n[y]\n'''", "[1, [2],\n 3]", "{ p = 1, q = { r = 2 } }", "1979-05-27T07:32:00Z"]
)
STATEMENTS = st.one_of(
    KEYS.map(lambda key: f"[ {key} ] # = ["),
    st.tuples(KEYS, VALUES).map(" = ".join),
    st.just(""),
    st.just("# z = 1"),
)


@given(statements=st.lists(STATEMENTS, max_size=8))
def test_exactly_the_keys_that_the_parser_reads_are_found(statements: list[str]) -> None:
    text = "\n".join(statements)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        lines_of(text)
    else:
        assert set(lines_of(text).found) == paths(tree)
