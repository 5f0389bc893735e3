"""Signed decisions: exactly what was signed, by the person's own key, for exactly this."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.adapters.signed_decision import read, statement
from pipeline.errors import ApprovalInvalid, UsageError
from tests.ssh_signing import public_line, sign

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SUBJECT = {"model": "flights", "package": "sha256:ab"}
GRACE, MALLORY = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()


def made(decision="approve", reason="measured", actor="grace", at="2026-11-24T12:00:00Z", subject=SUBJECT):
    return statement(subject, decision=decision, reason=reason, actor=actor, at=at)


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


class Desk:
    """Files of one decision."""

    def __init__(self, folder):
        self.file, self.signature = folder / "decision.json", folder / "decision.json.sig"
        self.allowed = folder / "allowed_signers"
        self.allowed.write_text(f'# people\n\ngrace,hedy namespaces="gatehouse-decision" {public_line(GRACE)}\n')

    def put(self, data, key=GRACE, namespace="gatehouse-decision"):
        self.file.write_bytes(data)
        self.signature.write_text(sign(key, data, namespace))
        return self

    def read(self):
        return read(self.file, self.signature, self.allowed, NOW)


def test_a_signed_statement_is_believed_and_carries_its_proof(desk):
    found = desk.put(made()).read()
    assert (found.actor, found.decision, found.reason, found.subject) == ("grace", "approve", "measured", SUBJECT)
    assert set(found.proof) == {"statement", "key"}


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not on this machine")
def test_openssh_itself_signs_what_is_believed_and_verifies_what_the_tests_sign(desk, tmp_path):
    private = tmp_path / "id"
    how = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    private.write_bytes(GRACE.private_bytes(*how))
    private.chmod(0o600)
    desk.put(made())
    check = ["ssh-keygen", "-Y", "verify", "-f", desk.allowed, "-I", "grace", "-n", "gatehouse-decision"]
    subprocess.run([*check, "-s", desk.signature], input=desk.file.read_bytes(), check=True, capture_output=True)
    desk.signature.unlink()
    command = ["ssh-keygen", "-Y", "sign", "-n", "gatehouse-decision", "-f", private, desk.file]
    subprocess.run(command, check=True, capture_output=True)
    assert desk.read().actor == "grace"


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_bit_anywhere_in_the_statement_is_refused(desk, place, bit):
    data = bytearray(made())
    desk.put(bytes(data))
    data[place % len(data)] ^= 1 << bit
    desk.file.write_bytes(bytes(data))
    with pytest.raises(ApprovalInvalid, match="does not hold"):
        desk.read()


REFUSED = {
    "somebody else's key": (made(), {"key": MALLORY}, "no key of grace"),
    "one's own key under another name": (made(actor="katherine"), {}, "no key of katherine"),
    "signed for something else": (made(), {"namespace": "git"}, "does not hold"),
    "last month's": (made(at=(NOW - timedelta(days=8)).isoformat()), {}, "older than"),
    "tomorrow's": (made(at=(NOW + timedelta(days=1)).isoformat()), {}, "from the future"),
    "at no time": (made(at="soon"), {}, "time is none"),
    "without a zone": (made(at="2026-11-24T12:00:00"), {}, "time is none"),
    "without a reason": (made(reason=" "), {}, "lacks"),
    "not ours": (b'{"approve": true}', {}, "no statement"),
    "not JSON": (b"I approve", {}, "no statement"),
    "not canonical": (json.dumps(json.loads(made()), indent=1).encode(), {}, "no statement"),
    "with another digest": (made().replace(b"sha256:ab", b"sha256:cd"), {}, "not that of its subject"),
}


@pytest.mark.parametrize(("data", "how", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_to_be_believed_is_refused(desk, data, how, says):
    with pytest.raises(ApprovalInvalid, match=says):
        desk.put(data, **how).read()


LINES = {
    "grace {key}": True,
    "Grace {key}": True,
    'grace namespaces="git,gatehouse-decision" {key}': True,
    'grace namespaces="git" {key}': False,
    'grace valid-before="20261123" {key}': False,
    'grace valid-before="20261231Z" {key}': True,
    'grace valid-after="202612010000Z" {key}': False,
    "grace cert-authority {key}": False,
    "* {key}": False,
    "g* {key}": False,
    "hedy {key}": False,
}


@pytest.mark.parametrize(("line", "believed"), LINES.items(), ids=LINES)
def test_a_line_of_the_allowed_signers_counts_for_the_people_it_names_and_in_its_limits(desk, line, believed):
    desk.put(made()).allowed.write_text(line.format(key=public_line(GRACE)) + "\n")
    if believed:
        assert desk.read().actor == "grace"
    else:
        with pytest.raises(ApprovalInvalid, match="no key of grace"):
            desk.read()


@pytest.mark.parametrize("missing", ["file", "signature", "allowed"])
def test_a_file_that_is_not_there_is_named(desk, missing):
    desk.put(made())
    path = getattr(desk, missing)
    path.unlink()
    with pytest.raises(UsageError) as refused:
        desk.read()
    assert str(path) in refused.value.where


def test_a_broken_line_of_the_allowed_signers_is_named(desk):
    desk.put(made()).allowed.write_text("# people\ngrace\n")
    with pytest.raises(UsageError) as refused:
        desk.read()
    assert "line 2" in refused.value.where
