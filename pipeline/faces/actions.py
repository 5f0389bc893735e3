"""A GitHub Actions workflow from the stage graph, for GitHub Enterprise Server, Gitea and Forgejo alike.

Syntax: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax. It uses nobody's actions,
because a server without internet has none: git checks out, and one command is a stage. What people typed and what
events bring reaches a shell through its environment only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Literal

from pipeline.faces.generated import seal
from pipeline.graph import STAGES, Stage, slug

FILE = ".github/workflows/gatehouse.yml"
ENVIRONMENTS = {"approval": "gatehouse-approval", "promotion": "gatehouse-production"}
SECRETS = {
    "line": "GATEHOUSE_SETTINGS",
    "approval": "GATEHOUSE_SETTINGS_APPROVAL",
    "promotion": "GATEHOUSE_SETTINGS_PRODUCTION",
}
MINUTES = {"ingest": 120, "train": 1440, "evaluate": 240}
OTHERS_MINUTES = 60

Account = Literal["line", "approval", "promotion"]

_HEAD = """\
name: NAME

on:
  workflow_dispatch:
    inputs:
      train: { description: "Training window, 2013-01..2013-06. Empty: the project's own.", type: string, default: "" }
      holdout: { description: "Hold-out window, 2013-07. Empty: the project's own.", type: string, default: "" }
      seed: { description: "Seed of the training. Empty: the project's own.", type: string, default: "" }
  schedule:
    - cron: "0 3 * * 1"
  pull_request:

permissions:
  contents: read

defaults:
  run:
    shell: bash

env:
  GATEHOUSE_RUN: NAME-github-${{ github.run_id }}
  PROJECT: PATH

jobs:
"""
_CHECK_OUT = """\
      - name: check out
        env:
          TOKEN: ${{ github.token }}
          REPOSITORY: ${{ github.server_url }}/${{ github.repository }}
          COMMIT: ${{ github.sha }}
        run: |
          export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="http.$REPOSITORY.extraheader"
          GIT_CONFIG_VALUE_0="AUTHORIZATION: basic $(printf 'x-access-token:%s' "$TOKEN" | base64 -w0)"
          export GIT_CONFIG_VALUE_0
          git init --quiet .
          git fetch --quiet --depth 1 "$REPOSITORY" "$COMMIT"
          git checkout --quiet --force --detach FETCH_HEAD
          git clean -ffdxq -e /.venv -e /.gatehouse
      - name: set up
        run: scripts/setup
"""
_UNCHANGED = """\
      - name: this file is what the stage graph says
        run: .venv/bin/python -m pipeline export actions --project "$PROJECT" --out FILE --check
"""
_TESTS = """\
  tests:
    if: github.event_name == 'pull_request'
    runs-on: [self-hosted, gatehouse]
    timeout-minutes: 60
    steps:
"""
# The settings hold addresses and accounts: a file of this job alone, gone when its command is.
_SETTINGS = """\
          umask 077
          export GATEHOUSE_SETTINGS="$RUNNER_TEMP/gatehouse-settings.toml"
          trap 'rm -f "$GATEHOUSE_SETTINGS"' EXIT
          printf '%s' "$SETTINGS" > "$GATEHOUSE_SETTINGS"
          unset SETTINGS
"""
_GATEHOUSE = ".venv/bin/python -m pipeline"
_THIS_RUN = '"$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID"'
_BEFORE = {
    "ingest": f"""\
          {_GATEHOUSE} ingest --run "$GATEHOUSE_RUN" --project "$PROJECT" --build {_THIS_RUN} \\
            ${{TRAIN:+--train "$TRAIN"}} ${{HOLDOUT:+--holdout "$HOLDOUT"}} ${{SEED:+--set "training.seed=$SEED"}}
""",
    "gate production": f"""\
          {_GATEHOUSE} gate decide --run "$GATEHOUSE_RUN" --build {_THIS_RUN}
          {_GATEHOUSE} gate check --run "$GATEHOUSE_RUN"
""",
    "register": f"""\
          {_GATEHOUSE} register --run "$GATEHOUSE_RUN"
          {_GATEHOUSE} report markdown --run "$GATEHOUSE_RUN" --out "$RUNNER_TEMP/report.md"
          cat "$RUNNER_TEMP/report.md" >> "$GITHUB_STEP_SUMMARY"
          {_GATEHOUSE} gate show --run "$GATEHOUSE_RUN"
""",
}


def text(name: str, project: str, account_of: Callable[[Stage], Account]) -> str:
    """Render the workflow, sealed.

    Args:
        name: the project's.
        project: its folder, or its ``project.toml``, from the top of the repository.
        account_of: with whose settings a stage acts.
    """
    unchanged = _UNCHANGED.replace("FILE", FILE)
    head = _HEAD.replace("NAME", name).replace("PATH", json.dumps(project, ensure_ascii=False))
    lines = [head, _TESTS, _CHECK_OUT, unchanged, "      - name: tests\n        run: scripts/test\n"]
    for stage in STAGES:
        lines += _job(stage, account_of(stage), unchanged)
    return seal("".join(lines))


def _job(stage: Stage, account: Account, unchanged: str) -> Iterator[str]:
    yield f"\n  {stage.slug}:\n"
    if stage.reads:
        yield f"    needs: [{', '.join(map(slug, stage.reads))}]\n"
    else:
        yield "    if: github.event_name != 'pull_request'\n"
    yield f"    name: {stage.name}\n"
    yield "    runs-on: [self-hosted, gatehouse]\n"
    yield f"    timeout-minutes: {MINUTES.get(stage.name, OTHERS_MINUTES)}\n"
    if account in ENVIRONMENTS:
        yield f"    environment: {ENVIRONMENTS[account]}\n"
    yield "    steps:\n"
    yield _CHECK_OUT
    if not stage.reads:
        yield unchanged
    yield f"      - name: {stage.name}\n        env:\n"
    yield f"          SETTINGS: ${{{{ secrets.{SECRETS[account]} }}}}\n"
    if not stage.reads:
        inputs = ("train", "holdout", "seed")
        yield from (f"          {one.upper()}: ${{{{ github.event.inputs.{one} }}}}\n" for one in inputs)
    yield "        run: |\n"
    yield _SETTINGS
    command = f'          {_GATEHOUSE} {" ".join(stage.command)} --run "$GATEHOUSE_RUN"\n'
    yield _BEFORE.get(stage.name, command)
