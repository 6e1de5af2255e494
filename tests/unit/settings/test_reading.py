"""Texts and variables as tables, and one laid over the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings
from budao.settings import Stated, guard_settings, is_objective, merged, read_environment, read_text


def test_a_variable_is_a_path_in_small_letters_and_a_toml_value() -> None:
    stated = read_environment({
        "BUDAO__GUARD__INVENTORY__BREAKER__REST_S": "30",
        "BUDAO__GUARD__INVENTORY__HEDGE": "false",
        "BUDAO__GUARD__Payments__BREAKER__MODE": "shadow",
        "PATH": "GUARD",
    })  # fmt: skip

    assert stated.tables == {
        "guard": {"inventory": {"breaker": {"rest_s": 30}, "hedge": False}, "Payments": {"breaker": {"mode": "shadow"}}}
    }
    rest = ("guard", "inventory", "breaker", "rest_s")
    assert stated.places[rest] == "the environment, $BUDAO__GUARD__INVENTORY__BREAKER__REST_S"


def test_a_variable_with_line_ends_cannot_smuggle_in_a_second_setting() -> None:
    stated = read_environment({"BUDAO__NAME": '"a"\nother = 1'})
    assert stated.tables == {"name": '"a"\nother = 1'}


def test_every_bad_variable_is_named_and_no_value_is_repeated() -> None:
    with pytest.raises(BadSettings) as caught:
        read_environment({
            "BUDAO__A": "hunter2",
            "BUDAO__A__B": "hunter2",
            "BUDAO__A____B": "hunter2",
            "BUDAO__" + "__".join("abcdefghi"): "hunter2",
            "BUDAO__LONG": "x" * 70_000,
        })  # fmt: skip
    said = dict(caught.value.problems)
    assert len(said) == 4
    assert said["$BUDAO__A__B"] == "is a table here, and a value in another variable"
    assert "hunter2" not in str(caught.value)


def test_a_later_layer_wins_key_by_key_and_says_where_it_stands() -> None:
    file = read_text("[guard.a.breaker]\nrest_s = 30\nwindow_s = 20\n", source="shop.toml")
    store = read_text("[guard.a.breaker]\nrest_s = 40\n", source="the store")

    settings = guard_settings(merged([file, store], is_whole=is_objective))

    assert settings.guards["a"].numbers == {"breaker.rest_s": 40.0, "breaker.window_s": 20.0}
    assert settings.reasons_for("a")["breaker.rest_s"] == "set in the store, line 2"
    assert settings.reasons_for("a")["breaker.window_s"] == "set in shop.toml, line 3"


def test_an_objective_is_taken_whole_and_never_mixed_from_two_layers() -> None:
    file = read_text("[guard.a]\nobjective = { latency = 0.99, under_s = 0.2 }\n", source="shop.toml")
    store = read_text("[guard.a]\nobjective = { availability = 0.999 }\n", source="the store")

    stated = merged([file, store], is_whole=is_objective)

    assert stated.tables["guard"]["a"]["objective"] == {"availability": 0.999}
    assert ("guard", "a", "objective", "under_s") not in stated.places
    assert stated.places["guard", "a", "objective", "availability"] == "the store, line 2"


def test_a_part_switched_off_later_is_off_and_one_switched_on_later_is_on() -> None:
    on = read_text("[guard.a.hedge]\ndelay_min_s = 0.01\n", source="on")
    off = read_text("[guard.a]\nhedge = false\n", source="off")

    assert merged([on, off]).tables == {"guard": {"a": {"hedge": False}}}
    assert merged([off, on]).tables == {"guard": {"a": {"hedge": {"delay_min_s": 0.01}}}}
    assert ("guard", "a", "hedge", "delay_min_s") not in merged([on, off]).places


def test_a_problem_in_one_layer_names_that_layer() -> None:
    file = read_text("[guard.a.breaker]\nrest_s = 30\n", source="shop.toml")
    environment = read_environment({"BUDAO__GUARD__A__BREAKER__REST_S": "soon"})
    with pytest.raises(BadSettings) as caught:
        guard_settings(merged([file, environment]))
    assert dict(caught.value.problems) == {
        "guard.a.breaker.rest_s": "must be a number, not a text (the environment, $BUDAO__GUARD__A__BREAKER__REST_S)"
    }


def tables() -> st.SearchStrategy[dict[str, object]]:
    values = st.recursive(
        st.integers(0, 9), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6
    )
    return st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def overlaid(under: object, over: object) -> object:
    """The slow, obvious twin."""
    if isinstance(under, dict) and isinstance(over, dict):
        return {key: overlaid(under.get(key), over[key]) if key in over else under[key] for key in {**under, **over}}
    return over


@given(st.lists(tables(), max_size=4))
def test_merging_is_laying_tables_over_one_another_and_changes_none_of_them(layers: list[dict[str, object]]) -> None:
    before = repr(layers)
    expected: object = {}
    for layer in layers:
        expected = overlaid(expected, layer)
    stated = merged(Stated(tables=layer, places={}, source="x") for layer in layers)
    assert stated.tables == expected
    assert repr(layers) == before
