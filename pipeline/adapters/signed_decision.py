"""Decisions that people sign with an SSH key on their own machine.

The statement is canonical JSON that names everything it is about; ``ssh-keygen -Y sign -n gatehouse-decision`` signs
it; the installation's allowed-signers file (ssh-keygen(1)) says whose keys count. Lines must name people, not patterns.
https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.domain.canonical import canonical, digest_bytes, digest_json
from pipeline.errors import ApprovalInvalid, UsageError

if TYPE_CHECKING:
    from sshsig.allowed_signers import AllowedSigner
    from sshsig.ssh_public_key import PublicKey

FORMAT = "gatehouse-decision-1"
NAMESPACE = "gatehouse-decision"
VALID_FOR = timedelta(days=7)
CLOCKS_DIFFER = timedelta(minutes=5)
_KEYS = frozenset({"format", "decision", "subject", "subject_digest", "reason", "actor", "at"})


@dataclass(frozen=True, slots=True)
class SignedDecision:
    """What was signed, and by what it is believed: the statement's digest and the key's fingerprint."""

    decision: str
    subject: Mapping[str, Any]
    subject_digest: str
    reason: str
    actor: str
    proof: Mapping[str, str]


def statement(subject: Mapping[str, Any], *, decision: str, reason: str, actor: str, at: str) -> bytes:
    """What `actor` is to sign, as canonical JSON."""
    body = {
        "format": FORMAT,
        "decision": decision,
        "subject": dict(subject),
        "subject_digest": digest_json(dict(subject)),
        "reason": reason,
        "actor": actor,
        "at": at,
    }
    return canonical(body)


def read(path: Path, signature: Path, allowed_signers: Path, now: datetime) -> SignedDecision:
    """A statement that its author signed.

    Args:
        path, signature: the statement, and what ``ssh-keygen -Y sign`` wrote beside it.
        allowed_signers: OpenSSH's file; its lines name people, and may be limited in time and to this namespace.
        now: the time, aware.

    Raises:
        ApprovalInvalid: it is not to be believed.
        UsageError: a file cannot be read.
    """
    data = _bytes(path, "the statement")
    key = _signed_by(data, _bytes(signature, "the signature"), str(signature))
    found = _parse(data, str(path))
    if not any(_is_for(line, key, found.actor, now) for line in _lines(allowed_signers)):
        raise ApprovalInvalid(
            f"{key.sha256_str()} is no key of {found.actor}",
            where=str(allowed_signers),
            fix="sign with your own key; operators keep the list of allowed signers",
        )
    body = json.loads(data)
    _in_time(str(body["at"]), now, str(path))
    proof = {"statement": digest_bytes(data), "key": key.sha256_str()}
    return SignedDecision(found.decision, found.subject, found.subject_digest, found.reason, found.actor, proof)


def _signed_by(data: bytes, armored: bytes, where: str) -> PublicKey:
    from sshsig.sshsig import InvalidSignature, check_signature

    try:
        return check_signature(data, armored, NAMESPACE)
    except (InvalidSignature, NotImplementedError, ValueError) as error:
        raise ApprovalInvalid(
            f"the signature does not hold: {error or type(error).__name__}",
            where=where,
            fix=f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY FILE (Ed25519 or RSA); do not edit the file after that",
        ) from error


def _parse(data: bytes, where: str) -> SignedDecision:
    try:
        body = json.loads(data)
        exact = canonical(body) == data
    except (ValueError, RecursionError):
        body, exact = None, False
    if not isinstance(body, dict) or body.get("format") != FORMAT or set(body) != _KEYS or not exact:
        raise ApprovalInvalid(
            "this is no statement of this version",
            where=where,
            fix="gatehouse gate statement writes one; sign it as it is",
        )
    texts = [body[name] for name in ("decision", "reason", "actor", "at")]
    if not all(isinstance(text, str) and text.strip() for text in texts) or not isinstance(body["subject"], dict):
        raise ApprovalInvalid("the statement lacks a decision, a reason, a name or a time", where=where)
    if body["subject_digest"] != digest_json(body["subject"]):
        raise ApprovalInvalid("the statement's digest is not that of its subject", where=where)
    return SignedDecision(
        body["decision"], body["subject"], body["subject_digest"], body["reason"].strip(), body["actor"], {}
    )


def _in_time(at: str, now: datetime, where: str) -> None:
    try:
        made = datetime.fromisoformat(at)
        late = made - now > CLOCKS_DIFFER
        old = now - made > VALID_FOR
    except (TypeError, ValueError):
        raise ApprovalInvalid(f"the statement's time is none: {at!r:.40}", where=where) from None
    if late or old:
        raise ApprovalInvalid(
            f"the statement is {'from the future' if late else f'older than {VALID_FOR.days} days'}: {at}",
            where=where,
            fix="write and sign a new one",
        )


def _lines(path: Path) -> Iterator[AllowedSigner]:
    from sshsig.allowed_signers import AllowedSigner

    for number, line in enumerate(_bytes(path, "the allowed-signers file").decode(errors="replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            yield AllowedSigner.parse(line.strip())
        except (ValueError, IndexError, NotImplementedError) as error:
            raise UsageError(f"not a line of ssh-keygen's format: {error}", where=f"{path} line {number}") from error


def _is_for(line: AllowedSigner, key: PublicKey, actor: str, now: datetime) -> bool:
    from sshsig.ssh_public_key import PublicKey

    options = line.options or {}
    names = [name.strip().casefold() for name in line.principals.split(",")]
    if "cert-authority" in options or actor.casefold() not in names:
        return False
    if "namespaces" in options and NAMESPACE not in options["namespaces"].split(","):
        return False
    if not _valid(options, now):
        return False
    try:
        return bool(PublicKey.from_openssh_str(f"{line.key_type} {line.base64_key}") == key)
    except (ValueError, NotImplementedError):
        return False


def _valid(options: Mapping[str, str], now: datetime) -> bool:
    after, before = options.get("valid-after"), options.get("valid-before")
    return (after is None or _moment(after) <= now) and (before is None or now < _moment(before))


def _moment(text: str) -> datetime:
    """ssh-keygen's times: YYYYMMDD[HHMM[SS]], with a Z in UTC, without one in the machine's own zone."""
    digits = text.removesuffix("Z")
    form = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits), "")
    try:
        found = datetime.strptime(digits, form)  # noqa: DTZ007  # the zone follows
    except ValueError as error:
        raise UsageError(f"'{text}' is no time", where="allowed signers", fix="20261231, or 202612311800Z") from error
    return found.replace(tzinfo=UTC) if text.endswith("Z") else found.astimezone()


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror}", where=str(path)) from error
