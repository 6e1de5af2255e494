"""Why a TLS handshake failed, as a word: one of `metrics.HANDSHAKE_CAUSES`.

A server learns it in two ways: it notices itself, or the client says so in an alert before it hangs up. What an alert says is the
client's opinion of our certificate.
"""

from __future__ import annotations

import ssl
from typing import Final

from budao.push import BadEnd

TALKS_HTTP: Final = "plain-http"

BY_REASON: Final = {
    # What the client says of us (RFC 8446, section 6.2).
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "revoked",
    "SSLV3_ALERT_BAD_CERTIFICATE": "bad-certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "bad-certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "bad-certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "unknown-authority",
    "TLSV1_ALERT_DECRYPT_ERROR": "wrong-key",
    "TLSV1_ALERT_ACCESS_DENIED": "refused-by-client",
    "TLSV1_ALERT_USER_CANCELLED": "refused-by-client",
    "TLSV1_ALERT_INTERNAL_ERROR": "refused-by-client",
    "TLSV1_UNRECOGNIZED_NAME": "wrong-name",
    "TLSV1_ALERT_UNRECOGNIZED_NAME": "wrong-name",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "no-shared-cipher",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": "no-shared-cipher",
    "TLSV1_ALERT_PROTOCOL_VERSION": "no-shared-version",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "no-shared-protocol",
    # What we notice.
    "HTTP_REQUEST": TALKS_HTTP,
    "HTTPS_PROXY_REQUEST": TALKS_HTTP,
    "WRONG_VERSION_NUMBER": "not-tls",
    "WRONG_SSL_VERSION": "not-tls",
    "UNKNOWN_PROTOCOL": "not-tls",
    "PACKET_LENGTH_TOO_LONG": "not-tls",
    "RECORD_LAYER_FAILURE": "not-tls",
    "BAD_RECORD_TYPE": "not-tls",
    "UNEXPECTED_MESSAGE": "not-tls",
    "INVALID_CCS_MESSAGE": "not-tls",
    "LENGTH_TOO_LONG": "not-tls",
    "LENGTH_MISMATCH": "not-tls",
    "UNSUPPORTED_PROTOCOL": "no-shared-version",
    "VERSION_TOO_LOW": "no-shared-version",
    "NO_SHARED_CIPHER": "no-shared-cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no-shared-cipher",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "no-shared-cipher",
    "NO_SUITABLE_KEY_SHARE": "no-shared-cipher",
    "NO_SHARED_GROUPS": "no-shared-cipher",
    "NO_APPLICATION_PROTOCOL": "no-shared-protocol",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no-certificate",
    "BAD_SIGNATURE": "wrong-key",
    "DATA_LENGTH_TOO_LONG": "not-tls",
    "UNEXPECTED_EOF_WHILE_READING": "closed",
}

BY_VERIFY_CODE: Final = {
    2: "unknown-authority",
    7: "wrong-key",
    9: "not-yet-valid",
    10: "expired",
    18: "unknown-authority",
    19: "unknown-authority",
    20: "unknown-authority",
    21: "unknown-authority",
    23: "revoked",
    62: "wrong-name",
    64: "wrong-name",
}
"""What is wrong with the certificate of a client, where clients must show one (X509_V_ERR of OpenSSL)."""


_BAD_ENDS: Final = {
    "expired": BadEnd.HANDSHAKE_EXPIRED,
    "unknown-authority": BadEnd.HANDSHAKE_UNKNOWN_AUTHORITY,
    "wrong-key": BadEnd.HANDSHAKE_WRONG_KEY,
    "timeout": BadEnd.HANDSHAKE_TIMEOUT,
    "not-tls": BadEnd.HANDSHAKE_PROTOCOL,
    TALKS_HTTP: BadEnd.HANDSHAKE_PROTOCOL,
    "no-shared-version": BadEnd.HANDSHAKE_PROTOCOL,
    "no-shared-cipher": BadEnd.HANDSHAKE_PROTOCOL,
    "no-shared-protocol": BadEnd.HANDSHAKE_PROTOCOL,
}


def bad_end_of(cause: str) -> BadEnd:
    """What a cause is in the table of prefixes."""
    return _BAD_ENDS.get(cause, BadEnd.HANDSHAKE_OTHER)


def name_failure(problem: BaseException) -> str:
    """The cause of a handshake that raised this."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return BY_VERIFY_CODE.get(problem.verify_code, "bad-certificate")
    if isinstance(problem, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "closed"
    if isinstance(problem, ssl.SSLError):
        return BY_REASON.get(getattr(problem, "reason", None) or "", "other")
    if isinstance(problem, TimeoutError):
        return "timeout"
    if isinstance(problem, OSError):
        return "closed"
    return "other"
