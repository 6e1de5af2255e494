"""When a changed file of keys is taken, and what is said of one that is no good."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from budao.aio.gateway import Access, FollowedFile
from budao.aio.gateway.followed_file import SETTLES_S
from budao.model import BadSettings, Wall
from budao.push import Grant
from budao.wire import tokens

NOW = Wall(1_700_000_000.0)


def keys_in(file: Path) -> FollowedFile[tokens.TokenKeys]:
    return FollowedFile(file, lambda: tokens.TokenKeys.of_secret(file.read_text()), "the keys of tokens")


def write(file: Path, text: str) -> None:
    """As whoever takes care writes: beside it, and then in its place."""
    aside = file.with_name("aside")
    aside.write_text(text)
    aside.replace(file)


def signed(secret: str) -> str:
    return tokens.sign_development_token(secret, subject="ann", now=NOW)


def test_a_first_file_that_is_no_good_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "key", "short")
    with pytest.raises(BadSettings):
        keys_in(tmp_path / "key")


def test_changed_keys_are_taken_at_the_next_look_and_what_the_old_ones_granted_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write(file, "a" * 32)
    it = keys_in(file)
    access = Access(keys=it.value)
    it._use = access.renew
    assert isinstance(access.grant(signed("a" * 32), NOW), Grant)
    before = it.value
    it.look(0.0)
    assert it.value is before
    write(file, "b" * 32)
    it.look(1.0)
    assert isinstance(access.grant(signed("a" * 32), NOW), tokens.Unauthorized)
    assert isinstance(access.grant(signed("b" * 32), NOW), Grant)


def test_a_bad_file_never_takes_the_place_of_a_good_one_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key"
    write(file, "a" * 32)
    it = keys_in(file)
    before = it.value
    write(file, "secretly short")
    with caplog.at_level(logging.ERROR):
        it.look(0.0)
        it.look(SETTLES_S - 0.1)
        assert caplog.messages == []
        for now in range(3, 30):
            it.look(float(now))
    assert it.value is before
    (said,) = caplog.messages
    assert "stay as they were" in said
    assert "secretly" not in said
    write(file, "b" * 32)
    it.look(30.0)
    assert it.value is not before


def test_who_asks_for_a_look_hears_of_what_is_wrong_at_once(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write(file, "a" * 32)
    it = keys_in(file)
    assert it.reload() == ""
    write(file, "short")
    assert "HS256 needs 32" in it.reload()
