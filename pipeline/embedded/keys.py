"""The embedded stack's key for signing packages. A real installation brings its own, and keeps it elsewhere."""

from __future__ import annotations

import os
from pathlib import Path


def ensure_signing_key(home: Path) -> tuple[Path, Path]:
    """A private key (P-256, PEM, mode 0600) and the verifiers' copy of its public half, made once.

    The private file is complete before it has its name, and the public one follows from it: safe to interrupt.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = home / "keys" / "approval.pem", home / "keys" / "trusted" / "approval.pub.pem"
    public.parent.mkdir(parents=True, exist_ok=True)
    if not private.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        _write(private, made.private_bytes(serialization.Encoding.PEM, form, plain))
    if not public.exists():
        key = serialization.load_pem_private_key(private.read_bytes(), None).public_key()
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        _write(public, key.public_bytes(serialization.Encoding.PEM, spki))
    return private, public


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    partial.replace(path)
