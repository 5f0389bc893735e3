"""Who decided: asked of Jenkins, GitHub, an identity provider or a signature, never of the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pipeline.bootstrap.installation import Installation
from pipeline.config import JenkinsSettings
from pipeline.config.reading import read_secret
from pipeline.domain.approval import Assurance
from pipeline.domain.canonical import digest_json
from pipeline.errors import ApprovalInvalid, UsageError

if TYPE_CHECKING:
    from pipeline.adapters.jenkins_client import Jenkins
    from pipeline.bootstrap.reviews import Reviewed

TOKEN_VARIABLE = "GATEHOUSE_JENKINS_TOKEN"  # noqa: S105  # the name of a variable that names a file
SIGNATURE_SUFFIX = ".sig"

Verb = Literal["approve", "reject", "revoke", "delegate", "break-glass"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody wants recorded, and by what they are to be recognised: one of the five.

    Attributes:
        verb, reason: what, and why.
        build, input_id: a Jenkins build and the input that was answered in it.
        token_file: holds a token of the identity provider.
        signed: a statement, with its SSH signature beside it.
        demo: a name, for an embedded stack only.
        reviewed: a review of a run in GitHub, as GitHub gave it.
    """

    verb: Verb
    reason: str | None = None
    build: str | None = None
    input_id: str | None = None
    token_file: Path | None = None
    signed: Path | None = None
    demo: str | None = None
    reviewed: Reviewed | None = None


@dataclass(frozen=True, slots=True)
class Who:
    """A person, and how sure that is. `involved` are people known to have asked for what is decided."""

    actor: str
    reason: str
    assurance: Assurance
    proof: Mapping[str, Any] = field(default_factory=dict)
    involved: tuple[str, ...] = ()


def identify(place: Installation, answer: Answer, subject: Mapping[str, Any], run: str | None = None) -> Who:
    """The person behind an answer on `subject`.

    Args:
        place: the installation, which says whom it believes.
        answer: what is to be recorded.
        subject: what it is about, as a signed statement must name it.
        run: the run that a Jenkins build must be of.

    Raises:
        UsageError: no reason, or no way of recognising anybody.
        ApprovalInvalid: this is not believed here.
    """
    named = [answer.build, answer.token_file, answer.signed, answer.demo]
    if sum(one is not None for one in named) > 1:
        raise UsageError("one identity at a time", where="--build, --token-file, --signed, --demo-identity")
    if answer.signed is not None:
        return _signed(place, answer, answer.signed, subject)
    if answer.reviewed is not None:
        return _reviewed(answer.verb, answer.reviewed)
    reason = (answer.reason or "").strip()
    if not reason:
        raise UsageError("a decision needs a reason", where="--reason")
    if answer.demo is not None:
        return _demo(place, answer.demo, reason)
    if answer.token_file is not None:
        return _token(place, answer.token_file, reason)
    if answer.build is not None and place.settings.jenkins is not None:
        if answer.input_id is None:
            return _started(place.settings.jenkins, answer, reason)
        return _jenkins(place.settings.jenkins, answer, reason, run)
    raise UsageError(
        "no identity to believe: who decides is asked of Jenkins, GitHub, an identity provider, or a signature",
        where="--build with --input, --token-file, or --signed",
        fix="gatehouse gate statement writes what is to be signed; the settings name the Jenkins or the provider",
    )


def starter(place: Installation, build: str) -> str | None:
    """Who started a build, as Jenkins or GitHub says; None when a schedule or a push did, or neither is known here."""
    from pipeline.bootstrap import reviews

    if reviews.is_workflow_run(build):
        return reviews.starter(place, build)
    jenkins = place.settings.jenkins
    return None if jenkins is None else _controller(jenkins, build).started_by(build)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the approval job was started with, as Jenkins itself keeps it."""

    run: str
    answer: Answer


def asked_in(place: Installation, build: str) -> Asked:
    """The decision that a build of the approval job is.

    Raises:
        UsageError: the settings name no such job, or the build says nothing that could be recorded.
        ApprovalInvalid: the build is of another job.
    """
    jenkins = place.settings.jenkins
    if jenkins is None or jenkins.approval_job is None:
        raise UsageError("the settings name no approval job", where="settings: jenkins.approval_job")
    from pipeline.adapters.jenkins_answers import parameters
    from pipeline.adapters.jenkins_builds import Builds

    believed = _controller(jenkins, build)
    if not build.startswith(Builds(believed).job_url(jenkins.approval_job)):
        raise ApprovalInvalid(f"a build of another job than {jenkins.approval_job} decides nothing", where=build)
    given = {name: str(value or "").strip() for name, value in parameters(believed.build(build)).items()}
    run, verb = given.get("RUN", ""), given.get("DECISION", "")
    if not run or verb not in ("approve", "reject"):
        raise UsageError(
            f"nothing to record: RUN is '{run}' and DECISION '{verb}'", where=build, fix="start it again with both"
        )
    return Asked(run, Answer(cast("Verb", verb), given.get("WHY"), build=build))


def _started(settings: JenkinsSettings, answer: Answer, reason: str) -> Who:
    """The one user who started the build of the approval job; nobody else has touched what it says."""
    from pipeline.adapters.jenkins_answers import starters

    assert answer.build is not None
    found = starters(_controller(settings, answer.build).build(answer.build))
    if len(found) != 1:
        listed = ", ".join(sorted(found)) or "nobody"
        raise ApprovalInvalid(
            f"a decision is one person's, and {listed} started this build",
            where=answer.build,
            fix="start the job again, by hand, one after the other",
        )
    return Who(found.pop(), reason, "jenkins", {"build": answer.build})


def _demo(place: Installation, name: str, reason: str) -> Who:
    if not place.settings.embedded:
        raise ApprovalInvalid(
            "a demo identity is not believed here",
            where="--demo-identity",
            fix="decide in Jenkins, with a token, or with a signature: gatehouse gate approve --help",
        )
    return Who(name, reason, "demo")


def _jenkins(settings: JenkinsSettings, answer: Answer, reason: str, run: str | None) -> Who:
    assert answer.build is not None and answer.input_id is not None
    jenkins = _controller(settings, answer.build)
    actor = jenkins.submitter(answer.build, answer.input_id, approved=answer.verb != "reject", run=run)
    # Whoever started the build asked for it, whatever the ledger was told.
    began = jenkins.started_by(answer.build)
    proof = {"build": answer.build, "input": answer.input_id}
    return Who(actor, reason, "jenkins", proof, (began,) if began else ())


def _reviewed(verb: Verb, reviewed: Reviewed) -> Who:
    review, url = reviewed.review, reviewed.run.url
    if review.approved != (verb == "approve"):
        raise ApprovalInvalid(f"{review.user} {'approved' if review.approved else 'rejected'} it in GitHub", where=url)
    if not review.comment:
        raise ApprovalInvalid(
            f"{review.user} gave no reason",
            where=url,
            fix="re-run the gate's job, and review it with a comment that says why",
        )
    return Who(review.user, review.comment, "github", {"build": url, "reviews": review.count}, reviewed.run.asked)


def _token(place: Installation, file: Path, reason: str) -> Who:
    from pipeline.adapters import oidc

    settings = place.settings.oidc
    if settings is None:
        raise ApprovalInvalid("no identity provider is believed here", where="settings: oidc")
    rules = oidc.OidcRules(**settings.model_dump())
    found = oidc.identify(read_secret(file, "the token's file"), rules, place.clock())
    return Who(found.user, reason, "oidc", found.proof)


def _signed(place: Installation, answer: Answer, file: Path, subject: Mapping[str, Any]) -> Who:
    from pipeline.adapters import signed_decision

    allowed = place.settings.approval.allowed_signers
    if allowed is None:
        raise ApprovalInvalid("no signatures are believed here", where="settings: approval.allowed_signers")
    signature = file.with_name(file.name + SIGNATURE_SUFFIX)
    found = signed_decision.read(file, signature, allowed, place.clock())
    if found.decision != answer.verb:
        raise ApprovalInvalid(f"the statement says {found.decision}, not {answer.verb}", where=str(file))
    if found.subject_digest != digest_json(subject):
        changed = sorted(name for name in subject if found.subject.get(name) != subject[name])
        raise ApprovalInvalid(
            f"the statement is of something else: {', '.join(changed)} differ",
            where=str(file),
            fix="write a new statement (gatehouse gate statement) and sign that",
        )
    return Who(found.actor, found.reason, "signed", found.proof)


def controller(jenkins: JenkinsSettings) -> Jenkins:
    """The configured Jenkins, as the user whose token the settings, or the environment, name.

    Raises:
        UsageError: the token's file cannot be read.
    """
    from pipeline.adapters.jenkins_client import Jenkins

    file = Path(os.environ.get(TOKEN_VARIABLE) or jenkins.token_file)
    user, _, token = read_secret(file, "the file with the Jenkins token").partition(":")
    return Jenkins(jenkins.url, user, token, ca_file=jenkins.ca_file)


def _controller(jenkins: JenkinsSettings, build: str) -> Jenkins:
    if not build.startswith(jenkins.url.rstrip("/") + "/"):
        raise UsageError("the build is not of the configured Jenkins", where=f"--build {build}", fix=jenkins.url)
    return controller(jenkins)
