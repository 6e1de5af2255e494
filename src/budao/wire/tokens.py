"""Tokens: signed claims into grants. PyJWT does the cryptography; what counts as valid, and when, is decided here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from budao.model import Wall
from budao.push import Grant

TOKEN_BYTES_MAX = 8 * 1024


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """Why a token is no good. Says nothing of what it holds."""

    why: str
    """`expired`, or `unauthorized`: words of `closing.BY_WHY`."""
    happened: str


class TokenKeys:
    """Keys that tokens are checked with, and what must be in them."""

    @classmethod
    def of_secret(
        cls,
        secret: str | bytes,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        leeway_s: float = 30.0,
        needs_exp: bool = True,
    ) -> Self:
        """HS256 with one secret of at least 32 bytes.

        Raises:  BadSettings.
        """
        raise NotImplementedError

    @classmethod
    def of_pem(
        cls,
        text: str,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        leeway_s: float = 30.0,
        needs_exp: bool = True,
    ) -> Self:
        """RS256 or EdDSA with one public key, as PEM.

        Raises:  BadSettings.
        """
        raise NotImplementedError

    @classmethod
    def of_jwks(
        cls,
        text: str,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        leeway_s: float = 30.0,
        needs_exp: bool = True,
    ) -> Self:
        """The keys of a JWKS file, told apart by `kid`.

        Raises:  BadSettings.
        """
        raise NotImplementedError

    def check(self, token: str, now: Wall) -> Grant | Unauthorized:
        """What a token grants, or why nothing."""
        raise NotImplementedError


def sign_development_token(
    secret: str | bytes,
    *,
    subject: str,
    subscribe: Sequence[str] = ("**",),
    publish: Sequence[str] = ("**",),
    presence: Sequence[str] = ("**",),
    operate: bool = False,
    now: Wall,
    lives_s: float = 86_400.0,
) -> str:
    """A token of HS256, for trying things out."""
    raise NotImplementedError
