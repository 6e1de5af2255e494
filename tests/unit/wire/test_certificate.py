from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from budao.model import RemoteWireError
from budao.wire import Validity, parse_validity

KEY = ec.derive_private_key(41, ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "one" * 20)])


def certificate(since: datetime, until: datetime) -> bytes:
    builder = x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(KEY.public_key())
    builder = builder.serial_number(7).not_valid_before(since).not_valid_after(until)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


DER = certificate(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("years", [(1951, 2049), (2026, 2027), (2049, 2051), (2060, 2100)])
def test_the_validity_is_the_one_it_was_made_with(years: tuple[int, int]) -> None:
    since, until = (datetime(year, 3, 4, 5, 6, 7, tzinfo=UTC) for year in years)
    found = parse_validity(certificate(since, until))
    assert found == Validity(since.timestamp(), until.timestamp())


@given(st.binary(max_size=100))
def test_other_bytes_are_no_certificate(raw: bytes) -> None:
    with pytest.raises(RemoteWireError):
        parse_validity(raw)


@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_a_changed_certificate_is_read_or_refused_and_nothing_else(at: int, byte: int) -> None:
    try:
        parse_validity(DER[:at] + bytes([byte]) + DER[at + 1 :])
    except RemoteWireError:
        return
