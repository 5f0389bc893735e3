"""Signatures of package folders by OpenSSF model-signing, with keys on disk, certificates, or PKCS#11; all offline.

A signature is a sigstore bundle: a signed list of every file's SHA-256. The verifier brings its own copies of the keys
that it trusts; nothing in the bundle says which key to believe. https://github.com/sigstore/model-transparency

The library lets a signature say which files it passes over, and by default passes over what is called ``.git``. Here
a signature covers every file or it is none, so that the list it signs is the package digest in other words.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.domain.canonical import digest_json
from pipeline.errors import IntegrityViolated, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from model_signing.hashing import Config
    from model_signing.signing import Config as Signing

PKCS11 = "pkcs11:"
_KEY, _CERTIFICATE = "publicKey", "x509CertificateChain"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: a PEM file with an elliptic-curve key or a ``pkcs11:`` URI, and with it perhaps a certificate."""

    key: str
    password_file: Path | None = None
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class _Signed:
    """What a bundle says, believed only when a trusted key says so too: package digest, kind of key, certificate."""

    package: str
    kind: str
    certificate: bytes


def sign(folder: Path, signer: Signer, scratch: Path) -> Mapping[str, Any]:
    """Sign every file of a package folder; answers the bundle.

    Args:
        folder: the package.
        signer: the key.
        scratch: an empty folder for the bundle's file.

    Raises:
        UsageError: the key cannot be used.
        IntegrityViolated: something in the folder is not a plain file.
    """
    from model_signing import signing

    _require_plain_files(folder)
    out = scratch / "package.sig"
    with _readable(signer) as key:
        try:
            config = signing.Config().set_hashing_config(_every_file())
            _use(config, signer, key)
            config.sign(folder, out)
        except Exception as error:  # the library and what it is built on raise dozens of kinds
            raise _cannot_sign(signer, str(error) or type(error).__name__) from error
    bundle: Mapping[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return bundle


def verify(folder: Path, bundle: Mapping[str, Any] | None, trusted: Sequence[Path], package: str | None = None) -> str:
    """Check that a trusted key signed exactly this folder; answers that key's id.

    A certificate must be for code signing (RFC 5280, 4.2.1.12) and is judged as of the day it was issued: offline,
    nothing proves when a signature was made, so an authority that is to be believed no longer leaves `trusted`.

    Args:
        folder: the package: what lies in it, and nothing else, must be what was signed.
        bundle: the signature; None when there is none.
        trusted: the verifier's own copies of public keys, or of certificates of authorities.
        package: digest that the signature must be of; whoever loads bytes of this digest later loads what was signed,
            whatever happens to the folder in between.

    Raises:
        IntegrityViolated: it is not signed, not by a trusted key, or something in it differs.
        UsageError: a trusted key cannot be read. All are looked at, so that this shows before it is needed.
    """
    keys = [(path, *_trusted(path)) for path in trusted]
    if bundle is None:
        raise IntegrityViolated(
            "the package is not signed",
            where=str(folder),
            fix="the gate signs what it lets through: see signing.key in the settings of the approval's job",
        )
    _require_plain_files(folder)
    signed = _read(bundle, folder)
    if package is not None and signed.package != package:
        raise IntegrityViolated(
            f"the signature is of another package: {signed.package}, expected {package}",
            where=str(folder),
            fix="do not load it; find out who put this signature there (gatehouse ledger show)",
        )
    tried = []
    for path, kind, identity in keys:
        found = _against(folder, bundle, signed, path, kind)
        if found is None:
            return identity
        tried.append(f"{path.name}: {found}")
    raise IntegrityViolated(
        "the package's signature does not hold: " + ("; ".join(tried) or "no key is trusted here"),
        where=str(folder),
        fix="do not load it; see who signed it (gatehouse ledger show), and whether a key was rotated here",
    )


def key_id(key: Path | Signer) -> str:
    """Id of a key: the SHA-256 of its public half (DER SubjectPublicKeyInfo), whether public, private or certificate.

    Of a PKCS#11 key without a certificate it is the SHA-256 of its URI: the token need not be there to be named.

    Raises:
        UsageError: there is no such key in the file.
    """
    if isinstance(key, Signer):
        if key.certificate:
            return key_id(key.certificate)
        if key.key.startswith(PKCS11):
            return "pkcs11:" + hashlib.sha256(key.key.partition("?")[0].encode()).hexdigest()
        return _digest(_private(key).public_key())
    if b"PRIVATE KEY" in _pem(key):
        return _digest(_private(Signer(str(key))).public_key())
    return _trusted(key)[1]


# --- signing --------------------------------------------------------------------------------------------------------


def _use(config: Signing, signer: Signer, key: Path) -> None:
    if signer.key.startswith(PKCS11):
        if signer.certificate:
            config.use_pkcs11_certificate_signer(
                pkcs11_uri=signer.key, signing_certificate=signer.certificate, certificate_chain=signer.chain
            )
        else:
            config.use_pkcs11_signer(pkcs11_uri=signer.key)
    elif signer.certificate:
        config.use_certificate_signer(
            private_key=key, signing_certificate=signer.certificate, certificate_chain=signer.chain
        )
    else:
        config.use_elliptic_key_signer(private_key=key)


@contextmanager
def _readable(signer: Signer) -> Iterator[Path]:
    """The private key as a file without a password, which exists in memory only.

    model-signing 1.1 takes no password beside a certificate, and for a key alone declares another type than it takes.
    """
    if signer.certificate:
        _require_valid_now(signer.certificate)
    if signer.key.startswith(PKCS11):
        yield Path()
        return
    from cryptography.hazmat.primitives import serialization

    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    data = _private(signer).private_bytes(serialization.Encoding.PEM, form, plain)
    with os.fdopen(os.memfd_create("key"), "wb") as memory:
        memory.write(data)
        memory.flush()
        yield Path(f"/proc/self/fd/{memory.fileno()}")


def _private(signer: Signer) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _pem(Path(signer.key), "signing.key")
    try:
        key = load_pem_private_key(data, _password(signer))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _cannot_sign(signer, str(error)) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise _cannot_sign(signer, "this is no elliptic-curve key of P-256, P-384 or P-521")
    return key


def _password(signer: Signer) -> bytes | None:
    if signer.password_file is None:
        return None
    try:
        return signer.password_file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        where = f"settings: signing.key_password_file ({signer.password_file})"
        raise UsageError(f"the key's password cannot be read: {error.strerror}", where=where) from error


def _require_valid_now(certificate: Path) -> None:
    """A verifier cannot tell when a signature was made, so the signer's own date is the only check of expiry."""
    from cryptography.x509 import load_pem_x509_certificate

    where = f"settings: signing.certificate ({certificate})"
    try:
        found = load_pem_x509_certificate(_pem(certificate, "signing.certificate"))
    except ValueError as error:
        raise UsageError("no certificate can be read", where=where) from error
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    if not begins <= datetime.now(UTC) <= ends:
        raise UsageError(f"the signing certificate is not valid today, but {begins:%F} to {ends:%F}", where=where)


def _cannot_sign(signer: Signer, reason: str) -> UsageError:
    name, _, secret = signer.key.partition("?")
    return UsageError(
        f"the package cannot be signed: {reason.replace(secret, '...') if secret else reason}",
        where=f"settings: signing.key ({name})",
        fix="an elliptic-curve private key in PEM, readable by this user, its password in key_password_file",
    )


# --- verifying ------------------------------------------------------------------------------------------------------


def _read(bundle: Mapping[str, Any], folder: Path) -> _Signed:
    """What a bundle says it covers. Parts that are not known are refused: the library might read those instead."""
    try:
        envelope, material = bundle["dsseEnvelope"], bundle["verificationMaterial"]
        known = set(bundle) == {"mediaType", "dsseEnvelope", "verificationMaterial"}
        known &= set(envelope) == {"payload", "payloadType", "signatures"}
        (kind,) = set(material) - {"tlogEntries", "timestampVerificationData"}
        certificates = material[kind]["certificates"] if kind == _CERTIFICATE else []
        known &= kind == _CERTIFICATE or bool(material[_KEY]["hint"])
        predicate = json.loads(base64.b64decode(envelope["payload"], validate=True))["predicate"]
        how = predicate["serialization"]
        files = {entry["name"]: f"{entry['algorithm']}:{entry['digest']}" for entry in predicate["resources"]}
        certificate = base64.b64decode(certificates[0]["rawBytes"], validate=True) if certificates else b""
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _no_signature(folder, "this is no signature of a package") from error
    if not known:
        raise _no_signature(folder, "this is no signature of a package: it has parts that are not known")
    if how.get("ignore_paths"):
        raise _no_signature(folder, f"the signature passes over {', '.join(map(str, how['ignore_paths']))}")
    if (how.get("method"), how.get("hash_type")) != ("files", "sha256"):
        raise _no_signature(folder, "the signature is not of each file's SHA-256")
    return _Signed(digest_json(files), kind, certificate)


def _no_signature(folder: Path, what: str) -> IntegrityViolated:
    return IntegrityViolated(what, where=str(folder), fix="do not load it; have it signed anew (gatehouse gate sign)")


def _against(folder: Path, bundle: Mapping[str, Any], signed: _Signed, trusted: Path, kind: str) -> str | None:
    """Why a trusted key does not verify a bundle; None when it does."""
    from model_signing import verifying

    if kind != signed.kind:
        return "it was signed with " + ("a certificate" if signed.kind == _CERTIFICATE else "a key without certificate")
    config = verifying.Config().set_hashing_config(_every_file())
    with tempfile.NamedTemporaryFile("w", suffix=".sig", encoding="utf-8") as file:
        json.dump(bundle, file)
        file.flush()
        try:
            if kind == _CERTIFICATE:
                config.use_certificate_verifier(certificate_chain=[trusted])
            else:
                config.use_elliptic_key_verifier(public_key=trusted)
            config.verify(folder, Path(file.name))
        except Exception as error:  # noqa: BLE001  # the library and what it is built on raise dozens of kinds
            return str(error).splitlines()[0] if str(error) else f"not signed by this key ({type(error).__name__})"
    if kind == _CERTIFICATE and not _for_code_signing(signed.certificate):
        return "the signer's certificate is not for code signing"
    return None


def _for_code_signing(certificate: bytes) -> bool:
    """Demanded here, since the library lets the certificate of any TLS server of the same authority sign."""
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound, load_der_x509_certificate
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        usage = load_der_x509_certificate(certificate).extensions.get_extension_for_class(ExtendedKeyUsage)
    except ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CODE_SIGNING in usage.value


def _trusted(path: Path) -> tuple[str, str]:
    """Kind and id of a trusted key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    data, where = _pem(path), f"settings: signing.trusted ({path})"
    if b"PRIVATE KEY" in data:
        raise UsageError("a verifier holds public keys only", where=where, fix="put the public half there")
    try:
        if b"BEGIN CERTIFICATE" in data:
            return _CERTIFICATE, _digest(load_pem_x509_certificate(data).public_key())
        return _KEY, _digest(load_pem_public_key(data))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError("no public key can be read", where=where, fix="a public key or certificate in PEM") from error


def _digest(public: PublicKeyTypes) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    data = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _pem(path: Path, setting: str = "signing.trusted") -> bytes:
    where = f"settings: {setting} ({path})"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"a key cannot be read: {error.strerror}", where=where) from error
    if b"-----BEGIN " not in data:
        raise UsageError("this is no PEM file", where=where)
    return data


def _require_plain_files(folder: Path) -> None:
    if not folder.is_dir():
        raise IntegrityViolated("there is no package here", where=str(folder))
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise IntegrityViolated("a package holds plain files only, not links", where=str(path))


def _every_file() -> Config:
    """Hashing that leaves nothing out: by default the library passes over everything that is called .git."""
    from model_signing import hashing

    return hashing.Config().use_file_serialization().set_ignored_paths(paths=[], ignore_git_paths=False)
