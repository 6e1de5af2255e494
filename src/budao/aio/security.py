"""Who may talk to a server of ours, and how nobody else can listen: TLS contexts, tokens, and the rule for loopback.

Every problem names its file and what to do, before anything listens or connects.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hmac import compare_digest
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from budao.model import BadSettings, RemoteWireError
from budao.wire import parse_validity

TOKEN_CHARACTERS: Final = range(16, 1025)
"""How long a token may be. A shorter one can be guessed, a longer one is a file given by mistake."""

END: Final = "-----END CERTIFICATE-----"


def server_tls(certificate: Path, key: Path, *, authority: Path | None = None) -> ssl.SSLContext:
    """How a server proves who it is. With an authority, clients must show a certificate of it as well.

    Raises:  BadSettings, naming the file: missing, unreadable, a key of another certificate, expired.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_own(context, certificate, key)
    if authority is not None:
        _load_authority(context, authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(
    authority: Path | None = None, *, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """How a client checks the server: by this authority, or by those the system trusts. A certificate is for mutual TLS.

    Raises:  BadSettings, naming the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authority is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authority(context, authority)
    if (certificate is None) != (key is None):
        raise BadSettings([("tls", "a certificate and its key go together, only one of them is given")])
    if certificate is not None and key is not None:
        _load_own(context, certificate, key)
    return context


def read_token(*, file: Path | None = None, environment: str | None = None) -> str | None:
    """The token from a file (which others must not read) or an environment variable; None if neither is named.

    Raises:  BadSettings; the token itself is never part of a message.
    """
    if file is not None:
        if environment is not None:
            raise BadSettings([("token", f"both the file {file} and the variable {environment} are named; choose one")])
        try:
            mode = file.stat().st_mode
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise BadSettings([("token", f"{file} cannot be read: {_said(problem)}")]) from problem
        if mode & 0o077:
            raise BadSettings([("token", f"{file} can be read by others (mode {mode & 0o777:o}); set it to 600")])
        return check_token(token, str(file))
    if environment is None:
        return None
    token = os.environ.get(environment, "").strip()
    if not token:
        raise BadSettings([("token", f"the environment variable {environment} is not set")])
    return check_token(token, environment)


def check_token(token: str, where: str = "the token") -> str:
    """Raises:  BadSettings unless it is long enough not to be guessed, and printable."""
    if len(token) not in TOKEN_CHARACTERS:
        least, most = TOKEN_CHARACTERS.start, TOKEN_CHARACTERS.stop - 1
        raise BadSettings([("token", f"{where} has {len(token)} characters, not from {least} to {most}")])
    if not (token.isascii() and token.isprintable()):
        raise BadSettings([("token", f"{where} holds characters other than printable ASCII")])
    return token


def is_token(shown: str, wanted: str) -> bool:
    """Whether it is the same, in a time that tells nothing about where they differ."""
    return compare_digest(shown.encode(errors="replace"), wanted.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it. A name other than localhost could mean anything, so it counts as not."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_exposure(host: str, *, tls: bool, token: bool) -> None:
    """What listens beyond loopback needs both TLS and a token.

    Raises:  BadSettings, saying what is missing.
    """
    missing = [name for name, is_there in (("TLS", tls), ("a token", token)) if not is_there]
    if missing and not is_loopback(host):
        problem = f"{host!r} can be reached from other machines, which needs TLS and a token; missing: "
        raise BadSettings([("host", problem + " and ".join(missing) + "; add it, or listen on 127.0.0.1")])


def check_sending(hosts: Sequence[str], *, tls: bool, token: bool) -> None:
    """A token is not sent in the clear to another machine.

    Raises:  BadSettings.
    """
    for host in hosts:
        if token and not tls and not is_loopback(host):
            raise BadSettings([("tls", f"the token would travel to {host!r} in the clear; give a TLS context as well")])


def explain_tls(problem: BaseException) -> str:
    """What a failed handshake means, in a few words."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {problem.verify_message or problem.reason or problem}"
    if isinstance(problem, ssl.SSLError):
        reason = (problem.reason or str(problem)).replace("_", " ").lower()
        if reason in {"wrong version number", "record layer failure", "packet length too long"}:
            return "it does not speak TLS there, or an older version; is this the right port?"
        return f"the TLS handshake failed: {reason}"
    if isinstance(problem, ConnectionRefusedError):
        return "connection refused, nothing listens there"
    return str(problem) or type(problem).__name__


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    _check_dates(certificate)
    _need(key, "key")
    try:
        # Without this, an encrypted key would ask for its password on the terminal, and wait.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as problem:
        if problem.reason == "KEY_VALUES_MISMATCH":
            raise BadSettings([("tls.key", f"{key} is not the key of the certificate {certificate}")]) from problem
        raise BadSettings([("tls.key", f"{key} cannot be used with {certificate}: {_said(problem)}")]) from problem
    except (OSError, ValueError) as problem:
        raise BadSettings([("tls.key", f"{key} cannot be used: {_said(problem)}")]) from problem


def _load_authority(context: ssl.SSLContext, authority: Path) -> None:
    _check_dates(authority, "authority")
    try:
        context.load_verify_locations(cafile=authority)
    except (OSError, ValueError) as problem:
        raise BadSettings([("tls.authority", f"{authority} cannot be used: {_said(problem)}")]) from problem


def _need(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadSettings([(f"tls.{name}", f"{path} cannot be read: {_said(problem)}")]) from problem


def _check_dates(path: Path, name: str = "certificate") -> None:
    """The first certificate of the file is the one shown; the others only lead to the authority."""
    text = _need(path, name)
    start = text.find("-----BEGIN CERTIFICATE-----")
    end = text.find(END, start)
    if start < 0 or end < 0:
        raise BadSettings([(f"tls.{name}", f"{path} holds no certificate in PEM form")])
    try:
        validity = parse_validity(ssl.PEM_cert_to_DER_cert(text[start : end + len(END)]))
    except (RemoteWireError, ValueError) as problem:
        raise BadSettings([(f"tls.{name}", f"{path}: {problem}")]) from problem
    now = time.time()
    if now >= validity.until:
        raise BadSettings([(f"tls.{name}", f"{path} expired on {_day(validity.until)}; renew it")])
    if now < validity.since:
        raise BadSettings([(f"tls.{name}", f"{path} is not valid before {_day(validity.since)}; check the clock")])


def _day(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _said(problem: Exception) -> str:
    if isinstance(problem, OSError) and not isinstance(problem, ssl.SSLError) and problem.strerror:
        return problem.strerror
    return str(problem)
