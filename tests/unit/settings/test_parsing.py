"""Text into settings, or every problem at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from budao.model import PARTS, BadSettings, BreakerPolicy, GuardPolicy, Mode, TimeoutPolicy
from budao.settings import BYTES_MAX, DEPTH_MAX, GUARDS_MAX, PROBLEMS_MAX, Settings, conflicts, dump, parse
from budao.settings.schema import KINDS
from tests.unit.settings.policies import policies


def problems(text: str | bytes) -> dict[str, str]:
    with pytest.raises(BadSettings) as caught:
        parse(text)
    return dict(caught.value.problems)


def test_a_good_file_becomes_settings_whole() -> None:
    settings = parse(
        "[guard.inventory]\nobjective = { latency = 0.99, under_s = 0.2 }\n"
        '[guard.inventory.breaker]\nrest_s = 30\nmode = "shadow"\n[guard."a b".threshold]\nhardened = false\n'
    )
    assert list(settings.guards) == ["inventory", "a b"]
    assert settings.guards["inventory"].numbers == {"breaker.rest_s": 30.0, "breaker.mode": Mode.SHADOW}
    assert settings.guards["a b"].numbers == {"threshold.hardened": False}
    assert isinstance(settings.guards["inventory"].numbers["breaker.rest_s"], float)
    assert parse(b"[guard.a]\r\nkeys_max = 3\r\n") == parse("[guard.a]\nkeys_max = 3\n")


def test_every_problem_is_named_at_once_with_its_path_and_line() -> None:
    assert problems(
        "[gaurd]\n"
        "[guard.inventory]\n"
        "hegde = false\n"
        "budget = false\n"
        "keys_max = 0\n"
        "shed = 3\n"
        "objective = { latency = 0.99, under = 0.2 }\n"
        "[guard.inventory.breaker]\n"
        "rest_s = '30'\n"
        "calls_min = 20.0\n"
        "probes_max = true\n"
        "failed_share = 2\n"
        "ramp_s = nan\n"
        "window_s = inf\n"
        'mode = "shadwo"\n'
        "[guard.inventory.threshold]\n"
        "hardened = 1\n"
        "samples = 1979-05-27\n"
        "margin = [1]\n"
    ) == {
        "gaurd": "is not a setting; did you mean guard? (budao.toml, line 1)",
        "guard.inventory.hegde": "is not a setting; did you mean hedge? (budao.toml, line 3)",
        "guard.inventory.budget": "cannot be switched off (budao.toml, line 4)",
        "guard.inventory.keys_max": "0 must be from 1 to 1000000 (budao.toml, line 5)",
        "guard.inventory.shed": "must be a table, true or false, not a number (budao.toml, line 6)",
        "guard.inventory.objective.under": "is not a setting; did you mean under_s? (budao.toml, line 7)",
        "guard.inventory.objective": "latency needs under_s, in seconds (budao.toml, line 7)",
        "guard.inventory.breaker.rest_s": "must be a number, not a text (budao.toml, line 9)",
        "guard.inventory.breaker.calls_min": "must be a whole number, not a number with a point (budao.toml, line 10)",
        "guard.inventory.breaker.probes_max": "must be a whole number, not true or false (budao.toml, line 11)",
        "guard.inventory.breaker.failed_share": "2.0 must be above 0 and at most 1 (budao.toml, line 12)",
        "guard.inventory.breaker.ramp_s": "must be a number, not nan (budao.toml, line 13)",
        "guard.inventory.breaker.window_s": "inf must be above 0 and at most 86400 (budao.toml, line 14)",
        "guard.inventory.breaker.mode": (
            "must be one of 'enforcing', 'shadow', 'forced open', 'disabled'; did you mean shadow? (budao.toml, line 15)"
        ),
        "guard.inventory.threshold.hardened": "must be true or false, not a number (budao.toml, line 17)",
        "guard.inventory.threshold.samples": "must be a whole number, not a date or time (budao.toml, line 18)",
        "guard.inventory.threshold.margin": "must be a number, not an array (budao.toml, line 19)",
    }


@pytest.mark.parametrize(
    ("objective", "path", "problem"),
    [
        ("{}", "", "states one of availability and latency"),
        ("{ availability = 0.9, latency = 0.9, under_s = 1 }", "", "states one of availability and latency"),
        ("{ availability = 0.9, under_s = 1 }", "", "under_s belongs to latency, not to availability"),
        ("0.99", "", "must be a table, not a number with a point"),
        ("{ availability = '0.9' }", ".availability", "must be a number, not a text"),
        ("{ availability = 0 }", ".availability", "0.0 must be above 0 and below 1"),
        ("{ latency = 0.9, under_s = -1 }", ".under_s", "-1.0 must be above 0"),
        ("{ latency = 0.9, under_s = 1, window_s = 1 }", ".window_s", "1.0 must be at least 60"),
    ],
)
def test_an_objective_that_cannot_be_is_named(objective: str, path: str, problem: str) -> None:
    found = problems(f"[guard.a]\nobjective = {objective}\n")
    assert list(found) == [f"guard.a.objective{path}"]
    assert next(iter(found.values())).startswith(problem)


@pytest.mark.parametrize(
    ("stated", "path"),
    [
        ({"rest_s": 20, "rest_max_s": 10}, "breaker.rest_max_s"),
        ({"window_s": 0.005, "buckets": 100}, "breaker.window_s"),
        ({"calls_min": 50, "calls_max": 30}, "limit.calls_first"),
        ({"samples_min": 50, "samples": 30}, "threshold.samples_min"),
        ({"call_s": 2, "total_s": 1}, "timeout.total_s"),
    ],
)
def test_two_stated_numbers_that_cannot_be_together_are_named_wherever_they_are_stated(
    stated: dict[str, float], path: str
) -> None:
    part = path.partition(".")[0]
    (first, one), (second, other) = stated.items()
    together = f"[guard.a.{part}]\n{first} = {one}\n{second} = {other}\n"
    apart = f"[guard.defaults.{part}]\n{first} = {one}\n[guard.a.{part}]\n{second} = {other}\n"
    assert list(problems(together)) == [f"guard.a.{path}"]
    (found,) = problems(apart)
    assert found in {f"guard.a.{path}", f"guard.defaults.{path}"}
    for name, value in stated.items():
        parse(f"[guard.a.{part}]\n{name} = {value}\n")


def test_a_breaker_that_the_file_itself_keeps_from_ever_opening_is_named() -> None:
    text = "[guard.a.rate]\ncalls_per_s = 0.1\n[guard.a.breaker]\ncalls_min = 20\nwindow_s = 10\n"
    assert problems(text) == {
        "guard.a.rate.calls_per_s": "the breaker can never open: 0.1 calls a second are at most 2 in its window of 10 s, "
        "sent 3 times each, and it asks for calls_min = 20 (budao.toml, line 2)"
    }
    parse(text.replace("calls_min = 20", "calls_min = 2"))
    parse(text.replace("[guard.a.rate]", "[guard.b.rate]"))


def test_a_mistake_in_defaults_is_said_once_however_many_guards_there_are() -> None:
    text = "[guard.defaults.breaker]\nrest_s = -1\n" + "".join(f"[guard.g{each}.breaker]\n" for each in range(20))
    assert list(problems(text)) == ["guard.defaults.breaker.rest_s"]


def test_no_value_of_a_text_is_repeated() -> None:
    secret = "correct-horse"
    for text in (
        f'password = "{secret}"',
        f'[guard.a]\nkeys_max = "{secret}"\n[guard.a.breaker]\nmode = "{secret}"\nrest_s = "{secret}"\ntoken = "{secret}"',
        f'[guard.a]\nobjective = "{secret}"\nbreaker = ["{secret}"]\n[guard.b]\nobjective = {{ latency = "{secret}" }}',
        f'password = "{secret}\n',
        f'password = "{secret}"\npassword = "{secret}"\n',
        f'password = "{secret}\0"',
        f"password = {secret}",
    ):
        with pytest.raises(BadSettings) as caught:
            parse(text)
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\na = 2\n", "is set in line 1 and again in line 2"),
        (
            "[guard.a]\nkeys_max = 1\n[guard.a]\n",
            "is not TOML: Cannot declare ('guard', 'a') twice (at line 3, column 9)",
        ),
        ("[guard.a]\nkeys_max = \n", "is not TOML: Invalid value (at line 2, column 12)"),
        ("[guard.a]\nkeys_max = 1 \0\n", "line 2 holds a NUL byte; is this a text?"),
        (b"\xef\xbb\xbf[guard.a]\n", "starts with a byte order mark; save it as UTF-8 without one"),
        ("\ufeff[guard.a]\n", "starts with a byte order mark; save it as UTF-8 without one"),
        ("[guard.a]\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"\n# caf\xe9\n", "line 2 is not UTF-8: byte 0xe9"),
        ("\n\ud800", "line 2 holds half of a character (a surrogate)"),
        ("#" * (BYTES_MAX + 1), f"larger than {BYTES_MAX} bytes"),
        ("é" * (BYTES_MAX // 2 + 1), f"larger than {BYTES_MAX} bytes"),
        ("\na = " + "[" * 1_000, f"line 2 nests deeper than {DEPTH_MAX} levels"),
        (".".join("a" * 100_000) + " = 1", f"line 1 nests deeper than {DEPTH_MAX} levels"),
        ("\na = " + "9" * 10_000, "holds a number too long to read (budao.toml, line 2)"),
        (f"{'a' * 5_000} = 1\n{'a' * 5_000} = 1", "is set in line 1 and again in line 2"),
    ],
)
def test_what_is_no_settings_text_at_all_is_one_clear_problem(text: str | bytes, said: str) -> None:
    assert list(problems(text).values()) == [said]


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775808", "0x" + "f" * 10_000])
def test_a_huge_whole_number_is_named_without_being_printed(number: str) -> None:
    text = f"[guard.a]\nkeys_max = {number}\n[guard.a.breaker]\nrest_s = {number}\nmode = {number}\n"
    assert set(problems(text).values()) == {f"is too large a number (budao.toml, line {line})" for line in (2, 4, 5)}


def test_a_huge_float_is_infinity_and_only_fits_where_infinity_does() -> None:
    assert parse("[guard.a.breaker]\nslow_s = 1e999\n").policy_for("a", GuardPolicy()).breaker == BreakerPolicy()
    assert list(problems("[guard.a.breaker]\nrest_s = 1e999\n")) == ["guard.a.breaker.rest_s"]


@pytest.mark.parametrize("name", ['""', '"a\\nb"', '"a\\u202eb"', "a" * 201])
def test_a_guard_needs_a_name_that_can_be_printed(name: str) -> None:
    (problem,) = problems(f"[guard.{name}]\n").values()
    assert problem == "the name of a guard has 1 to 200 printable characters (budao.toml, line 1)"


def test_what_is_not_a_table_where_one_belongs_is_named() -> None:
    assert problems("guard = 1") == {"guard": "must be a table, not a number (budao.toml, line 1)"}
    assert problems("[guard]\na = false") == {"guard.a": "must be a table, not true or false (budao.toml, line 2)"}
    assert problems("[[guard.a]]") == {"guard.a": "must be a table, not an array (budao.toml, line 1)"}


def test_too_many_guards_are_refused_before_they_are_read() -> None:
    many = "".join(f"[guard.g{each}]\n" for each in range(GUARDS_MAX))
    assert len(parse(many).guards) == GUARDS_MAX
    assert problems(f"{many}[guard.one-more]\n") == {"guard": "1001 guards are more than 1000 (budao.toml, line 1)"}


def test_the_list_of_problems_has_an_end() -> None:
    found = problems("".join(f"key{each} = 1\n" for each in range(PROBLEMS_MAX + 50)))
    assert len(found) == PROBLEMS_MAX + 1
    assert found["budao.toml"] == "and perhaps more; the first 100 are listed"


def reads_or_refuses(text: str | bytes) -> None:
    found: list[tuple[str, str]] = []
    try:
        settings = parse(text)
        assert isinstance(settings, Settings)
        for name in [*settings.guards, "stranger"]:
            settings.reasons_for(name)
            settings.policy_for(name, GuardPolicy())
    except BadSettings as bad:
        found += bad.problems
    else:
        return
    assert 1 <= len(found) <= PROBLEMS_MAX + 1


@given(text=st.one_of(st.text(), st.text(st.characters()), st.binary()))
def test_any_text_and_any_bytes_are_read_or_refused(text: str | bytes) -> None:
    reads_or_refuses(text)


NAMES = st.sampled_from(["guard", "defaults", "a", "objective", "latency", "under_s", "keys_max", "x", '"y z"', *PARTS])
FIELDS = st.sampled_from([f"{part}.{name}" for part in KINDS for name in KINDS[part]])
VALUES = st.sampled_from(
    ["0", "1", "-1", "0.5", "30", "1e999", "nan", "true", "false", "'shadow'", "[]", "{}", "1979-05-27", "9" * 400, "{"]
)
STATEMENTS = st.one_of(
    st.tuples(st.sampled_from(["a", "defaults"]), st.sampled_from([*PARTS])).map(
        lambda two: f"[guard.{two[0]}.{two[1]}]"
    ),
    st.lists(NAMES, min_size=1, max_size=4).map(lambda names: f"[{'.'.join(names)}]"),
    st.tuples(st.lists(NAMES, min_size=1, max_size=3).map(".".join), VALUES).map(" = ".join),
    st.tuples(st.sampled_from(["guard.a.", "guard.defaults.", ""]), FIELDS, VALUES).map("{0[0]}{0[1]} = {0[2]}".format),
    st.text(max_size=3),
)


@given(statements=st.lists(STATEMENTS, max_size=12))
def test_any_near_miss_is_read_or_refused(statements: list[str]) -> None:
    reads_or_refuses("\n".join(statements))


@given(policy=policies(), choice=st.randoms(use_true_random=False))
def test_numbers_that_fit_together_over_some_policy_are_never_refused_in_a_file(
    policy: GuardPolicy, choice: Any
) -> None:
    # A rate is left out: the tries and the burst it is held against are taken from the defaults where a file is silent.
    policy = replace(policy, rate=None)
    assume(not conflicts(policy))
    lines = [line for line in dump(policy, name="a").splitlines() if line]
    kept = [line for line in lines if line.startswith("[") or choice.random() < 0.5]
    assert parse("\n".join(kept)).policy_for("a", policy) == policy


def test_a_slow_line_is_not_held_against_a_timeout_that_only_the_code_states() -> None:
    text = "[guard.a]\ntimeout = true\n[guard.a.breaker]\nslow_s = 10.0\n"
    base = GuardPolicy(timeout=TimeoutPolicy(call_s=11.0))
    policy = parse(text).policy_for("a", base)
    assert policy.breaker is not None
    assert policy.breaker.slow_s == 10.0
