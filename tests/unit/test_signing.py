"""Signatures: of every byte, by a key that the verifier itself holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline.adapters.signing import Signer, key_id, sign, verify
from pipeline.errors import IntegrityViolated, UsageError

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


class Keys:
    """Keys and certificates on disk."""

    def __init__(self, folder):
        self.folder = folder

    def pair(self, name, password=None):
        key = ec.generate_private_key(ec.SECP256R1())
        how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        private, public = self.folder / f"{name}.pem", self.folder / f"{name}.pub.pem"
        private.write_bytes(key.private_bytes(PEM, PKCS8, how))
        public.write_bytes(key.public_key().public_bytes(PEM, SPKI))
        return private, public, key

    def certificate(self, name, key, issuer=None, issuer_key=None):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        authority = issuer is None
        now = datetime.now(UTC)
        public = key.public_key()
        signing = issuer_key or key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False), True
            )
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        made = builder.sign(signing, hashes.SHA256())
        path = self.folder / f"{name}.crt"
        path.write_bytes(made.public_bytes(PEM))
        return path, made


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    return Keys(folder)


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "inner" / "transformer.json").write_text("{}")
    (folder / ".gitattributes").write_text("hidden")
    return folder


def signed(package, tmp_path, signer):
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return sign(package, signer, scratch)


def test_what_a_trusted_key_signed_verifies_wherever_the_folder_lies_and_says_which_key(package, keys, tmp_path):
    private, public, _ = keys.pair("a")
    bundle = signed(package, tmp_path, Signer(str(private)))
    moved = package.rename(tmp_path / "elsewhere")
    assert verify(moved, bundle, [public]) == key_id(public) == key_id(Signer(str(private)))


@pytest.mark.parametrize("name", ["model.onnx", "inner/transformer.json", ".gitattributes"])
def test_a_changed_byte_in_any_file_is_found_and_the_file_is_named(package, keys, tmp_path, name):
    private, public, _ = keys.pair("a")
    bundle = signed(package, tmp_path, Signer(str(private)))
    (package / name).write_bytes(b"other")
    with pytest.raises(IntegrityViolated, match=name.rpartition("/")[2]):
        verify(package, bundle, [public])


@pytest.mark.parametrize("name", ["extra", ".git/hooks", ".gitignore", "inner/.hidden"])
def test_a_file_that_was_not_signed_is_found_however_it_is_called(package, keys, tmp_path, name):
    private, public, _ = keys.pair("a")
    bundle = signed(package, tmp_path, Signer(str(private)))
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text("x")
    with pytest.raises(IntegrityViolated, match="Extra files"):
        verify(package, bundle, [public])


def test_a_missing_file_is_found(package, keys, tmp_path):
    private, public, _ = keys.pair("a")
    bundle = signed(package, tmp_path, Signer(str(private)))
    (package / "model.onnx").unlink()
    with pytest.raises(IntegrityViolated, match="Missing files"):
        verify(package, bundle, [public])


def test_the_signature_of_another_package_an_attackers_key_and_no_signature_are_refused(package, keys, tmp_path):
    private, public, _ = keys.pair("a")
    attacker, _, _ = keys.pair("mallory")
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.onnx").write_bytes(b"other weights")
    for bundle in (
        signed(other, tmp_path, Signer(str(private))),
        signed(package, tmp_path, Signer(str(attacker))),
        {"mediaType": "nonsense"},
        None,
    ):
        with pytest.raises(IntegrityViolated):
            verify(package, bundle, [public])


def test_keys_are_rotated_by_trusting_both_and_then_only_the_new_one(package, keys, tmp_path):
    old, old_public, _ = keys.pair("old")
    new, new_public, _ = keys.pair("new")
    before = signed(package, tmp_path, Signer(str(old)))
    after = signed(package, tmp_path, Signer(str(new)))
    for bundle, key in ((before, old_public), (after, new_public)):
        assert verify(package, bundle, [old_public, new_public]) == key_id(key)
    assert verify(package, after, [new_public])
    with pytest.raises(IntegrityViolated):
        verify(package, before, [new_public])


def test_a_key_with_a_password_signs_with_it_and_not_without(package, keys, tmp_path):
    private, public, _ = keys.pair("a", b"a secret")
    password = tmp_path / "password"
    password.write_text("a secret\n")
    assert verify(package, signed(package, tmp_path, Signer(str(private), password)), [public])
    for wrong in (None, "another"):
        if wrong:
            password.write_text(wrong)
        with pytest.raises(UsageError) as refused:
            signed(package, tmp_path, Signer(str(private), password if wrong else None))
        assert "a secret" not in str(refused.value)


def test_a_certificate_of_a_trusted_authority_verifies_and_of_another_does_not(package, keys, tmp_path):
    _, _, authority_key = keys.pair("authority")
    root, authority = keys.certificate("authority", authority_key)
    private, _, key = keys.pair("signer")
    leaf, _ = keys.certificate("signer", key, authority, authority_key)
    _, _, other_key = keys.pair("other")
    other, _ = keys.certificate("other", other_key)
    bundle = signed(package, tmp_path, Signer(str(private), None, leaf, (root,)))
    assert verify(package, bundle, [root]) == key_id(root)
    with pytest.raises(IntegrityViolated):
        verify(package, bundle, [other])


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "cannot be read"), ("not a key", "no PEM file"), ("private", "public keys only")],
)
def test_a_trusted_key_that_is_none_is_a_mistake_in_the_settings(package, keys, tmp_path, text, says):
    private, _, _ = keys.pair("a")
    bundle = signed(package, tmp_path, Signer(str(private)))
    file = tmp_path / "trusted.pem"
    if text is not None:
        file.write_bytes(private.read_bytes() if text == "private" else text.encode())
    with pytest.raises(UsageError, match=says):
        verify(package, bundle, [file])
