"""Tokens: signed claims into grants.

A key checks one algorithm and no other, whatever the token says; so neither `none` nor a public key taken for a secret opens
anything. HS256 needs the standard library only; RS256 and EdDSA are PyJWT's, without its clock.

Source:  RFC 7515 (JWS), 7517 (JWK), 7519 (JWT), 8037 (EdDSA), 8725 (best practices).
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Self

from budao.model import BadSettings, Checks, RemoteWireError, Wall
from budao.push import Grant
from budao.wire.json_data import parse_json, write_json

if TYPE_CHECKING:
    from types import ModuleType

TOKEN_BYTES_MAX: Final = 8 * 1024
JWKS_BYTES_MAX: Final = 1024 * 1024
KEYS_MAX: Final = 100
SECRET_BYTES_MIN: Final = 32
"""As long as what HS256 makes of it. Source: RFC 7518, section 3.2."""
RSA_BITS_MIN: Final = 2048
SUBJECT_CHARACTERS_MAX: Final = 200
LEEWAY_MAX_S: Final = 3_600.0

_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_ALGORITHMS: Final = {"HS256": "HS256", "RS256": "RS256", "EdDSA": "EdDSA", "Ed25519": "EdDSA"}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi"})


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """Why a token is no good. Says nothing of what it holds that is secret."""

    why: str
    """`expired`, or `unauthorized`: words of `closing.BY_WHY`."""
    happened: str


@dataclass(frozen=True, slots=True)
class _Key:
    """One key, and the one algorithm it is for."""

    algorithm: str
    kid: str | None
    verify: Any
    """(signed bytes, signature) -> bool. A closure, so that no `repr` shows the key."""


class TokenKeys:
    """Keys that tokens are checked with, and what must be in them.

    Raises:  BadSettings.
    """

    __slots__ = ("_keys", "audience", "issuer", "leeway_s", "needs_exp")

    def __init__(
        self,
        keys: Sequence[_Key],
        *,
        issuer: str | None = None,
        audience: str | None = None,
        leeway_s: float = 30.0,
        needs_exp: bool = True,
    ) -> None:
        check = Checks("token")
        check.number("leeway_s", leeway_s, 0.0, LEEWAY_MAX_S)
        check.need(0 < len(keys) <= KEYS_MAX, "keys", f"{len(keys)} keys that sign tokens; 1 to {KEYS_MAX} are needed")
        names = [(key.algorithm, key.kid) for key in keys]
        check.need(len(set(names)) == len(names), "keys", "two keys have the same kid")
        check.done()
        self._keys = tuple(keys)
        self.issuer = issuer
        self.audience = audience
        self.leeway_s = leeway_s
        self.needs_exp = needs_exp

    def __repr__(self) -> str:
        return f"TokenKeys({', '.join(f'{key.algorithm} {key.kid or chr(45)}' for key in self._keys)})"

    @classmethod
    def of_secret(cls, secret: str | bytes, **wanted: Any) -> Self:
        """HS256 with one secret of at least 32 bytes.

        Raises:  BadSettings.
        """
        return cls([_secret_key(secret, None)], **wanted)

    @classmethod
    def of_pem(cls, text: str, **wanted: Any) -> Self:
        """RS256 or EdDSA with one public key, as PEM.

        Raises:  BadSettings.
        """
        if "PRIVATE KEY" in text:
            raise _bad("this is a private key; whoever checks tokens needs the public one only")
        algorithms = _algorithms()
        for name, algorithm in (("RS256", _rs256(algorithms)), ("EdDSA", algorithms.OKPAlgorithm())):
            try:
                key = algorithm.prepare_key(text)
            except Exception:  # noqa: BLE001, S112 - whatever it raises, it is no key of this kind
                continue
            return cls([_public_key(name, None, algorithm, key)], **wanted)
        raise _bad("this is no public key for RS256 or EdDSA in PEM")

    @classmethod
    def of_jwks(cls, text: str, **wanted: Any) -> Self:
        """The keys of a JWKS file, told apart by `kid`. Keys for anything else than signing with our algorithms are passed over.

        Raises:  BadSettings.
        """
        if len(text) > JWKS_BYTES_MAX:
            raise _bad(f"a key set of {len(text)} characters; at most {JWKS_BYTES_MAX} are read")
        try:
            stated = parse_json(text.encode(errors="surrogatepass"))
        except RemoteWireError as problem:
            raise _bad(f"the key set is no JSON: {problem}") from problem
        listed = stated.get("keys") if isinstance(stated, dict) else None
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise _bad("a key set is an object with a list of keys")
        found = (_jwk(each) for each in listed[: 10 * KEYS_MAX])
        return cls([key for key in found if key is not None], **wanted)

    def check(self, token: str, now: Wall) -> Grant | Unauthorized:
        """What a token grants, or why nothing."""
        if len(token) > TOKEN_BYTES_MAX:
            return _no(f"it has {len(token)} bytes; at most {TOKEN_BYTES_MAX} are read")
        found = _TOKEN.fullmatch(token)
        if found is None:
            return _no("it is not three parts of base64url with dots between")
        try:
            header = _header(found[1])
            key = self._key_for(header)
            if isinstance(key, Unauthorized):
                return key
            if not key.verify(token[: found.end(2)].encode(), _base64(found[3])):
                return _no("its signature is wrong: another key made it, or it was changed")
            claims = parse_json(_base64(found[2]))
            return self._granted(claims, now)
        except RemoteWireError as problem:
            return _no(str(problem))

    def _key_for(self, header: object) -> _Key | Unauthorized:
        if not isinstance(header, dict):
            return _no("its header is no JSON object")
        algorithm, kid = header.get("alg"), header.get("kid")
        known = _ALGORITHMS.get(algorithm) if isinstance(algorithm, str) else None
        if known is None:
            return _no(f"its algorithm {str(algorithm)[:20]!r} is none of {', '.join(_ALGORITHMS)}")
        if "crit" in header:
            return _no("it has critical headers, which nobody here understands")
        if kid is not None and not isinstance(kid, str):
            return _no("its kid is not text")
        keys = [key for key in self._keys if key.algorithm == known]
        if not keys:
            return _no(f"no key here checks {known}")
        if len(keys) == 1 and (keys[0].kid is None or kid is None):
            return keys[0]
        if kid is None:
            return _no(f"it does not say by kid which of {len(keys)} keys made it")
        return next((key for key in keys if key.kid == kid), None) or _no(f"no key here has its kid {kid[:60]!r}")

    def _granted(self, claims: object, now: Wall) -> Grant | Unauthorized:
        if not isinstance(claims, dict):
            return _no("its claims are no JSON object")
        exp, nbf = _instant(claims, "exp"), _instant(claims, "nbf")
        if exp is None and self.needs_exp:
            return _no("it has no exp, and would be good for ever")
        if exp is not None and now >= exp + self.leeway_s:
            return Unauthorized("expired", f"the token ran out {now - exp:.0f} s ago; get a new one")
        if nbf is not None and now + self.leeway_s < nbf:
            return _no(f"it is good in {nbf - now:.0f} s only; are the clocks right?")
        if self.issuer is not None and claims.get("iss") != self.issuer:
            return _no(f"it is not from the issuer {self.issuer!r}")
        problem = self._wrong_audience(claims.get("aud"))
        if problem is not None:
            return problem
        until = None if exp is None else Wall(exp + self.leeway_s)
        return _grant(claims, until)

    def _wrong_audience(self, stated: object) -> Unauthorized | None:
        named = [stated] if isinstance(stated, str) else stated
        if self.audience is not None:
            is_named = isinstance(named, list) and self.audience in named
            return None if is_named else _no(f"it is not for the audience {self.audience!r}")
        # Who is no audience must not take what has one: RFC 7519, section 4.1.3.
        return (
            None if named is None or named == [] else _no("it is for an audience, and this gateway is set up as none")
        )


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
    issuer: str = "",
    audience: str = "",
) -> str:
    """A token of HS256, for trying things out.

    Raises:  BadSettings for a secret that is too short.
    """
    allowed: dict[str, object] = {"sub": list(subscribe), "pub": list(publish), "presence": list(presence)}
    if operate:
        allowed["operate"] = True
    head = _text64(write_json({"alg": "HS256", "typ": "JWT"}))
    claims = {"sub": subject, "nbf": int(now), "exp": int(now + lives_s), "budao": allowed}
    named = {"iss": issuer} if issuer else {}
    named |= {"aud": audience} if audience else {}
    body = _text64(write_json({**named, **claims}))
    signed = f"{head}.{body}"
    return f"{signed}.{_text64(hmac.digest(_secret(secret), signed.encode(), 'sha256'))}"


# ----------------------------------------------------------------------------------------------------- keys


def _secret(secret: str | bytes) -> bytes:
    try:
        raw = secret.encode() if isinstance(secret, str) else bytes(secret)
    except UnicodeEncodeError as problem:
        raise _bad("the secret holds half a surrogate pair") from problem
    if b"-----BEGIN" in raw or raw.startswith((b"ssh-rsa", b"ssh-ed25519")):
        raise _bad("the secret looks like a key file; a public key is no secret")
    if len(raw) < SECRET_BYTES_MIN:
        raise _bad(f"a secret of {len(raw)} bytes; HS256 needs {SECRET_BYTES_MIN} or more, from a random source")
    return raw


def _secret_key(secret: str | bytes, kid: str | None) -> _Key:
    raw = _secret(secret)

    def verify(signed: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(raw, signed, "sha256"), signature)

    return _Key("HS256", kid, verify)


def _public_key(name: str, kid: str | None, algorithm: Any, key: Any) -> _Key:
    if name == "RS256" and key.key_size < RSA_BITS_MIN:
        raise _bad(f"an RSA key of {key.key_size} bits; {RSA_BITS_MIN} or more are needed")
    if name == "EdDSA" and type(key).__name__.find("25519") < 0:
        raise _bad("of EdDSA, Ed25519 is checked only")

    def verify(signed: bytes, signature: bytes) -> bool:
        return bool(algorithm.verify(signed, key, signature))

    return _Key(name, kid, verify)


def _jwk(stated: Mapping[str, Any]) -> _Key | None:
    """A key of a set; None for one that signs no tokens of ours."""
    kind, kid, use, named = (stated.get(name) for name in ("kty", "kid", "use", "alg"))
    wanted = {"oct": "HS256", "RSA": "RS256", "OKP": "EdDSA"}.get(kind) if isinstance(kind, str) else None
    if wanted is None or (kind == "OKP" and stated.get("crv") != "Ed25519"):
        return None
    if use is not None and use != "sig":
        return None
    if named is not None and (not isinstance(named, str) or _ALGORITHMS.get(named) != wanted):
        return None
    if kid is not None and not isinstance(kid, str):
        raise _bad("the kid of a key is not text")
    if kind == "oct":
        written = stated.get("k")
        if not isinstance(written, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", written):
            raise _bad(f"the key {kid!r} has no secret in base64url")
        try:
            secret = _base64(written)
        except RemoteWireError:
            raise _bad(f"the secret of the key {kid!r} is cut off: so many characters are no base64url") from None
        return _secret_key(secret, kid)
    if _PRIVATE & set(stated):
        raise _bad(f"the key {kid!r} is a private one; whoever checks tokens needs the public one only")
    algorithms = _algorithms()
    algorithm = _rs256(algorithms) if kind == "RSA" else algorithms.OKPAlgorithm()
    try:
        key = algorithm.from_jwk(dict(stated))
    except Exception as problem:
        raise _bad(f"the key {kid!r} cannot be read: {str(problem)[:100]}") from problem
    return _public_key(wanted, kid, algorithm, key)


def _algorithms() -> ModuleType:
    try:
        import cryptography.exceptions  # noqa: F401 - without it PyJWT has no public keys
        from jwt import algorithms
    except ImportError as missing:
        raise _bad("public keys need PyJWT with cryptography: pip install 'budao[push]'") from missing
    found: ModuleType = algorithms
    return found


def _rs256(algorithms: ModuleType) -> Any:
    return algorithms.RSAAlgorithm(algorithms.RSAAlgorithm.SHA256)


# --------------------------------------------------------------------------------------------------- claims


@lru_cache(maxsize=64)
def _header(text: str) -> Any:
    # All tokens of one key have the same header. Nobody changes what is kept here.
    return parse_json(_base64(text))


def _grant(claims: Mapping[str, Any], until: Wall | None) -> Grant:
    subject = claims.get("sub", "")
    if not isinstance(subject, str) or len(subject) > SUBJECT_CHARACTERS_MAX:
        raise RemoteWireError(f"its sub is not text of at most {SUBJECT_CHARACTERS_MAX} characters")
    allowed = claims.get("budao", {})
    if not isinstance(allowed, dict):
        raise RemoteWireError("its claim budao is no object")
    operate = allowed.get("operate", False)
    if not isinstance(operate, bool):
        raise RemoteWireError("its claim budao.operate is neither true nor false")
    return Grant.of(
        subject=subject,
        subscribe=_patterns(allowed, "sub"),
        publish=_patterns(allowed, "pub"),
        presence=_patterns(allowed, "presence"),
        operate=operate,
        until=until,
    )


def _patterns(allowed: Mapping[str, Any], name: str) -> list[object]:
    patterns = allowed.get(name, [])
    if not isinstance(patterns, list):
        raise RemoteWireError(f"its claim budao.{name} is no list of patterns")
    return patterns


def _instant(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise RemoteWireError(f"its {name} is no number of seconds")
    return float(value)


def _base64(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as problem:
        raise RemoteWireError("one of its parts is not base64url") from problem


def _text64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _no(happened: str) -> Unauthorized:
    return Unauthorized("unauthorized", f"the token is no good: {happened}")


def _bad(problem: str) -> BadSettings:
    return BadSettings([("token", problem)])
