"""The report in the merge request: one comment for each model, written once and kept up to date."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import stamina

from pipeline.bootstrap.forges import forge_of, post, request_in
from pipeline.bootstrap.gatekeeping import evidence_of, gate_of, headline
from pipeline.bootstrap.installation import Installation
from pipeline.domain.evidence import Evidence
from pipeline.domain.state import RunState
from pipeline.errors import GatehouseError, Unreachable, UsageError
from pipeline.reports.comment import Page, Target, comment

CAPTIONS = {"roc": "ROC", "calibration": "Calibration", "differences": "Better than the champion by"}
ATTEMPTS = 4
GIT_SECONDS = 20
CML_SECONDS = 300
# CML would send pictures to its maker's server, and tell it that it ran.
_CML = ("comment", "create", "--update", "--publish=false")
_CML_QUIET = {"ITERATIVE_DO_NOT_TRACK": "true"}


def publish(place: Installation, run: str, request: int | None, against: str | None, link: str | None) -> str:
    """Post the report, or bring the one that is there up to date; answers what was done.

    Without a forge in the settings, an installed ``cml`` posts it, as its own environment says.

    Args:
        run: what is reported.
        request: number of the merge request; None: the one that the CI's variables name.
        against: the target branch's run; None: its newest one.
        link: where the evidence page is; None: as the settings say.

    Raises:
        UsageError: no forge, no merge request, or the server refuses.
        Unreachable: the server does not answer, or `cml` fails.
    """
    settings, state = place.settings.forge, place.state(run)
    if link is None and settings is not None and settings.evidence_url is not None:
        link = settings.evidence_url.replace("{run}", run)
    evidence, page = evidence_of(place, state), _page(place, state, against, link)
    if settings is None:
        return _by_cml(state.model, comment(evidence, page))
    from pipeline.reports import plots

    number = request if request is not None else request_in(os.environ)
    forge = forge_of(settings, number)
    drawn = plots.pictures(Evidence.model_validate(evidence), CAPTIONS)

    def write(pictures: Mapping[str, str]) -> str:
        return comment(evidence, replace(page, pictures={CAPTIONS[name]: url for name, url in pictures.items()}))

    # Each try reads what is there first: an answer that was lost does not make a second comment.
    for attempt in stamina.retry_context(on=Unreachable, attempts=ATTEMPTS, wait_initial=0.3):
        with attempt:
            done = post(forge, state.model, drawn, write)
    return f"{done} in {settings.repository}, merge request {number}"


def markdown(place: Installation, run: str, against: str | None, link: str | None) -> str:
    """The report without pictures, as ``cml comment create`` takes it."""
    state = place.state(run)
    return comment(evidence_of(place, state), _page(place, state, against, link))


def _page(place: Installation, state: RunState, against: str | None, link: str | None) -> Page:
    gate = gate_of(place, state, place.project(state))
    return Page(
        headline=headline(gate),
        rules=gate.verdict.model_dump(mode="json")["rules"],
        may_decide=gate.standing.may_decide if gate.verdict.passed and not gate.open else (),
        target=_target(place, state, against),
        link=link,
    )


def _target(place: Installation, state: RunState, against: str | None) -> Target | None:
    against = against or _newest_on_target(place, state)
    if against is None:
        return None
    other = place.state(against)
    if other.model != state.model:
        raise UsageError(f"run {against} is not of {state.model}", where="--target")
    return Target(against, (other.opened or {})["windows"]["holdout"], other.fact("evaluate")["metrics"])


def _newest_on_target(place: Installation, state: RunState) -> str | None:
    """The newest measured run of the model whose commit is on the target branch; None where git cannot tell."""
    names = ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "CHANGE_TARGET", "GITHUB_BASE_REF")
    branch = next((os.environ[name] for name in names if os.environ.get(name)), None)
    if branch is None:
        return None
    events = place.reader.events(model=state.model)
    commits = {event.run: event.body["code"].get("commit") for event in events if event.kind == "run.opened"}
    for event in reversed(events):
        measured = event.kind == "model.evaluated" and event.run != state.run
        if measured and (commit := commits.get(event.run)) and _is_on(commit, f"origin/{branch}"):
            return event.run
    return None


def _is_on(commit: str, branch: str) -> bool:
    words = ["git", "merge-base", "--is-ancestor", commit, branch]
    try:
        return subprocess.run(words, capture_output=True, timeout=GIT_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _by_cml(model: str, text: str) -> str:
    program = shutil.which("cml")
    if program is None:
        raise UsageError(
            "nowhere to publish",
            where="settings: forge",
            fix="name the server there (infra/forges/README.md), or install cml",
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.md"
        file.write_text(text, encoding="utf-8")
        words = [program, *_CML, f"--watermark-title=gatehouse {model}", str(file)]
        try:
            done = subprocess.run(
                words,
                env={**os.environ, **_CML_QUIET},
                timeout=CML_SECONDS,
                capture_output=True,
                text=True,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise GatehouseError(f"cml failed: {type(error).__name__}", where=program) from error
    if done.returncode:
        raise Unreachable(
            f"cml ended with {done.returncode}", where=program, fix="its own output says why: run it by hand"
        )
    return f"posted by cml: {done.stdout.strip()}"
