"""What ``ssh-keygen -Y sign`` does, for machines without it: PROTOCOL.sshsig with an Ed25519 key."""

from __future__ import annotations

import base64
import hashlib
import struct
import textwrap

from cryptography.hazmat.primitives import serialization

RAW, OPENSSH = serialization.Encoding.Raw, serialization.Encoding.OpenSSH


def text(*parts):
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def public_line(key):
    return key.public_key().public_bytes(OPENSSH, serialization.PublicFormat.OpenSSH).decode()


def sign(key, data, namespace="gatehouse-decision"):
    """The armored signature of `data` by an Ed25519 private key."""
    public = text(b"ssh-ed25519", key.public_key().public_bytes(RAW, serialization.PublicFormat.Raw))
    hashed = text(namespace.encode(), b"", b"sha512", hashlib.sha512(data).digest())
    signature = text(b"ssh-ed25519", key.sign(b"SSHSIG" + hashed))
    blob = b"SSHSIG" + struct.pack(">I", 1) + text(public, namespace.encode(), b"", b"sha512", signature)
    lines = textwrap.wrap(base64.b64encode(blob).decode(), 70)
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])
