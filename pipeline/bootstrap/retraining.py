"""Asks Jenkins for a new model when drift was measured: entered in the ledger first, started once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pipeline.adapters.jenkins_builds import RUN_PARAMETER, Builds
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.jenkins_jobs import jenkins_of
from pipeline.domain.events import Draft
from pipeline.domain.retraining import KIND, NotNow, Wanted, judge, windows
from pipeline.domain.window import Window
from pipeline.errors import UsageError


def retrain(place: Installation, environment: str, model: str | None) -> dict[str, Any]:
    """Ask for a new model if the newest measurement of what serves found drift; safe to run again.

    What is asked for is a row of the ledger before Jenkins hears of it. The run's id comes from the measurement, so a
    start that was lost is found, and sent again only if no build carries it.

    Raises:
        UsageError: nothing serves there, or the settings name no job for the model.
        Unreachable: Jenkins does not answer; running the same command again goes on.
    """
    name = place.model_in(environment, model)
    job = _job(place, name)
    with place.ledger.transaction() as transaction:
        serving = place.environment(name, environment).wanted
        if serving is None:
            raise UsageError(f"nothing serves in {environment}", where="--env", fix="promote a version first")
        project = place.project(place.state(serving.run))
        cool_down = timedelta(days=project.settings.monitor.retrain_after_days)
        events = transaction.events(model=name, environment=environment)
        found = judge(events, serving, cool_down, place.clock())
        if isinstance(found, Wanted) and not any(e.kind == KIND and e.run == found.run for e in events):
            body = {"measured": found.measured, "window": found.window, "job": job, "reason": found.reason}
            transaction.append(Draft(KIND, place.actor, body, found.run, name, environment))
    if isinstance(found, NotNow):
        place.reporter.note(f"nothing is asked for: {found.why}")
        return {"run": None, "why": found.why}
    opened = place.state(serving.run).opened or {}
    train, holdout = windows(Window.parse(found.window), Window.parse(opened["windows"]["train"]))
    return _start(place, job, found, {"TRAIN": str(train), "HOLDOUT": str(holdout)})


def _start(place: Installation, job: str, found: Wanted, span: dict[str, str]) -> dict[str, Any]:
    answer = {"run": found.run, "job": job, "why": found.reason}
    if any(event.kind == "run.opened" for event in place.reader.events(run=found.run)):
        place.reporter.note(f"{found.run} has begun already")
        return answer
    builds = Builds(jenkins_of(place))
    started = builds.find(job, found.run)
    if started is None:
        started = builds.trigger(job, {RUN_PARAMETER: found.run, "REASON": found.reason, **span})
        place.reporter.note(f"asked {job} for {found.run}: {found.reason}")
    else:
        place.reporter.note(f"{found.run} was asked for already")
    return answer | {"build": started.build, "queue": started.queue}


def _job(place: Installation, model: str) -> str:
    jobs = place.settings.jenkins.jobs if place.settings.jenkins else {}
    if model not in jobs:
        raise UsageError(
            f"the settings name no job that trains {model}",
            where="settings: jenkins.jobs",
            fix=f'{model} = "folder/job"',
        )
    return jobs[model]
