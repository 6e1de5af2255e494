from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import get_args

import pytest

from budao.guard import Event, Refused
from budao.guard.events import words_of
from budao.model import Refusal, Why


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
def test_every_event_says_of_which_guard_which_key_and_when(kind: type) -> None:
    assert is_dataclass(kind)
    assert [each.name for each in fields(kind)][:3] == ["guard", "key", "at"]
    assert kind.__doc__


def test_an_event_never_changes_and_equals_its_like() -> None:
    event = Refused("inventory", "", 1.0, Refusal(Why.RATE))
    with pytest.raises(FrozenInstanceError):
        event.at = 2.0  # type: ignore[misc]
    assert event == Refused("inventory", "", 1.0, Refusal(Why.RATE), shadow=False)


def test_the_words_of_an_exception_have_a_bound_and_never_raise() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert words_of(ValueError("ill")) == "ValueError: ill"
    assert len(words_of(ValueError("x" * 1000))) == 200
    assert words_of(ValueError("ill"), 5) == "Value"
    assert words_of(Mute()) == "Mute"
    assert words_of(Mute(), 2) == "Mu"
