"""One value from several layers that change by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest

from budao.model import BadSettings, Wall
from budao.settings import Layers, Version, read_environment, typed


@dataclass(frozen=True, kw_only=True)
class Shop:
    items_max: int = 10
    name: str = "shop"


def layers(**environ: str) -> Layers[Shop]:
    return Layers(partial(typed, Shop), environment=read_environment(environ))


def version(number: int, text: str) -> Version:
    return Version(number=number, text=text, at=Wall(0.0))


def test_the_order_is_code_file_environment_store() -> None:
    shop = layers(BUDAO__NAME="environment")
    assert shop.value == Shop(name="environment")
    assert shop.file_said(b'name = "file"\nitems_max = 20', "shop.toml")
    assert shop.value == Shop(name="environment", items_max=20)
    assert shop.store_said(version(3, 'name = "store"'))
    assert (shop.value, shop.version) == (Shop(name="store", items_max=20), 3)
    assert shop.store_said(None)
    assert (shop.value, shop.version) == (Shop(name="environment", items_max=20), 0)


def test_a_change_that_changes_nothing_is_no_news() -> None:
    shop = layers()
    assert not shop.file_said(b"items_max = 10", "shop.toml")


def test_whatever_is_wrong_leaves_the_value_as_it_was_until_it_is_mended() -> None:
    shop = layers()
    shop.file_said(b"items_max = 20", "shop.toml")
    assert not shop.file_said(b"items_max = [", "shop.toml")
    assert shop.problems
    assert not shop.store_said(version(1, "items_max = 30"))  # the file is still wrong
    assert shop.value.items_max == 20
    assert shop.version == 0
    assert shop.file_said(b"", "shop.toml")
    assert (shop.value.items_max, shop.version, shop.problems) == (30, 1, ())


def test_what_cannot_be_read_in_the_store_stays_a_problem_while_the_file_changes() -> None:
    shop = layers()
    shop.store_said(version(1, "items_max = 30"))
    assert not shop.store_said(BadSettings([("key", "is no version of settings")]))
    assert shop.file_said(b'name = "x"', "shop.toml")
    assert shop.value == Shop(items_max=30, name="x")
    assert shop.problems == (("key", "is no version of settings"),)


def test_an_environment_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(BadSettings, match="BUDAO__ITEMS_MAX"):
        layers(BUDAO__ITEMS_MAX="many")
