"""Signatures of package folders by OpenSSF model-signing, with keys on disk, certificates, or PKCS#11; all offline.

A signature is a sigstore bundle: a signed list of every file's SHA-256. The verifier brings its own copies of the keys
that it trusts; nothing in the bundle says which key to believe. https://github.com/sigstore/model-transparency
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import IntegrityViolated, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from model_signing.hashing import Config

PKCS11 = "pkcs11:"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: a PEM file with an elliptic-curve key or a ``pkcs11:`` URI, and with it perhaps a certificate."""

    key: str
    password_file: Path | None = None
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


def sign(folder: Path, signer: Signer, scratch: Path) -> Mapping[str, Any]:
    """Sign every file of a package folder; answers the bundle.

    Args:
        folder: the package.
        signer: the key.
        scratch: an empty folder for the bundle's file.

    Raises:
        UsageError: the key cannot be used.
    """
    from model_signing import signing

    config = signing.Config().set_hashing_config(_every_file())
    out = scratch / "package.sig"
    try:
        if signer.key.startswith(PKCS11):
            if signer.certificate:
                config.use_pkcs11_certificate_signer(
                    pkcs11_uri=signer.key, signing_certificate=signer.certificate, certificate_chain=signer.chain
                )
            else:
                config.use_pkcs11_signer(pkcs11_uri=signer.key)
        elif signer.certificate:
            config.use_certificate_signer(
                private_key=Path(signer.key), signing_certificate=signer.certificate, certificate_chain=signer.chain
            )
        else:
            config.use_elliptic_key_signer(private_key=Path(signer.key), password=_password(signer))
        config.sign(folder, out)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise UsageError(
            f"the package cannot be signed: {error}",
            where=f"settings: signing.key ({signer.key.partition('?')[0]})",
            fix="an elliptic-curve private key in PEM, readable by this user, its password in key_password_file",
        ) from error
    bundle: Mapping[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return bundle


def verify(folder: Path, bundle: Mapping[str, Any] | None, trusted: Sequence[Path]) -> str:
    """Check that a trusted key signed exactly this folder; answers that key's id.

    Args:
        folder: the package: what lies in it, and nothing else, must be what was signed.
        bundle: the signature; None when there is none.
        trusted: the verifier's own copies of public keys, or of certificates of authorities.

    Raises:
        IntegrityViolated: it is not signed, not by a trusted key, or something in it differs.
        UsageError: a trusted key cannot be read.
    """
    if bundle is None:
        raise IntegrityViolated(
            "the package is not signed",
            where=str(folder),
            fix="the gate signs what it lets through: see signing.key in the settings of the approval's job",
        )
    tried = []
    for path in trusted:
        found = _try(folder, bundle, path)
        if found is None:
            return key_id(path)
        tried.append(f"{path.name}: {found}")
    raise IntegrityViolated(
        "the package's signature does not hold: " + "; ".join(tried),
        where=str(folder),
        fix="do not load it; see who signed it (gatehouse ledger show), and whether a key was rotated here",
    )


def _try(folder: Path, bundle: Mapping[str, Any], trusted: Path) -> str | None:
    """Why a key does not verify a bundle; None when it does."""
    import tempfile

    from model_signing import verifying

    kind = _kind(trusted)
    config = verifying.Config().set_hashing_config(_every_file())
    with tempfile.NamedTemporaryFile("w", suffix=".sig", encoding="utf-8") as file:
        json.dump(bundle, file)
        file.flush()
        try:
            if kind == "certificate":
                config.use_certificate_verifier(certificate_chain=[trusted])
            else:
                config.use_elliptic_key_verifier(public_key=trusted)
            config.verify(folder, Path(file.name))
        except Exception as error:  # noqa: BLE001  # the library and what it is built on raise dozens of kinds
            return str(error).splitlines()[0] if str(error) else f"not signed by this key ({type(error).__name__})"
    return None


def key_id(path: Path | Signer) -> str:
    """Id of a key: the SHA-256 of its public half (DER SubjectPublicKeyInfo), whether public, private or certificate.

    Raises:
        UsageError: there is no such key in the file.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.x509 import load_pem_x509_certificate

    if isinstance(path, Signer):
        if path.certificate:
            return key_id(path.certificate)
        if path.key.startswith(PKCS11):
            return "pkcs11:" + hashlib.sha256(path.key.partition("?")[0].encode()).hexdigest()
        return _id_of_private(path)
    data = _pem(path)
    if b"BEGIN CERTIFICATE" in data:
        public = load_pem_x509_certificate(data).public_key()
    else:
        public = serialization.load_pem_public_key(data)  # type: ignore[assignment]  # any kind has an id
    return _digest(public)  # type: ignore[arg-type]


def _id_of_private(signer: Signer) -> str:
    from cryptography.hazmat.primitives import serialization

    try:
        private = serialization.load_pem_private_key(_pem(Path(signer.key)), _password(signer))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"no private key can be read: {error}", where=f"settings: signing.key ({signer.key})"
        ) from error
    return _digest(private.public_key())  # type: ignore[arg-type]


def _digest(public: EllipticCurvePublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    data = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _kind(trusted: Path) -> str:
    data = _pem(trusted)
    if b"PRIVATE KEY" in data:
        raise UsageError("a verifier holds public keys only", where=str(trusted), fix="put the public half there")
    return "certificate" if b"BEGIN CERTIFICATE" in data else "key"


def _pem(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"a key cannot be read: {error.strerror}", where=f"settings: signing ({path})") from error
    if b"-----BEGIN " not in data:
        raise UsageError("this is no PEM file", where=f"settings: signing ({path})")
    return data


def _password(signer: Signer) -> Any:
    """Bytes, whatever model-signing 1.1 declares: it hands them to a library that takes no text."""
    if signer.password_file is None:
        return None
    try:
        return signer.password_file.read_bytes().strip()
    except OSError as error:
        where = f"settings: signing.key_password_file ({signer.password_file})"
        raise UsageError(f"the key's password cannot be read: {error.strerror}", where=where) from error


def _every_file() -> Config:
    """Hashing that leaves nothing out: by default the library passes over everything that is called .git."""
    from model_signing import hashing

    return hashing.Config().use_file_serialization().set_ignored_paths(paths=[], ignore_git_paths=False)
