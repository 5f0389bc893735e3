"""Signatures: of every byte, by a key that the verifier itself holds."""

from __future__ import annotations

import base64
import json
import os
import stat
from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline.adapters.signing import Signer, key_id, sign, verify
from pipeline.domain.canonical import digest_tree
from pipeline.embedded.keys import ensure_signing_key
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

    def certificate(self, name, key, issuer=None, issuer_key=None, use=ExtendedKeyUsageOID.CODE_SIGNING, days=1):
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
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False), True
            )
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
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


@pytest.fixture
def authority(keys):
    """A certificate authority: its file, and what issues a signer's key and certificate."""
    _, _, root_key = keys.pair("authority")
    root, issuer = keys.certificate("authority", root_key)

    def issue(name, password=None, **how):
        private, _, key = keys.pair(name, password)
        leaf, _ = keys.certificate(name, key, issuer, root_key, **how)
        return private, leaf

    return root, issue


def test_a_certificate_of_a_trusted_authority_verifies_and_of_another_does_not(package, keys, authority, tmp_path):
    root, issue = authority
    private, leaf = issue("signer")
    _, _, other_key = keys.pair("other")
    other, _ = keys.certificate("other", other_key)
    bundle = signed(package, tmp_path, Signer(str(private), None, leaf, (root,)))
    assert verify(package, bundle, [root]) == key_id(root)
    assert verify(package, bundle, [other, root]) == key_id(root)
    with pytest.raises(IntegrityViolated):
        verify(package, bundle, [other])
    (package / "model.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityViolated, match=r"model\.onnx"):
        verify(package, bundle, [root])


def test_a_certificate_whose_key_has_a_password_signs_too(package, authority, tmp_path):
    root, issue = authority
    private, leaf = issue("signer", b"a secret")
    password = tmp_path / "password"
    password.write_text("a secret\n")
    assert verify(package, signed(package, tmp_path, Signer(str(private), password, leaf, (root,))), [root])


def test_a_server_certificate_of_the_same_authority_is_no_signer(package, authority, tmp_path):
    root, issue = authority
    private, leaf = issue("tls", use=ExtendedKeyUsageOID.SERVER_AUTH)
    bundle = signed(package, tmp_path, Signer(str(private), None, leaf, (root,)))
    with pytest.raises(IntegrityViolated, match="not for code signing"):
        verify(package, bundle, [root])


def test_an_expired_certificate_does_not_sign(package, authority, tmp_path):
    root, issue = authority
    private, leaf = issue("late", days=-1)
    with pytest.raises(UsageError, match="not valid today"):
        signed(package, tmp_path, Signer(str(private), None, leaf, (root,)))


def test_a_key_does_not_verify_what_a_certificate_signed_nor_the_other_way_round(package, keys, authority, tmp_path):
    root, issue = authority
    private, leaf = issue("signer")
    plain, public, _ = keys.pair("a")
    for signer, trusted in ((Signer(str(private), None, leaf, (root,)), public), (Signer(str(plain)), root)):
        with pytest.raises(IntegrityViolated, match="it was signed with a"):
            verify(package, signed(package, tmp_path, signer), [trusted])


def test_a_signature_that_passes_over_files_is_refused_even_from_a_trusted_key(package, keys, tmp_path):
    from model_signing import signing

    private, public, _ = keys.pair("a")
    out = tmp_path / "by.sig"
    signing.Config().use_elliptic_key_signer(private_key=private).sign(package, out)
    with pytest.raises(IntegrityViolated, match="passes over"):
        verify(package, json.loads(out.read_text()), [public])


@pytest.mark.parametrize("how", ["part", "envelope", "material", "hint", "payload", "no bundle"])
def test_a_bundle_with_parts_that_are_not_known_or_missing_is_refused_and_nothing_is_printed(
    package, keys, tmp_path, capsys, how
):
    private, public, _ = keys.pair("a")
    bundle = deepcopy(dict(signed(package, tmp_path, Signer(str(private)))))
    if how == "part":
        bundle["dsse_envelope"] = bundle["dsseEnvelope"]
    elif how == "envelope":
        bundle["dsseEnvelope"]["payload_type"] = "x"
    elif how == "material":
        bundle["verificationMaterial"]["certificate"] = {}
    elif how == "hint":
        del bundle["verificationMaterial"]["publicKey"]["hint"]
    elif how == "payload":
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(b"[]").decode()
    else:
        bundle = []
    with pytest.raises(IntegrityViolated, match="no signature of a package"):
        verify(package, bundle, [public])
    assert capsys.readouterr() == ("", "")


def test_what_was_signed_is_held_to_the_digest_that_will_be_loaded(package, keys, tmp_path):
    private, public, _ = keys.pair("a")
    bundle = signed(package, tmp_path, Signer(str(private)))
    assert verify(package, bundle, [public], digest_tree(package))
    with pytest.raises(IntegrityViolated, match="of another package"):
        verify(package, bundle, [public], "sha256:" + "0" * 64)


@pytest.mark.parametrize("what", ["link", "link to a folder", "pipe"])
def test_what_is_not_a_plain_file_is_neither_signed_nor_verified(package, keys, tmp_path, what):
    private, public, _ = keys.pair("a")
    bundle = signed(package, tmp_path, Signer(str(private)))
    if what == "pipe":
        os.mkfifo(package / "odd")
    else:
        (package / "odd").symlink_to(keys.folder if what == "link to a folder" else package / "model.onnx")
    with pytest.raises(IntegrityViolated, match="plain files only"):
        verify(package, bundle, [public])
    with pytest.raises(IntegrityViolated, match="plain files only"):
        signed(package, tmp_path, Signer(str(private)))


def test_where_no_key_is_trusted_nothing_verifies(package, keys, tmp_path):
    private, _, _ = keys.pair("a")
    with pytest.raises(IntegrityViolated, match="no key is trusted"):
        verify(package, signed(package, tmp_path, Signer(str(private))), [])


def test_a_key_of_another_kind_a_missing_one_and_a_pin_are_said_without_a_secret(package, keys, tmp_path):
    other = tmp_path / "rsa.pem"
    key = rsa.generate_private_key(65537, 2048)
    other.write_bytes(key.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    for name in (str(other), str(tmp_path / "missing.pem"), "pkcs11:token=t;object=o?pin-value=1234"):
        with pytest.raises(UsageError) as refused:
            signed(package, tmp_path, Signer(name))
        assert "signing.key" in refused.value.where
        assert "1234" not in refused.value.what + refused.value.where


def test_an_id_is_of_the_key_whichever_half_it_is_read_from(keys):
    private, public, _ = keys.pair("a")
    _, other, _ = keys.pair("b")
    assert key_id(private) == key_id(public) == key_id(Signer(str(private))) != key_id(other)


def test_the_embedded_key_is_made_once_and_its_public_half_again_when_that_was_interrupted(tmp_path):
    private, public = ensure_signing_key(tmp_path)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes()
    public.unlink()
    assert ensure_signing_key(tmp_path) == (private, public)
    assert private.read_bytes() == before
    assert key_id(private) == key_id(public)
    assert sorted(path.name for path in (tmp_path / "keys").rglob("*.*")) == ["approval.pem", "approval.pub.pem"]


def test_of_two_that_make_the_embedded_key_at_once_the_first_ones_key_is_the_key(tmp_path, monkeypatch):
    generate, first = ec.generate_private_key, []

    def meanwhile(curve):
        if not first:
            first.append(None)
            first[:] = [key_id(ensure_signing_key(tmp_path)[0])]
        return generate(curve)

    monkeypatch.setattr(ec, "generate_private_key", meanwhile)
    private, public = ensure_signing_key(tmp_path)
    assert [key_id(private)] == [key_id(public)] == first


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("not a key", "no PEM file"),
        ("private", "public keys only"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
    ],
)
def test_a_trusted_key_that_is_none_is_a_mistake_in_the_settings(package, keys, tmp_path, text, says):
    private, public, _ = keys.pair("a")
    bundle = signed(package, tmp_path, Signer(str(private)))
    file = tmp_path / "trusted.pem"
    if text is not None:
        file.write_bytes(private.read_bytes() if text == "private" else text.encode())
    with pytest.raises(UsageError, match=says) as refused:
        verify(package, bundle, [public, file])
    assert "signing.trusted" in refused.value.where
