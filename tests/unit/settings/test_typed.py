"""Tables into dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest

from budao.model import BadSettings
from budao.settings import read_text, typed


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Bank:
    url: str
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ValueError("share must be from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Shop:
    name: str = "shop"
    items_max: int = 10
    open: bool = True
    colour: Colour = Colour.RED
    mode: Literal["fast", "slow"] = "fast"
    limit_s: float | None = None
    bank: Bank | None = None
    tags: tuple[str, ...] = ()
    prices: dict[str, float] = field(default_factory=dict)


def read(text: str, kind: type[Any] = Shop) -> Any:
    return typed(kind, read_text(text, source="shop.toml"))


def test_what_nobody_states_has_its_default() -> None:
    assert read("") == Shop()


def test_every_kind_of_field_is_read() -> None:
    assert read("""
        name = "corner"
        items_max = 3
        open = false
        colour = "blue"
        mode = "slow"
        limit_s = 2
        tags = ["a", "b"]
        prices = { tea = 1, cake = 2.5 }
        [bank]
        url = "https://bank"
        """) == Shop(
        name="corner",
        items_max=3,
        open=False,
        colour=Colour.BLUE,
        mode="slow",
        limit_s=2.0,
        bank=Bank(url="https://bank"),
        tags=("a", "b"),
        prices={"tea": 1.0, "cake": 2.5},
    )


def test_every_problem_is_said_at_once_with_its_path_and_place() -> None:
    with pytest.raises(BadSettings) as caught:
        read("""items_max = "many"
open = 1
colour = "green"
nmae = "x"
tags = [1, "b", 2]
[bank]
share = 2.0
[prices]
tea = "secret"
""")
    assert dict(caught.value.problems) == {
        "items_max": "must be a whole number, not a text (shop.toml, line 1)",
        "open": "must be true or false, not a number (shop.toml, line 2)",
        "colour": "must be one of 'red', 'blue', not a text (shop.toml, line 3)",
        "nmae": "is not a setting; did you mean name? (shop.toml, line 4)",
        "tags.0": "must be a text, not a number (shop.toml, line 5)",
        "tags.2": "must be a text, not a number (shop.toml, line 5)",
        "bank.url": "is needed, and nobody states it (shop.toml, line 6)",
        "prices.tea": "must be a number, not a text (shop.toml, line 9)",
    }


def test_what_a_dataclass_refuses_is_a_problem_at_its_table() -> None:
    with pytest.raises(BadSettings) as caught:
        read('[bank]\nurl = "x"\nshare = 2.0\n')
    assert caught.value.problems == (("bank", "share must be from 0 to 1 (shop.toml, line 1)"),)


def test_a_field_of_a_kind_that_no_text_states_is_the_programs_mistake() -> None:
    @dataclass
    class Odd:
        when: complex = 0j

    with pytest.raises(TypeError, match="when"):
        read("when = 1", Odd)


@dataclass
class Share:
    share: float = 0.0
    needed: int = field(kw_only=True)


def test_a_whole_number_that_no_float_holds_is_a_problem_and_no_crash() -> None:
    with pytest.raises(BadSettings, match="share: is too large a number"):
        typed(Share, read_text("needed = 1\nshare = 1" + "0" * 400, source="a file"))


def test_of_very_many_problems_the_first_hundred_are_listed() -> None:
    text = "".join(f"unknown{index} = 1\n" for index in range(5_000))
    with pytest.raises(BadSettings) as caught:
        typed(Share, read_text(text, source="a file"))
    assert len(caught.value.problems) == 101
    assert caught.value.problems[-1] == ("a file", "and perhaps more; the first 100 are listed")
