"""Joins the evaluate stage: fetches challenger and champion, measures, and stores evidence and page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.adapters import latency, snapshot
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.steps import load_model, snapshot_table
from pipeline.config import Project
from pipeline.domain import changes
from pipeline.domain.canonical import canonical, digest_file
from pipeline.domain.drift import Profile, compare
from pipeline.domain.evidence import (
    Change,
    Check,
    Data,
    Drift,
    Evidence,
    FeatureDrift,
    Lineage,
    Parity,
    Rows,
    Subject,
    Training,
    Windows,
)
from pipeline.domain.state import RunState
from pipeline.ports import Columns
from pipeline.reports import evidence as page
from pipeline.stages import evaluate as stage
from pipeline.stages.train import labels

LATENCY_ROWS = 2_000


class Part(NamedTuple):
    """One part's rows, and their labels, float64 [n]."""

    columns: Columns
    y: NDArray[np.float64]


def evaluate(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
    """Run the stage; answers its fact."""
    trained, settings = state.fact("train"), project.settings.evaluation
    holdout = snapshot.columns(snapshot_table(place, state, "holdout"))
    y = labels(holdout, project.settings.source.target)
    rival = _rival(place, project)
    challenger = load_model(place, trained["package"], trained["uri"])
    sample = {name: values[:LATENCY_ROWS] for name, values in holdout.items()}
    timed = latency.measure_latency(challenger.predict, sample)
    measured = stage.measure(
        y,
        holdout,
        challenger,
        rival,
        slices=settings.slices,
        target=project.settings.source.target,
        resamples=settings.resamples,
        seed=project.settings.training.seed,
        champion_latency=latency.measure_latency(rival.model.predict, sample) if rival else None,
        reporter=place.reporter,
    )
    train = snapshot.columns(snapshot_table(place, state, "train"))
    parts = {"train": Part(train, labels(train, project.settings.source.target)), "holdout": Part(holdout, y)}
    evidence = _evidence(place, state, project, measured, timed, parts, rival)
    return _store(place, state, evidence)


def _rival(place: Installation, project: Project) -> stage.Rival | None:
    wanted = place.environment(project.settings.name, "production").wanted
    if wanted is None:
        return None
    trained = place.state(wanted.run).fact("train")
    model = load_model(place, wanted.package, wanted.uri)
    return stage.Rival(wanted, model, trained["weights"], trained["package_bytes"], trained["parameters"])


def _evidence(
    place: Installation,
    state: RunState,
    project: Project,
    measured: stage.Measured,
    timed: Any,
    parts: Mapping[str, Part],
    rival: stage.Rival | None,
) -> Evidence:
    settings, trained, data = project.settings, state.fact("train"), state.fact("ingest")
    opened = state.opened or {}
    train, holdout = parts["train"], parts["holdout"]
    return Evidence(
        run=state.run,
        project=settings.name,
        model=settings.name,
        environment="production",
        created=place.clock().isoformat(),
        requester=opened["requester"],
        author=opened["code"].get("author"),
        target=settings.source.target,
        windows=Windows(**opened["windows"]),
        rows=Rows(train=len(train.y), holdout=len(holdout.y), holdout_positives=int(holdout.y.sum())),
        subject=Subject(
            package=trained["package"],
            weights=trained["weights"],
            data=data["digest"],
            code=opened["code"]["digest"],
            policy=opened["policy_digest"],
        ),
        candidate=measured.candidate,
        champion=measured.champion,
        differences=measured.differences,
        resamples=settings.evaluation.resamples,
        slices=measured.slices,
        relies_on=measured.relies_on,
        latency=timed,
        package_bytes=trained["package_bytes"],
        parity=Parity(**trained["parity"]),
        data=_data(state, project, parts),
        drift=_drift(place, state, project, holdout.columns),
        parameters=trained["parameters"],
        changes=_changes(place, state, project, rival) if rival else (),
        diff=changes.diff(_files(place.state(rival.placement.run)), _files(state)) if rival else (),
        training=Training(**trained["training"]),
        lineage=_lineage(state),
    )


def _changes(place: Installation, state: RunState, project: Project, rival: stage.Rival) -> tuple[Change, ...]:
    """What changed since the champion's run, from what both runs were opened with."""
    champion = place.state(rival.placement.run)
    before, after = champion.opened or {}, state.opened or {}
    old, new = champion.fact("train"), state.fact("train")
    return (
        *changes.between("data", before["windows"], after["windows"]),
        *changes.between("data", _rows_of(champion), _rows_of(state)),
        *changes.of_code(_files(champion), _files(state)),
        *changes.between("code", _commit_of(before), _commit_of(after)),
        *changes.between("parameter", rival.parameters, new["parameters"]),
        *changes.of_policy(place.project(champion).settings.gate, project.settings.gate),
        *changes.between("library", old["training"]["libraries"], new["training"]["libraries"]),
    )


def _files(state: RunState) -> Mapping[str, str]:
    return (state.opened or {})["files"]  # type: ignore[no-any-return]  # a ledger's JSON


def _commit_of(opened: Mapping[str, Any]) -> Mapping[str, str | None]:
    code = opened["code"]
    return {
        "commit": f"{code['commit'][:12]}{' with changes' if code.get('dirty') else ''}" if code.get("commit") else None
    }


def _rows_of(state: RunState) -> Mapping[str, int]:
    return {f"rows of {name}": part["rows"] for name, part in state.fact("ingest")["parts"].items()}


def _data(state: RunState, project: Project, parts: Mapping[str, Part]) -> Data:
    verdict = state.fact("validate")
    months = [
        month
        for name, part in parts.items()
        for month in stage.months(name, part.columns[project.settings.source.time], part.y)
    ]
    return Data(
        checks_passed=verdict["passed"],
        checks=tuple(Check(part=part, rule="schema, keys, nulls, classes", passed=True) for part in verdict["parts"]),
        months=tuple(months),
        columns=stage.describe(parts["train"].columns),
    )


def reference_profile(place: Installation, trained: Mapping[str, Any]) -> Profile:
    """The training reference that drift is measured against, verified."""
    import json

    fact = trained["profile"]
    path = place.artifact(fact["digest"], fact["uri"])
    return Profile.from_json(json.loads(path.read_bytes()))


def _drift(place: Installation, state: RunState, project: Project, holdout: Columns) -> Drift:
    settings = project.settings
    thresholds = settings.monitor.thresholds
    ignore = {*settings.unwatched, settings.source.target}
    found = compare(reference_profile(place, state.fact("train")), holdout, thresholds, ignore=ignore)
    features = tuple(
        FeatureDrift(
            feature=row.feature,
            psi=row.psi,
            ks=row.ks,
            js=row.js,
            null_reference=row.null_reference,
            null_current=row.null_current,
            unseen=row.unseen_share,
            drifted=row.verdict == "drifted",
            note=row.rule,
        )
        for row in found
    )
    return Drift(
        reference=settings.window.train, current=settings.window.holdout, psi_limit=thresholds.psi, features=features
    )


def _lineage(state: RunState) -> tuple[Lineage, ...]:
    opened, data, trained = state.opened or {}, state.fact("ingest"), state.fact("train")
    parts = [
        Lineage(what=f"snapshot: {name}", identity=f"{part['window']}, {part['rows']} rows", digest=part["digest"])
        for name, part in data["parts"].items()
    ]
    code, came = opened["code"], opened.get("imported")
    words = came and f"approved at its source by {', '.join(came['approved_by'])}; ledger {came['source']['head']}"
    return (
        *([Lineage(what="bundle", identity=words, digest=came["bundle"])] if came else []),
        Lineage(what="project", identity=code.get("commit") or "not in a repository", digest=code["digest"]),
        *parts,
        Lineage(what="weights", identity=trained["tracked_run"], digest=trained["weights"]),
        Lineage(what="package", identity=trained["uri"], digest=trained["package"]),
        Lineage(what="training reference", identity=trained["profile"]["uri"], digest=trained["profile"]["digest"]),
    )


def _store(place: Installation, state: RunState, evidence: Evidence) -> Mapping[str, Any]:
    trained = state.fact("train")
    content = evidence.to_json()
    with place.cache.scratch() as scratch:
        folder = Path(scratch) / "evidence"
        folder.mkdir()
        for name, data in page.render(content).items():
            (folder / name).write_bytes(data)
        file = folder / "evidence.json"
        file.write_bytes(canonical(content))
        place.cache.put(file)
        uri = place.mlflow.upload(trained["tracked_run"], folder, "evidence")
        digest = digest_file(file)
    place.mlflow.log(
        trained["tracked_run"],
        metrics={f"holdout_{name}": value for name, value in stage.headline(evidence).items()},
        tags={"gatehouse.evidence": evidence.digest},
        of=trained["uri"],
    )
    place.mlflow.finish_run(trained["tracked_run"])
    champion = evidence.champion
    return {
        "evidence": evidence.digest,
        "evidence_file": digest,
        "results": evidence.results,
        "uri": f"{uri}/evidence.json",
        "metrics": stage.headline(evidence),
        "champion": champion and {"package": champion.package, "version": champion.version, "run": champion.run},
    }
