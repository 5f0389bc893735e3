"""Whom the gate believes: Jenkins, an identity provider, a signature; each through the real command."""

from __future__ import annotations

import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from pipeline.bootstrap.installation import utc_now
from tests import ssh_signing
from tests.jenkins.controller import Controller
from tests.jenkins.controller_state import Input

pytestmark = pytest.mark.integration

GATE = "Approve-production"
ISSUER, AUDIENCE = "https://id.corp.example/realms/ml", "gatehouse"


@pytest.fixture(scope="module")
def run(stack):
    """A run before the gate that two people must let pass, so that one decision does not end it."""
    stack.until("verify staging", "identities", "--set", "risk_tier='medium'")
    return "identities"


@pytest.fixture
def believing(stack, tmp_path):
    """Settings like the stack's, of an installation that is not embedded and believes whom the test says."""

    def write(text):
        lines = (stack.home / "settings.toml").read_text().replace("embedded = true", "embedded = false")
        file = tmp_path / "settings.toml"
        file.write_text(f"{lines}\n{text}\n")
        return file

    return write


def said(stack, run):
    return [row for row in stack.json("ledger", "show", "--run", run) if row["kind"] == "approval.decided"]


def test_a_demo_identity_is_believed_by_no_installation_but_an_embedded_one(stack, run, believing):
    words = ("gate", "approve", "--run", run, "--reason", "x", "--demo-identity", "grace")
    done = stack.gatehouse(*words, settings=believing(""), expected=(4,))
    assert "not believed here" in done.stderr
    assert said(stack, run) == []


# --- Jenkins ------------------------------------------------------------------------------------------------


@pytest.fixture
def jenkins(tmp_path, run, believing):
    with Controller() as controller:
        for name in ("grace", "hedy", "ada"):
            controller.add_user(name, "Job/Build", groups=["gatehouse-approvers"])
        controller.add_user("gatehouse")
        controller.add_job("mlops/flights/main")
        token = tmp_path / "token"
        token.write_text(f"gatehouse:{controller.users['gatehouse'].token}")
        text = f'[jenkins]\nurl = "{controller.url}"\ntoken_file = "{token}"'
        yield controller, believing(text)


def asked(controller, run, starter="ada"):
    cause = {"_class": "hudson.model.Cause$UserIdCause", "userId": starter}
    build = controller.jobs["mlops/flights/main"].start(causes=[cause])
    build.display_name = f"#1 {run}"
    build.ask(Input(GATE, "Promote?", "gatehouse-approvers", "APPROVER", []))
    return build


def answered_by(controller, build, name):
    from pipeline.adapters.jenkins_client import Jenkins

    Jenkins(controller.url, name, controller.users[name].token).proceed(controller.build_url(build), GATE, {})


def through(controller, build):
    return ("--build", controller.build_url(build), "--input", GATE, "--reason", "measured")


def test_jenkins_says_who_decided_and_the_starter_of_the_build_is_nobody_to_decide(stack, run, jenkins):
    controller, settings = jenkins
    build = asked(controller, run)
    words = ("gate", "approve", "--run", run, *through(controller, build))
    assert "no answer" in stack.gatehouse(*words, settings=settings, expected=(4,)).stderr
    answered_by(controller, build, "grace")
    stack.gatehouse(*words, settings=settings)
    (decided,) = said(stack, run)
    assert (decided["body"]["actor"], decided["body"]["assurance"]) == ("grace", "jenkins")
    assert decided["body"]["proof"]["build"] == controller.build_url(build)
    assert "said this already" in stack.gatehouse(*words, settings=settings).stderr

    own = asked(controller, run, starter="hedy")
    answered_by(controller, own, "hedy")
    done = stack.gatehouse("gate", "approve", "--run", run, *through(controller, own), settings=settings, expected=(4,))
    assert "nobody approves their own work" in done.stderr
    assert len(said(stack, run)) == 1


def test_an_answer_given_for_another_run_is_worth_nothing(stack, run, jenkins):
    controller, settings = jenkins
    build = asked(controller, "another-run")
    answered_by(controller, build, "hedy")
    done = stack.gatehouse(
        "gate", "approve", "--run", run, *through(controller, build), settings=settings, expected=(4,)
    )
    assert "not of run" in done.stderr


# --- an identity provider -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def oidc_settings(provider, tmp_path):
    key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(provider.public_key())) | {"kid": "k1", "alg": "RS256"}
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [key]}))
    return f'[oidc]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\nkeys_file = "{keys}"'


def token(provider, name, tmp_path, **claims):
    now = int(utc_now().timestamp())
    body = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 300, "preferred_username": name} | claims
    file = tmp_path / f"token-{name}"
    file.write_text(jwt.encode(body, provider, "RS256", headers={"kid": "k1"}))
    return file


def test_a_token_decides_once_and_for_one_run_only(stack, run, staged, provider, believing, tmp_path):
    settings = believing(oidc_settings(provider, tmp_path))
    file = token(provider, "hedy", tmp_path)
    words = ("--reason", "no", "--token-file", str(file))
    other = token(provider, "hedy", tmp_path, aud="somebody-else")
    stack.gatehouse("gate", "reject", "--run", run, *words[:3], str(other), settings=settings, expected=(4,))

    file = token(provider, "mallory", tmp_path)
    stack.gatehouse(
        "gate", "approve", "--run", run, "--reason", "x", "--token-file", str(file), settings=settings, expected=(4,)
    )
    file = token(provider, "katherine", tmp_path)
    words = ("--reason", "measured", "--token-file", str(file))
    done = stack.gatehouse("gate", "approve", "--run", run, *words, settings=settings)
    assert file.read_text() not in done.stdout + done.stderr
    assert said(stack, run)[-1]["body"]["assurance"] == "oidc"
    done = stack.gatehouse("gate", "approve", "--run", staged, *words, settings=settings, expected=(4,))
    assert "used for something else" in done.stderr


# --- a signature --------------------------------------------------------------------------------------------


@pytest.fixture
def signer(tmp_path):
    key = ed25519.Ed25519PrivateKey.generate()
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f'hedy namespaces="gatehouse-decision" {ssh_signing.public_line(key)}\n')
    return key, f'[approval]\nallowed_signers = "{allowed}"'


def test_a_signed_statement_decides_what_it_says_and_nothing_else(stack, run, staged, signer, believing, tmp_path):
    key, text = signer
    settings = believing(text)
    file = tmp_path / "decision.json"
    about = ("--actor", "hedy", "--run", run, "--reason", "signed at home")
    file.write_text(stack.gatehouse("gate", "statement", "approve", *about).stdout)
    file.with_name("decision.json.sig").write_text(ssh_signing.sign(key, file.read_bytes()))
    words = ("--signed", str(file))
    done = stack.gatehouse("gate", "approve", "--run", staged, *words, settings=settings, expected=(4,))
    assert "of something else" in done.stderr
    done = stack.gatehouse("gate", "reject", "--run", run, *words, settings=settings, expected=(4,))
    assert "says approve" in done.stderr
    stack.gatehouse("gate", "approve", "--run", run, *words, settings=settings)
    assert said(stack, run)[-1]["body"]["reason"] == "signed at home"
    file.write_text(file.read_text().replace("signed at home", "signed by nobody"))
    stack.gatehouse("gate", "approve", "--run", run, *words, settings=settings, expected=(4,))
