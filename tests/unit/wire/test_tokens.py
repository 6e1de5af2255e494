from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, Wall
from budao.push import Grant
from budao.wire.tokens import TOKEN_BYTES_MAX, TokenKeys, Unauthorized, sign_development_token

SECRET = "a secret that is long enough for HS256"
NOW = Wall(1_000_000.0)
CLAIMS: dict[str, Any] = {"sub": "anna", "exp": 1_000_100, "budao": {"sub": ["room:*"], "pub": ["room:1"]}}
GRANT = Grant(subject="anna", subscribe=("room:*",), publish=("room:1",), until=Wall(1_000_130.0))


def text64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: object, claims: object, key: bytes = SECRET.encode()) -> str:
    signed = f"{text64(json.dumps(header).encode())}.{text64(json.dumps(claims).encode())}"
    return f"{signed}.{text64(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def hs256(claims: object = CLAIMS, **header: object) -> str:
    return forged({"alg": "HS256", "typ": "JWT", **header}, claims)


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    public = key.public_key()
    raw: bytes = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return raw.decode()


def jwk(key: Any, **more: object) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.OKPAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **more}


def said(found: Grant | Unauthorized) -> str:
    assert isinstance(found, Unauthorized)
    return found.happened


def test_a_secret_opens_what_it_signed() -> None:
    keys = TokenKeys.of_secret(SECRET)
    assert keys.check(hs256(), NOW) == GRANT
    assert keys.check(jwt.encode(CLAIMS, SECRET, algorithm="HS256"), NOW) == GRANT
    assert SECRET not in repr(keys)


@pytest.mark.parametrize(("key", "algorithm"), [(rsa_key, "RS256"), (ed_key, "EdDSA")])
def test_a_public_key_opens_what_its_private_one_signed(key: Any, algorithm: str) -> None:
    keys = TokenKeys.of_pem(pem(key()))
    token = jwt.encode(CLAIMS, key(), algorithm=algorithm)
    assert keys.check(token, NOW) == GRANT
    assert "signature" in said(keys.check(token[:-8] + "AAAAAAAA", NOW))


def test_a_key_checks_its_own_algorithm_only_whatever_the_token_says() -> None:
    of_rsa, of_ed, of_secret = (
        TokenKeys.of_pem(pem(rsa_key())),
        TokenKeys.of_pem(pem(ed_key())),
        TokenKeys.of_secret(SECRET),
    )
    # The old trick: the public key, which everybody has, as the secret of HS256.
    for confused in (pem(rsa_key()).encode(), pem(rsa_key()).strip().encode(), b""):
        assert "no key here checks HS256" in said(of_rsa.check(forged({"alg": "HS256"}, CLAIMS, confused or b"x"), NOW))
    assert "no key here checks RS256" in said(of_ed.check(jwt.encode(CLAIMS, rsa_key(), algorithm="RS256"), NOW))
    assert "no key here checks EdDSA" in said(of_secret.check(jwt.encode(CLAIMS, ed_key(), algorithm="EdDSA"), NOW))
    for algorithm in ["none", "None", "NONE", "", None, 7, ["HS256"], "HS512", "RS512", "PS256", "ES256"]:
        for keys in (of_rsa, of_ed, of_secret):
            assert "is none of" in said(keys.check(forged({"alg": algorithm}, CLAIMS), NOW))


def test_a_token_without_a_signature_is_none() -> None:
    keys = TokenKeys.of_secret(SECRET)
    head, body, _ = hs256().split(".")
    for token in (
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{text64(b'{}')}.{body}.",
        jwt.encode(CLAIMS, None, algorithm="none"),
    ):
        assert isinstance(keys.check(token, NOW), Unauthorized)


@pytest.mark.parametrize(
    ("claims", "why", "happened"),
    [
        ({**CLAIMS, "exp": 999_970}, "expired", "ran out 30 s ago"),
        ({**CLAIMS, "nbf": 1_000_031}, "unauthorized", "good in 31 s"),
        ({"sub": "a"}, "unauthorized", "no exp"),
        ({**CLAIMS, "exp": "soon"}, "unauthorized", "exp is no number"),
        ({**CLAIMS, "exp": True}, "unauthorized", "exp is no number"),
        ({**CLAIMS, "sub": 7}, "unauthorized", "sub is not text"),
        ({**CLAIMS, "aud": "other"}, "unauthorized", "for an audience"),
        ({**CLAIMS, "budao": []}, "unauthorized", "budao is no object"),
        ({**CLAIMS, "budao": {"sub": "room:*"}}, "unauthorized", "no list"),
        ({**CLAIMS, "budao": {"sub": ["a*b"]}}, "unauthorized", "'*' before the end"),
        ({**CLAIMS, "budao": {"sub": [["a"]]}}, "unauthorized", "is text"),
        ({**CLAIMS, "budao": {"pub": [str(n) for n in range(65)]}}, "unauthorized", "65 patterns"),
        ({**CLAIMS, "budao": {"operate": "yes"}}, "unauthorized", "neither true nor false"),
        ([], "unauthorized", "no JSON object"),
        (float("nan"), "unauthorized", "NaN"),
    ],
)
def test_claims_that_are_wrong_open_nothing(claims: object, why: str, happened: str) -> None:
    found = TokenKeys.of_secret(SECRET).check(hs256(claims), NOW)
    assert isinstance(found, Unauthorized)
    assert found.why == why
    assert happened in found.happened


def test_clocks_may_differ_by_the_leeway() -> None:
    keys = TokenKeys.of_secret(SECRET, leeway_s=10.0)
    assert isinstance(keys.check(hs256({**CLAIMS, "exp": 999_991}), NOW), Grant)
    assert isinstance(keys.check(hs256({**CLAIMS, "exp": 999_990}), NOW), Unauthorized)
    assert isinstance(keys.check(hs256({**CLAIMS, "nbf": 1_000_010}), NOW), Grant)
    assert isinstance(keys.check(hs256({**CLAIMS, "nbf": 1_000_011}), NOW), Unauthorized)


def test_a_token_without_an_end_opens_only_where_that_is_allowed() -> None:
    found = TokenKeys.of_secret(SECRET, needs_exp=False).check(hs256({"sub": "a"}), NOW)
    assert found == Grant(subject="a")


def test_issuer_and_audience_must_be_the_ones_that_are_set() -> None:
    keys = TokenKeys.of_secret(SECRET, issuer="me", audience="budao")
    good = {**CLAIMS, "iss": "me", "aud": ["x", "budao"]}
    assert keys.check(hs256(good), NOW) == GRANT
    assert keys.check(hs256({**good, "aud": "budao"}), NOW) == GRANT
    assert "issuer" in said(keys.check(hs256({**good, "iss": "you"}), NOW))
    for wrong in (None, "x", ["x"], 7, {"budao": 1}):
        assert "audience" in said(keys.check(hs256({**good, "aud": wrong}), NOW))


def test_headers_that_nobody_understands_open_nothing() -> None:
    keys = TokenKeys.of_secret(SECRET)
    assert "critical" in said(keys.check(hs256(crit=["b64"], b64=False), NOW))
    assert "kid is not text" in said(keys.check(hs256(kid=7), NOW))
    assert "no JSON object" in said(keys.check(forged([], CLAIMS), NOW))


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "a b.c.d", "é.a.b", "\ud800.a.b", "a" * (TOKEN_BYTES_MAX + 1)]
)
def test_what_is_no_token_is_told_in_few_words(token: str) -> None:
    assert len(said(TokenKeys.of_secret(SECRET).check(token, NOW))) < 300


@given(
    token=st.text(max_size=50)
    | st.from_regex(r"[A-Za-z0-9_-]{1,20}\.[A-Za-z0-9_-]{1,20}\.[A-Za-z0-9_-]{1,20}", fullmatch=True)
)
def test_no_text_does_more_than_being_refused(token: str) -> None:
    assert isinstance(TokenKeys.of_secret(SECRET).check(token, NOW), Unauthorized)


def test_a_key_set_tells_its_keys_apart() -> None:
    text = json.dumps(
        {"keys": [jwk(rsa_key(), kid="r"), jwk(ed_key(), kid="e1"), {"kty": "oct", "kid": "o", "k": text64(SECRET.encode())},
                  {"kty": "EC", "kid": "ec"}, jwk(ed_key(), kid="e3", use=["sig"]), jwk(rsa_key(), kid="enc", use="enc"), jwk(rsa_key(), kid="512", alg="RS512")]}
    )  # fmt: skip
    keys = TokenKeys.of_jwks(text)
    for key, algorithm, kid in ((rsa_key(), "RS256", "r"), (ed_key(), "EdDSA", "e1"), (SECRET, "HS256", "o")):
        assert keys.check(jwt.encode(CLAIMS, key, algorithm=algorithm, headers={"kid": kid}), NOW) == GRANT
        assert keys.check(jwt.encode(CLAIMS, key, algorithm=algorithm), NOW) == GRANT
        wrong = jwt.encode(CLAIMS, key, algorithm=algorithm, headers={"kid": "enc"})
        assert "kid 'enc'" in said(keys.check(wrong, NOW))


def test_of_several_keys_of_one_kind_the_token_must_name_one() -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    keys = TokenKeys.of_jwks(json.dumps({"keys": [jwk(ed_key(), kid="1"), jwk(other, kid="2")]}))
    assert "does not say by kid" in said(keys.check(jwt.encode(CLAIMS, ed_key(), algorithm="EdDSA"), NOW))
    assert keys.check(jwt.encode(CLAIMS, other, algorithm="EdDSA", headers={"kid": "2"}), NOW) == GRANT
    assert "signature" in said(keys.check(jwt.encode(CLAIMS, other, algorithm="EdDSA", headers={"kid": "1"}), NOW))


def private_pem(key: Any) -> str:
    raw: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return raw.decode()


def test_keys_that_should_not_be_used_are_refused_when_they_are_read() -> None:
    for make in (
        lambda: TokenKeys.of_secret("short"),
        lambda: TokenKeys.of_secret(pem(rsa_key())),
        lambda: TokenKeys.of_secret("\ud800" * 40),
        lambda: TokenKeys.of_pem("no key"),
        lambda: TokenKeys.of_pem(private_pem(rsa_key())),
        lambda: TokenKeys.of_pem(pem(rsa_key(1024))),
        lambda: TokenKeys.of_pem(pem(ed448.Ed448PrivateKey.generate())),
        lambda: TokenKeys.of_jwks("{"),
        lambda: TokenKeys.of_jwks("\ud800"),
        lambda: TokenKeys.of_jwks("[]"),
        lambda: TokenKeys.of_jwks('{"keys":[]}'),
        lambda: TokenKeys.of_jwks('{"keys":[7]}'),
        lambda: TokenKeys.of_jwks('{"keys":[{"kty":"RSA","n":"x"}]}'),
        lambda: TokenKeys.of_jwks('{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}'),
        lambda: TokenKeys.of_jwks('{"keys":[{"kty":"oct"}]}'),
        lambda: TokenKeys.of_jwks('{"keys":[{"kty":"oct","k":"' + "a" * 49 + '"}]}'),
        lambda: TokenKeys.of_jwks(json.dumps({"keys": [jwk(ed_key(), d="x")]})),
        lambda: TokenKeys.of_jwks(json.dumps({"keys": [jwk(ed_key(), kid="a"), jwk(ed_key(), kid="a")]})),
        lambda: TokenKeys.of_jwks(json.dumps({"keys": [jwk(ed_key(), kid=7)]})),
        lambda: TokenKeys.of_jwks(" " * 2_000_000),
        lambda: TokenKeys.of_secret(SECRET, leeway_s=-1.0),
    ):
        with pytest.raises(BadSettings, match="token"):
            make()


def test_a_token_for_trying_things_out_opens_everything_said_for_a_day() -> None:
    token = sign_development_token(SECRET, subject="dev", publish=["room:*"], operate=True, now=NOW)
    found = TokenKeys.of_secret(SECRET).check(token, NOW)
    assert found == Grant(
        subject="dev",
        subscribe=("**",),
        publish=("room:*",),
        presence=("**",),
        operate=True,
        until=Wall(NOW + 86_430.0),
    )
    assert (
        jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_nbf": False})["sub"]
        == "dev"
    )
    with pytest.raises(BadSettings):
        sign_development_token("short", subject="dev", now=NOW)
