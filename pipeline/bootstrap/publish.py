"""The report in the merge request: one comment for each model, written once and kept up to date."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
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
    settings = place.settings.forge
    if settings is None:
        return _by_cml(place, run, against, link)
    from pipeline.reports import plots

    number = request if request is not None else request_in(os.environ)
    forge = forge_of(settings, number)
    link = link or (settings.evidence_url.replace("{run}", run) if settings.evidence_url else None)
    model = str((place.state(run).opened or {})["project"])
    drawn = plots.pictures(Evidence.model_validate(evidence_of(place, place.state(run))), CAPTIONS)

    def write(pictures: Mapping[str, str]) -> str:
        return _report(place, run, against, link, {CAPTIONS[name]: url for name, url in pictures.items()})

    # Each try reads what is there first: an answer that was lost does not make a second comment.
    for attempt in stamina.retry_context(on=Unreachable, attempts=ATTEMPTS, wait_initial=0.3):
        with attempt:
            done = post(forge, model, drawn, write)
    return f"{done} in {settings.repository}, merge request {number}"


def markdown(place: Installation, run: str, against: str | None, link: str | None) -> str:
    """The report without pictures, as ``cml comment create`` takes it."""
    return _report(place, run, against, link, {})


def _report(place: Installation, run: str, against: str | None, link: str | None, pictures: Mapping[str, str]) -> str:
    state = place.state(run)
    gate = gate_of(place, state, place.project(state))
    page = Page(
        headline=headline(gate),
        rules=gate.verdict.model_dump(mode="json")["rules"],
        may_decide=gate.standing.may_decide if gate.verdict.passed and not gate.open else (),
        target=_target(place, state, against),
        pictures=pictures,
        link=link,
    )
    return comment(evidence_of(place, state), page)


def _target(place: Installation, state: RunState, against: str | None) -> Target | None:
    model = str((state.opened or {})["project"])
    if against is None:
        against = _newest_on_target(place, state, model)
    if against is None:
        return None
    other = place.state(against)
    opened = other.opened or {}
    if opened.get("project") != model:
        raise UsageError(f"run {against} is not of {model}", where="--target")
    return Target(against, opened["windows"]["holdout"], other.fact("evaluate")["metrics"])


def _newest_on_target(place: Installation, state: RunState, model: str) -> str | None:
    """The newest measured run of the model whose commit is on the target branch; None where git cannot tell."""
    names = ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "CHANGE_TARGET", "GITHUB_BASE_REF")
    branch = next((os.environ[name] for name in names if os.environ.get(name)), None)
    if branch is None:
        return None
    commits = {
        event.run: event.body["code"].get("commit")
        for event in place.reader.events(model=model)
        if event.kind == "run.opened"
    }
    measured = [event.run for event in place.reader.events(model=model) if event.kind == "model.evaluated"]
    for run in reversed(measured):
        if run and run != state.run and (commit := commits.get(run)) and _is_on(commit, f"origin/{branch}"):
            return run
    return None


def _is_on(commit: str, branch: str) -> bool:
    words = ["git", "merge-base", "--is-ancestor", commit, branch]
    try:
        return subprocess.run(words, capture_output=True, timeout=GIT_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _by_cml(place: Installation, run: str, against: str | None, link: str | None) -> str:
    program = shutil.which("cml")
    if program is None:
        raise UsageError(
            "nowhere to publish",
            where="settings: forge",
            fix="name the server there (infra/forges/README.md), or install cml",
        )
    model = str((place.state(run).opened or {})["project"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.md"
        file.write_text(markdown(place, run, against, link), encoding="utf-8")
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
