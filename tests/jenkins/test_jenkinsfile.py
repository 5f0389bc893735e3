"""The Jenkinsfile is the stage graph's, sound by the checker's rules, and the checker catches what is broken."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from pipeline.bootstrap.runner import account_of
from pipeline.cli import app
from pipeline.graph import STAGES
from tests.jenkins.conftest import HERE, ROOT

JENKINSFILE = ROOT / "Jenkinsfile"
TEXT = JENKINSFILE.read_text(encoding="utf-8")
INFRA = ROOT / "infra" / "jenkins"
BROKEN = sorted((HERE / "broken").glob("*.Jenkinsfile"))


def stages_of(text):
    """Name and text of each stage, in order."""
    parts = re.split(r"^        stage\('([^']+)'\)", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_groovy_files_are_in_the_usual_style():
    linter = shutil.which("npm-groovy-lint")
    if linter is None:
        pytest.skip("npm-groovy-lint is missing (optional); to get it: npm install --global npm-groovy-lint")
    files = [JENKINSFILE, *sorted(INFRA.rglob("*.Jenkinsfile")), *sorted(INFRA.rglob("*.groovy"))]
    command = [linter, "--noserver", "--failon", "warning", "--config", str(ROOT), *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# --- against the graph: always, without Groovy ---


def test_the_stages_are_those_of_the_graph_in_its_order_and_the_tests_of_pull_requests():
    assert list(stages_of(TEXT)) == ["tests", *(stage.name for stage in STAGES)]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_each_stage_runs_the_command_of_the_graph_for_the_run_of_the_build(stage):
    command = f'.venv/bin/python -m pipeline {" ".join(stage.command)} --run "$GATEHOUSE_RUN"'
    assert command in re.sub(r"\s+", " ", stages_of(TEXT)[stage.name])


def test_no_stage_runs_the_command_of_another():
    commands = [" ".join(stage.command) for stage in STAGES]
    for name, text in stages_of(TEXT).items():
        found = [command for command in commands if f"-m pipeline {command} --run" in text]
        assert len(found) == (0 if name == "tests" else 1), name


def test_each_stage_holds_the_credentials_of_its_own_account_and_of_no_other():
    ids = {"line": "gatehouse-settings", "approval": "gatehouse-settings-approval"}
    ids["promotion"] = "gatehouse-settings-production"
    accounts = {stage.name: account_of(stage) for stage in STAGES}
    for name, text in stages_of(TEXT).items():
        bound = re.findall(r"credentials\('([^']+)'\)", text)
        assert bound == ([] if name == "tests" else [ids[accounts[name]]]), name


# --- against the command line ---


def commands_of(text):
    """Every call of the pipeline, one line each, with what the shell would put in replaced by words."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(
        r"(?:-m pipeline|gatehouse ') ?(.+?)(?:'(?:, return\w+: true)?\).*$|'$|$)", joined, flags=re.MULTILINE
    ):
        shown = re.sub(r"\$\{[A-Z]+:\+(.*?)\}(?=\s|$)", r"\1", line).removesuffix("'")
        for decision in ("approve", "reject") if '"$DECISION"' in shown else ("",):
            yield shown.replace('"$DECISION"', decision).split(" > ")[0].split()


def command_of(words):
    """The command that the words name, and the rest of them."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        found = command.commands.get(words[0])
        command, words = (found, words[1:]) if found else (command.commands["page"], words)  # report RUN
    return command, words


@pytest.mark.parametrize("words", list(commands_of(TEXT)), ids=" ".join)
def test_every_command_is_one_that_the_command_line_knows_with_all_that_it_asks_for(words):
    command, words = command_of(words)
    options = {name: parameter for parameter in command.params for name in parameter.opts}
    given = [word for word in words if word.startswith("--")]
    assert set(given) <= set(options)
    required = {
        parameter.opts[0] for parameter in command.params if parameter.required and parameter.opts[0].startswith("--")
    }
    assert required <= set(given)


def test_every_script_that_a_stage_calls_is_there_and_can_be_run():
    for script in set(re.findall(r"sh '(scripts/[\w-]+)", TEXT)):
        assert (ROOT / script).stat().st_mode & 0o100, script


# --- the jobs beside it ---

OTHERS = {
    "approval": {"gatehouse-settings-approval"},
    "monitoring": {"gatehouse-settings-monitoring"},
    "operations": {"gatehouse-settings-production"},
}
# Rules of a pipeline with a gate; these have none, and are built from one branch.
OF_A_GATE = {"milestone-not-queue", "pull-request", "run-id"}


@pytest.mark.parametrize("name", OTHERS)
def test_a_job_beside_the_line_is_sound_and_its_commands_are_known(check, name):
    path = INFRA / f"{name}.Jenkinsfile"
    (findings,) = check([path]).values()
    assert {finding["rule"] for finding in findings} <= OF_A_GATE
    calls = list(commands_of(path.read_text(encoding="utf-8")))
    assert calls
    for command, rest in map(command_of, calls):
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known


@pytest.mark.parametrize("name", OTHERS)
def test_a_job_beside_the_line_binds_its_own_credentials_only(name):
    text = (INFRA / f"{name}.Jenkinsfile").read_text(encoding="utf-8")
    assert set(re.findall(r"credentials\('([^']+)'\)", text)) == OTHERS[name]


def test_the_checker_knows_the_steps_of_the_shared_library():
    steps = {file.stem for file in (INFRA / "library" / "vars").iterdir()}
    known = re.search(r"LIBRARY = \[(.*)\]", (HERE / "checker" / "Grammar.groovy").read_text())[1]
    assert set(re.findall(r"'(\w+)'", known)) == steps


# --- the checker ---


def test_the_jenkinsfile_breaks_no_rule(check):
    assert check([JENKINSFILE])[JENKINSFILE] == []


@pytest.fixture(scope="module")
def broken(check):
    return check(BROKEN)


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_jenkinsfile_is_rejected_by_the_rule_that_it_breaks_where_it_breaks_it(broken, path):
    lines = path.read_text(encoding="utf-8").splitlines()
    expected = set(lines[0].removeprefix("// rule: ").split(", "))
    assert {finding["rule"] for finding in broken[path]} == expected
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("// <- here")}
    assert marked <= {finding["line"] for finding in broken[path]}


MUTATIONS = {
    "the gate is taken out": (
        r"            input \{.*?\n            \}\n",
        "",
        {"production-without-gate", "undeclared-variable"},
    ),
    "an agent stands at the top": (r"    agent none", "    agent { label 'gatehouse' }", {"agent-none"}),
    "anybody may approve": (r" +submitter 'gatehouse-approvers.*\n", "", {"input-submitter"}),
    "nobody asks who approved": (r" +submitterParameter 'APPROVER'\n", "", {"input-submitter-parameter"}),
    "the gate waits for ever": (r" +options \{ timeout\(time: 72.*\n", "", {"input-timeout"}),
    "the lock goes around the gate": (
        r"options \{ timeout\(time: 72, unit: 'HOURS'\) \}.*",
        "options {\n timeout(time: 72, unit: 'HOURS')\n lock(resource: 'production-promotion')\n }",
        {"lock-around-input"},
    ),
    "promotion runs without its lock": (r" +lock\(resource: 'production-promotion'\)\n", "", {"promotion-lock"}),
    "the button alone decides": (r" +sh '.venv/bin/python -m pipeline gate check .*\n", "", {"gate-check"}),
    "the approver is handed over": (
        r"--input Approve-production",
        '--input Approve-production --demo-identity "$APPROVER"',
        {"claimed-approver"},
    ),
    "people are asked before the condition": (r"beforeInput true", "beforeAgent true", {"when-before-input"}),
    "a pull request promotes": (
        r"(stage\('promote production'\) \{\n +when \{\n +beforeAgent true\n +)not \{ changeRequest\(\) \}",
        r"\1branch 'main'",
        {"pull-request"},
    ),
    "a waiting gate is lost in a crash": (r"MAX_SURVIVABILITY", "PERFORMANCE_OPTIMIZED", {"survives-restart"}),
    "a stage forgets the run": (r'train --run "\$GATEHOUSE_RUN"', "train", {"run-id"}),
    "a secret is written into a command": (
        r"sh '.venv/bin/python -m pipeline train .*'",
        'sh ".venv/bin/python -m pipeline train --run ${env.GATEHOUSE_RUN}"',
        {"interpolated-shell"},
    ),
    "a section is misspelt": (r"(stage\('train'\) \{\n +)when", r"\1whene", {"unknown-section", "pull-request"}),
}


@pytest.fixture(scope="module")
def mutated(check, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutated")
    paths = {}
    for name, (pattern, replacement, _) in MUTATIONS.items():
        text, count = re.subn(pattern, replacement, TEXT, count=1, flags=re.DOTALL if "?" in pattern else 0)
        assert count == 1, f"the Jenkinsfile has changed: mend the mutation '{name}'"
        paths[name] = folder / f"{name}.Jenkinsfile"
        paths[name].write_text(text, encoding="utf-8")
    findings = check(paths.values())
    return {name: {finding["rule"] for finding in findings[Path(path)]} for name, path in paths.items()}


@pytest.mark.parametrize("name", MUTATIONS)
def test_it_is_noticed_when(mutated, name):
    assert mutated[name] == MUTATIONS[name][2]
