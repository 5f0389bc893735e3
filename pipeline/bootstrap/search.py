"""The Optuna search: each trial is a nested MLflow run, judged on the validation part of the training window."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import optuna

from pipeline.bootstrap.installation import Installation
from pipeline.config.project import Project, SearchRange
from pipeline.domain.state import RunState
from pipeline.ports import Columns
from pipeline.stages import train as stage

SCORE = "search_valid_auc"


class _NoCheckpoints:
    """A trial is short: it starts again rather than going on."""

    def latest(self) -> bytes | None:
        return None

    def save(self, step: int, data: bytes) -> None:
        del step, data


def best_parameters(
    place: Installation,
    state: RunState,
    project: Project,
    recipe: stage.Recipe,
    columns: Columns,
    framework: stage.Framework,
    run_id: str,
) -> stage.Recipe:
    """The recipe with the best parameters found.

    A trial that MLflow already has a score of is not run again: a killed search goes on where it was. Each
    trial's sampler is seeded by its own number, so that it proposes the same however often it was interrupted.
    """
    search = project.settings.search
    assert search is not None
    optuna.logging.set_verbosity(logging.WARNING)
    study = optuna.create_study(direction="maximize")
    with place.reporter.track("searching", total=search.trials) as tracker:
        for number in range(search.trials):
            study.sampler = optuna.samplers.TPESampler(seed=recipe.seed + number)
            trial = study.ask()
            proposed = {name: _suggest(trial, name, space) for name, space in search.space.items()}
            tried = replace(recipe, parameters={**recipe.parameters, **proposed})
            name = f"{state.run}-trial-{number:03d}"
            nested = place.mlflow.ensure_run(project.settings.name, state.run, name=name, tags={}, parent=run_id)
            score = place.mlflow.get_run(nested).data.metrics.get(SCORE)
            if score is None:
                score = _try(place, tried, columns, framework, nested)
            study.tell(trial, score)
            tracker.say(f"best validation AUC {study.best_value:.4f}")
            tracker.advance()
    return replace(recipe, parameters={**recipe.parameters, **study.best_params})


def _try(place: Installation, recipe: stage.Recipe, columns: Columns, framework: stage.Framework, nested: str) -> float:
    place.mlflow.log(nested, parameters=recipe.parameters)
    _, fitted = stage.fit(
        recipe,
        columns,
        framework=framework,
        checkpoints=_NoCheckpoints(),
        tracking=place.mlflow,
        run_id=nested,
        reporter=place.reporter,
    )
    score: float = max(epoch.valid_auc for epoch in fitted.history if epoch.valid_auc is not None)
    place.mlflow.log(nested, metrics={SCORE: score})
    place.mlflow.finish_run(nested)
    return score


def _suggest(trial: optuna.Trial, name: str, space: SearchRange) -> Any:
    if space.choices:
        return trial.suggest_categorical(name, list(space.choices))
    assert space.low is not None and space.high is not None
    if space.integer:
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)
