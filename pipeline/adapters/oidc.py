"""Tokens of an OpenID Connect provider: who holds one, checked with the provider's public keys.

The token itself is a secret of the person: it stands in no message, no log and no record; its digest does.
https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.domain.canonical import digest_bytes
from pipeline.errors import ApprovalInvalid, Unreachable, UsageError

# Signed with the provider's private key. A shared secret would let everybody who can verify also sign.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
TIMEOUT_SECONDS = 5.0
CLOCKS_DIFFER_SECONDS = 30


@dataclass(frozen=True, slots=True)
class OidcRules:
    """Whose tokens are believed: issuer and audience, the provider's keys (JWKS), which claim names the user."""

    issuer: str
    audience: str
    keys_file: Path | None
    keys_url: str | None
    user_claim: str
    max_age_seconds: int


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, and what proves it: issuer, digest of the token, when it was issued."""

    user: str
    proof: Mapping[str, str]


def identify(token: str, rules: OidcRules, now: datetime) -> Identity:
    """The user of a token.

    Args:
        token: the encoded token.
        rules: what is believed.
        now: the time, aware.

    Raises:
        ApprovalInvalid: the token is not to be believed; says which claim, never the token.
        UsageError: the provider's keys cannot be read.
        Unreachable: the provider does not answer.
    """
    import jwt

    try:
        header = jwt.get_unverified_header(token)
        key = _key(header, rules)
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[header["alg"]],
            audience=rules.audience,
            issuer=rules.issuer,
            options={
                "require": ["exp", "iat", "iss", "aud"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except jwt.PyJWTError as error:
        # What the library says names the claim and holds nothing of the token.
        raise _refused(f"{error}") from None
    user = claims.get(rules.user_claim)
    if not isinstance(user, str) or not user.strip():
        raise _refused(f"it names nobody in the claim '{rules.user_claim}'")
    issued = _in_time(claims, rules, now)
    return Identity(user, {"issuer": rules.issuer, "token": digest_bytes(token.encode()), "issued": issued.isoformat()})


def _in_time(claims: Mapping[str, Any], rules: OidcRules, now: datetime) -> datetime:
    try:
        times = {name: float(claims[name]) for name in ("exp", "iat", "nbf") if name in claims}
    except (TypeError, ValueError):
        raise _refused("its times are no numbers") from None
    moment = now.timestamp()
    if times["exp"] <= moment:
        raise _refused("it has expired (exp)")
    if max(times["iat"], times.get("nbf", 0.0)) > moment + CLOCKS_DIFFER_SECONDS:
        raise _refused("it is from the future (iat, nbf)")
    if moment - times["iat"] > rules.max_age_seconds:
        raise _refused(f"it was issued more than {rules.max_age_seconds} s ago (iat)")
    return datetime.fromtimestamp(times["iat"], UTC)


def _key(header: Mapping[str, Any], rules: OidcRules) -> Any:
    import jwt

    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise _refused(f"it is signed with {algorithm!s:.20}, which proves nothing here")
    try:
        keys = jwt.PyJWKSet.from_dict(_published(rules)).keys
    except jwt.PyJWTError as error:
        raise UsageError(f"the provider's keys cannot be used: {error}", where=_where(rules)) from error
    found = [key for key in keys if key.key_id == header.get("kid")]
    if len(found) != 1 or header.get("kid") is None:
        raise _refused("its key (kid) is not one of the provider's")
    if found[0].algorithm_name != algorithm:
        raise _refused(f"it is signed with {algorithm}, and the provider's key is for {found[0].algorithm_name}")
    return found[0].key


def _published(rules: OidcRules) -> dict[str, Any]:
    try:
        text = rules.keys_file.read_text(encoding="utf-8") if rules.keys_file else _asked(str(rules.keys_url))
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the provider's keys cannot be read: {error}", where=_where(rules), fix="a JSON Web Key Set (RFC 7517)"
        ) from error
    if not isinstance(found, dict):
        raise UsageError("the keys are no JSON Web Key Set", where=_where(rules))
    return found


def _asked(url: str) -> str:
    import requests

    where = urlsplit(url)
    if where.scheme != "https" and where.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise UsageError("keys are fetched over https only", where=f"settings: oidc.keys_url ({url})")
    try:
        # Another host was not configured: it is not asked, whatever the provider answers.
        answer = requests.get(url, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise Unreachable(f"the identity provider does not answer: {type(error).__name__}", where=url) from error
    if answer.status_code != requests.codes.ok:
        raise Unreachable(f"the identity provider answers {answer.status_code}", where=url)
    return answer.text


def _where(rules: OidcRules) -> str:
    return f"settings: oidc ({rules.keys_file or rules.keys_url})"


def _refused(why: str) -> ApprovalInvalid:
    return ApprovalInvalid(
        f"the token is not believed: {why}", where="--token-file", fix="sign in again and take a new token"
    )
