"""When changed certificates are taken, and how failed handshakes are called."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from budao.aio.gateway.certificates import SETTLES_S, Certificates
from budao.aio.gateway.handshakes import BY_REASON, BY_VERIFY_CODE, bad_end_of, name_failure
from budao.aio.gateway.metrics import HANDSHAKE_CAUSES
from budao.model import BadSettings
from budao.push import BadEnd
from tests.live.certificates import Authority

NOW = datetime.now(UTC)  # noqa: TID251 - what OpenSSL checks dates against, whatever we say


def pair(folder: Path) -> tuple[Authority, Certificates]:
    authority = Authority(folder)
    return authority, Certificates(*authority.issue("live"))


def renew(authority: Authority, it: Certificates, *, certificate: bool = True, key: bool = True, days: int = 0) -> None:
    newer, newer_key = authority.issue("newer", since=NOW + timedelta(days=days))
    if certificate:
        it.certificate.write_bytes(newer.read_bytes())
    if key:
        it.key.write_bytes(newer_key.read_bytes())


def test_a_pair_that_did_not_change_is_left_alone(tmp_path: Path) -> None:
    _, it = pair(tmp_path)
    context = it.context
    it.look(0.0)
    assert it.context is context
    assert it.metrics.reloads == {"loaded": 0, "refused": 0}


def test_a_changed_pair_is_taken_at_the_next_look_for_new_handshakes(tmp_path: Path) -> None:
    authority, it = pair(tmp_path)
    before = it.context
    it.metrics.certificate_until = 0.0
    renew(authority, it)
    it.look(0.0)
    assert it.context is not before
    assert it.metrics.certificate_until == it.until > NOW.timestamp()
    assert it.metrics.reloads == {"loaded": 1, "refused": 0}
    assert it.context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert it.context.options & ssl.OP_NO_RENEGOTIATION


def test_half_a_renewal_is_no_news_and_is_taken_once_it_is_whole(tmp_path: Path) -> None:
    authority, it = pair(tmp_path)
    before = it.context
    renew(authority, it, key=False)
    for now in (0.0, 1.0, SETTLES_S - 0.1):
        it.look(now)
    assert it.context is before
    assert it.metrics.reloads == {"loaded": 0, "refused": 0}
    renew(authority, it)
    it.look(SETTLES_S)
    assert it.metrics.reloads == {"loaded": 1, "refused": 0}


def test_a_bad_pair_that_stays_is_told_of_once_and_never_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, it = pair(tmp_path)
    before = it.context
    renew(authority, it, key=False)
    with caplog.at_level(logging.ERROR):
        for now in range(20):
            it.look(float(now))
    assert it.context is before
    assert it.metrics.reloads == {"loaded": 0, "refused": 1}
    (said,) = caplog.messages
    assert "is not the key of the certificate" in said
    renew(authority, it)
    it.look(20.0)
    assert it.context is not before
    assert it.metrics.reloads == {"loaded": 1, "refused": 1}


@pytest.mark.parametrize("days", [-7, 7])
def test_a_pair_that_is_not_valid_now_is_not_taken(tmp_path: Path, days: int) -> None:
    authority, it = pair(tmp_path)
    before = it.context
    renew(authority, it, days=days)
    assert ("expired" if days < 0 else "not valid before") in it.reload()
    assert it.context is before
    assert it.metrics.reloads["refused"] == 1


def test_files_that_are_gone_or_empty_leave_the_old_pair(tmp_path: Path) -> None:
    authority, it = pair(tmp_path)
    before = it.context
    it.key.unlink()
    assert "cannot be read" in it.reload()
    it.certificate.write_bytes(b"")
    assert it.reload()
    assert it.context is before
    renew(authority, it)
    assert it.reload() == ""
    assert it.context is not before


def test_a_link_that_turns_to_another_folder_is_a_change(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Authority(tmp_path / name).issue("tls")
    link = tmp_path / "current"
    link.symlink_to("one")
    it = Certificates(link / "tls.pem", link / "tls.key")
    link.unlink()
    link.symlink_to("two")
    it.look(0.0)
    assert it.metrics.reloads["loaded"] == 1


def test_the_first_pair_has_to_be_good(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, _ = authority.issue("one")
    _, other = authority.issue("two")
    with pytest.raises(BadSettings, match="is not the key"):
        Certificates(certificate, other)


def test_every_cause_is_one_that_metrics_list_and_a_bad_end_for_prefixes() -> None:
    for cause in (*BY_REASON.values(), *BY_VERIFY_CODE.values()):
        assert cause in HANDSHAKE_CAUSES
    assert {bad_end_of(cause) for cause in HANDSHAKE_CAUSES} == {
        end for end in BadEnd if end.value.startswith("handshake-")
    }
    assert bad_end_of("plain-http") is BadEnd.HANDSHAKE_PROTOCOL


def test_what_nobody_has_met_has_a_name_as_well() -> None:
    assert name_failure(ssl.SSLError(1, "[SSL: NEVER_SEEN] no idea")) == "other"
    assert name_failure(ssl.SSLEOFError(8, "EOF")) == "closed"
    assert name_failure(ConnectionResetError()) == "closed"
    assert name_failure(TimeoutError()) == "timeout"
    assert name_failure(ValueError()) == "other"
