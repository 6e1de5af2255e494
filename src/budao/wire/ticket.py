"""Tickets as text: URL-safe, signed with HMAC-SHA256, with the id of the key in front so that keys can be changed.

Raw bytes, then base64url without padding: version 1, length of the key's id, the id, a JSON list, and 32 bytes of signature
over all before them. A text has one reading only: other spellings of the same bytes are refused.

Source:  RFC 2104 (HMAC); RFC 4648, section 3.5 (base64 that has bits left over).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from math import isfinite
from typing import Final

from budao.model import BadSettings, LocalWireError, Wall
from budao.push import NONCE_BYTES, Flaw, Grant, Ticket, TicketRefused

TICKET_CHARACTERS_MAX: Final = 4096
"""It travels in URLs."""
KEY_BYTES_MIN: Final = 32
KEYS_MAX: Final = 16

VERSION: Final = 1
PURPOSE: Final = b"budao ticket 1\0"
"""Signed along, so that nothing else that is signed with the same key can pass for a ticket."""
SIGNATURE_BYTES: Final = 32
FIELDS: Final = 12

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]*")


class TicketKeys:
    """The shared secrets of a cluster by their ids: all are believed, and one signs.

    To change keys without a pause: add the new one behind the old everywhere, put it in front everywhere, drop the old one.

    Raises:  BadSettings for what is no key.
    """

    __slots__ = ("_keys", "signing")

    def __init__(self, keys: Mapping[str, bytes], signing: str) -> None:
        problems = [
            ("ticket_keys", f"{each!r} is no id: 1 to 32 letters, digits, '_' or '-'")
            for each in keys
            if not _ID.fullmatch(each)
        ]
        problems += [
            ("ticket_keys", f"the key {each!r} has {len(key)} bytes, at least {KEY_BYTES_MIN} are needed")
            for each, key in keys.items()
            if len(key) < KEY_BYTES_MIN
        ]
        if signing not in keys:
            problems.append(("ticket_keys", f"the key {signing!r} that shall sign is not there"))
        if len(keys) > KEYS_MAX:
            problems.append(("ticket_keys", f"{len(keys)} keys; at most {KEYS_MAX} are allowed"))
        if problems:
            raise BadSettings(problems)
        self._keys = dict(keys)
        self.signing = signing

    def __repr__(self) -> str:
        return f"TicketKeys(ids={sorted(self._keys)}, signing={self.signing!r})"

    @classmethod
    def parse(cls, text: str) -> TicketKeys:
        """From lines of an id and a key in hexadecimal; the first one signs. `#` begins a comment.

        Raises:  BadSettings, naming the line and never the key.
        """
        keys: dict[str, bytes] = {}
        problems = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                name, digits = words
                key = bytes.fromhex(digits)
            except ValueError:
                problems.append(("ticket_keys", f"line {number} is not an id and a key of hexadecimal digits"))
                continue
            if name in keys:
                problems.append(("ticket_keys", f"line {number} has the id {name!r} once more"))
            keys[name] = key
        if not keys and not problems:
            problems.append(("ticket_keys", "there is no key; `openssl rand -hex 32` makes one"))
        if problems:
            raise BadSettings(problems)
        return cls(keys, next(iter(keys)))

    def sign(self, ticket: Ticket) -> str:
        """The text of a ticket.

        Raises:  LocalWireError if it would be too long: the grant has very many patterns. The client then needs its token.
        """
        assert len(ticket.nonce) == NONCE_BYTES, "a nonce has 16 bytes"
        grant = ticket.grant
        fields = [
            ticket.source,
            ticket.target,
            ticket.session,
            float(ticket.at),
            float(ticket.until),
            ticket.nonce.hex(),
            grant.subject,
            grant.subscribe,
            grant.publish,
            grant.presence,
            grant.operate,
            grant.until,
        ]
        try:
            body = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except ValueError as problem:
            raise LocalWireError(f"this ticket cannot be written: {problem}") from None
        said = bytes((VERSION, len(self.signing))) + self.signing.encode() + body
        text = _text(said + _signature(self._keys[self.signing], said))
        if len(text) > TICKET_CHARACTERS_MAX:
            raise LocalWireError(f"the ticket has {len(text)} characters, {TICKET_CHARACTERS_MAX} are allowed")
        return text

    def read(self, text: str) -> Ticket | TicketRefused:
        """What a ticket says, if one of the keys has signed it. Whether it is still good is for the `TicketGate` to say."""
        if len(text) > TICKET_CHARACTERS_MAX:
            return TicketRefused(Flaw.TOO_LONG, f"{len(text)} characters, {TICKET_CHARACTERS_MAX} are allowed")
        raw = _raw(text)
        if raw is None or len(raw) < 2 or raw[0] != VERSION or len(raw) < 2 + raw[1] + SIGNATURE_BYTES:
            return TicketRefused(Flaw.MALFORMED, "it is cut off, or no ticket of this version")
        key = self._keys.get(raw[2 : 2 + raw[1]].decode("ascii", "replace"))
        if key is None:
            return TicketRefused(Flaw.UNKNOWN_KEY, "it is signed with a key that this gateway does not have")
        said, signature = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
        if not hmac.compare_digest(_signature(key, said), signature):
            return TicketRefused(Flaw.FORGED, "its signature is wrong")
        try:
            return _ticket(json.loads(said[2 + raw[1] :]))
        except (ValueError, TypeError, OverflowError, RecursionError):
            return TicketRefused(Flaw.MALFORMED, "it is signed, and yet not what this version writes")


def _signature(key: bytes, said: bytes) -> bytes:
    return hmac.new(key, PURPOSE + said, hashlib.sha256).digest()


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _raw(text: str) -> bytes | None:
    """The bytes of exactly this text: what the decoder overlooks, such as bits left over, is not overlooked here."""
    if not _TEXT.fullmatch(text):
        return None
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (NotBase64, ValueError):
        return None
    return raw if _text(raw) == text else None


def _ticket(fields: object) -> Ticket:
    """Raises ValueError or TypeError for what `sign` does not write."""
    if not isinstance(fields, list) or len(fields) != FIELDS:
        raise ValueError("not the fields of a ticket")
    source, target, session, at, until, nonce, subject, subscribe, publish, presence, operate, ends = fields
    for each in (source, target, session, nonce, subject):
        if not isinstance(each, str):
            raise TypeError("not text")
    bytes_of_nonce = bytes.fromhex(nonce)
    if len(bytes_of_nonce) != NONCE_BYTES or not isinstance(operate, bool):
        raise ValueError("not a nonce, or not a permission")
    return Ticket(
        source=source,
        target=target,
        session=session,
        at=_wall(at),
        until=_wall(until),
        nonce=bytes_of_nonce,
        grant=Grant(
            subject=subject,
            subscribe=_patterns(subscribe),
            publish=_patterns(publish),
            presence=_patterns(presence),
            operate=operate,
            until=None if ends is None else _wall(ends),
        ),
    )


def _wall(value: object) -> Wall:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TypeError("not an instant")
    return Wall(float(value))


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError("not patterns")
    return tuple(value)
