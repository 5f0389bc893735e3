"""The embedded stack's key for signing packages. A real installation brings its own, and keeps it elsewhere."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path


def ensure_signing_key(home: Path) -> tuple[Path, Path]:
    """A private key (P-256, PEM, mode 0600) and the verifiers' copy of its public half, made once.

    A file is complete and flushed before it has its name, the first to take the name keeps it, and the public file
    follows from the private one: safe to interrupt, and to run twice at once.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = home / "keys" / "approval.pem", home / "keys" / "trusted" / "approval.pub.pem"
    public.parent.mkdir(parents=True, exist_ok=True)
    if not private.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        _write(private, made.private_bytes(serialization.Encoding.PEM, form, plain), 0o600)
    if not public.exists():
        key = serialization.load_pem_private_key(private.read_bytes(), None).public_key()
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        _write(public, key.public_bytes(serialization.Encoding.PEM, spki), 0o644)
    return private, public


def _write(path: Path, data: bytes, mode: int) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(FileExistsError):  # another process was first: its key is the key
            os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
