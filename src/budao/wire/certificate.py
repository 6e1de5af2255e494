"""When a certificate is valid, read from its own bytes: the standard library tells it only of a peer's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from budao.model import RemoteWireError, Wall

SEQUENCE: Final = 0x30
VERSION: Final = 0xA0
UTC_TIME: Final = 0x17
LONG_TIME: Final = 0x18


@dataclass(frozen=True, slots=True)
class Validity:
    """The span in which a certificate may be used."""

    since: Wall
    until: Wall


def parse_validity(der: bytes) -> Validity:
    """The validity of an X.509 certificate.

    Raises:  RemoteWireError if the bytes are no certificate.
    Source:  RFC 5280, sections 4.1 (the fields in their order) and 4.1.2.5 (the two forms of a date).
    """
    try:
        _, certificate, _ = _value(der, 0)
        _, body, _ = _value(certificate, 0)
        tag, _, at = _value(body, 0)
        # The version is left out of a certificate of version 1; then come serial, algorithm and issuer.
        for _ in range(3 if tag == VERSION else 2):
            _, _, at = _value(body, at)
        tag, validity, _ = _value(body, at)
        if tag != SEQUENCE:
            raise ValueError(f"tag {tag:#x} stands where the validity should")
        first, since, at = _value(validity, 0)
        second, until, _ = _value(validity, at)
        return Validity(_instant(first, since), _instant(second, until))
    except (ValueError, IndexError) as problem:
        raise RemoteWireError(f"the certificate cannot be read: {problem}") from problem


def _value(raw: bytes, at: int) -> tuple[int, bytes, int]:
    """Tag, content, and where the next one begins."""
    tag, size, at = raw[at], raw[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        if not 1 <= count <= 4:
            raise ValueError(f"a length of {count} bytes")
        size = int.from_bytes(raw[at : at + count], "big")
        at += count
    if at + size > len(raw):
        raise ValueError("it ends too early")
    return tag, raw[at : at + size], at + size


def _instant(tag: int, raw: bytes) -> Wall:
    if tag not in {UTC_TIME, LONG_TIME}:
        raise ValueError(f"tag {tag:#x} stands where a date should")
    text = raw.decode("ascii")
    if tag == UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return Wall(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())
