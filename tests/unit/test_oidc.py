"""Tokens: believed only from the configured provider, for us, now, and never shown."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pipeline.adapters.oidc import OidcRules, identify
from pipeline.errors import ApprovalInvalid, Unreachable, UsageError

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ISSUER = "https://id.corp.example/realms/ml"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def jwk(key, kid, algorithm):
    kind = jwt.algorithms.RSAAlgorithm if algorithm.startswith("RS") else jwt.algorithms.ECAlgorithm
    return json.loads(kind.to_jwk(key.public_key())) | {"kid": kid, "alg": algorithm, "use": "sig"}


@pytest.fixture
def rules(tmp_path):
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [jwk(RSA, "r", "RS256"), jwk(EC, "e", "ES256")]}))
    return OidcRules(ISSUER, "gatehouse", file, None, "preferred_username", 600)


def claims(**changes):
    at = int(NOW.timestamp())
    body = {"iss": ISSUER, "aud": "gatehouse", "iat": at - 5, "exp": at + 300, "preferred_username": "grace"}
    return {key: value for key, value in (body | changes).items() if value is not None}


def token(key=RSA, algorithm="RS256", kid="r", **changes):
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid} if kid else {})


def unsigned(header):
    parts = (json.dumps(part).encode() for part in ({"kid": "r"} | header, claims()))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def hmac_with_the_public_key():
    import hashlib
    import hmac

    head = unsigned({"alg": "HS256", "typ": "JWT"}).rstrip(".")
    made = hmac.new(PEM, head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e")])
def test_a_token_of_the_provider_says_who_holds_it_and_its_digest_is_the_proof(rules, key, algorithm, kid):
    text = token(key, algorithm, kid)
    found = identify(text, rules, NOW)
    assert found.user == "grace"
    assert found.proof["token"] == identify(text, rules, NOW + timedelta(seconds=9)).proof["token"]
    assert text not in str(found)


BAD = {
    "another issuer": lambda: token(iss="https://evil.example"),
    "another audience": lambda: token(aud="somebody-else"),
    "expired": lambda: token(exp=int(NOW.timestamp()) - 1),
    "too old": lambda: token(iat=int(NOW.timestamp()) - 601),
    "from the future": lambda: token(iat=int(NOW.timestamp()) + 3600, exp=int(NOW.timestamp()) + 9999),
    "not yet": lambda: token(nbf=int(NOW.timestamp()) + 3600),
    "without an end": lambda: token(exp=None),
    "without a beginning": lambda: token(iat=None),
    "of nobody": lambda: token(preferred_username=None),
    "of a number": lambda: token(preferred_username=7),
    "an unknown key": lambda: token(kid="x"),
    "no key named": lambda: token(kid=None),
    "another key of that name": lambda: token(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "the key of another algorithm": lambda: token(EC, "ES256", "r"),
    "signed by nobody": lambda: unsigned({"alg": "none"}),
    "signed with the public key as a password": hmac_with_the_public_key,
    "no token at all": lambda: "grace",
    "empty": lambda: "",
}


@pytest.mark.parametrize("made", BAD.values(), ids=BAD)
def test_what_is_not_to_be_believed_is_refused_and_not_shown(rules, made):
    text = made()
    with pytest.raises(ApprovalInvalid) as refused:
        identify(text, rules, NOW)
    shown = f"{refused.value.what} {refused.value.where} {refused.value.fix}"
    assert not any(part in shown for part in text.split(".") if len(part) > 10)


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"keys": []}', '{"keys": [{"kty": "RSA"}]}'])
def test_keys_that_cannot_be_used_are_a_mistake_in_the_settings(rules, content):
    if content is None:
        rules.keys_file.unlink()
    else:
        rules.keys_file.write_text(content)
    with pytest.raises(UsageError, match="keys"):
        identify(token(), rules, NOW)


def test_keys_are_fetched_over_https_only_and_a_provider_that_is_down_is_unreachable(rules):
    def asking(url):
        return OidcRules(ISSUER, "gatehouse", None, url, "preferred_username", 600)

    with pytest.raises(UsageError, match="https only"):
        identify(token(), asking("http://id.corp.example/keys"), NOW)
    with pytest.raises(Unreachable):
        identify(token(), asking("http://127.0.0.1:9/keys"), NOW)
