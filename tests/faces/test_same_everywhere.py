"""One project, whoever carries it: the same data, the same weights, the same evidence."""

from __future__ import annotations

import os
import re
import subprocess
from shlex import quote

import pytest
import yaml

from tests.faces.carriers import Machine, part, run_locally
from tests.faces.github import WORKFLOW, Site
from tests.faces.late import write_project
from tests.faces.workflow import Runner
from tests.forges.servers import REQUEST, TOKEN, Gitea
from tests.jenkins.company import LATE, LINE, Company
from tests.jenkins.conftest import MISSING, ROOT, groovy_environment
from tests.jenkins.controller import Controller

pytestmark = pytest.mark.integration

TRAINING = ("ingest", "validate", "train", "evaluate", "register")
KUBEFLOW = 'image = "python-gatehouse:1"\nproject = "/project"\nsettings = { line = "gatehouse" }\n'


@pytest.fixture(scope="module")
def company(stack):
    """A stack with a source of flights, and a repository with the project and its workflow; it has no champion yet."""
    with Controller() as controller:
        company = Company(stack.home, controller, stack.home.parent)
        company.gatehouse("export", "actions", "--project", LATE, cwd=company.source)
        git(company.source, "add", "--all")
        git(company.source, "commit", "--quiet", "-m", "a workflow")
        yield company


@pytest.fixture(scope="module")
def project(company):
    return company.source / LATE


@pytest.fixture(scope="module")
def site(company):
    """A GitHub with that repository; Ada has started run 7 of its workflow."""
    with Site(company.source) as site:
        site.started(7, "ada", git(company.source, "rev-parse", "HEAD"))
        yield site


@pytest.fixture(scope="module")
def workflow(company, site, tmp_path_factory):
    return runner(company, site, 7, tmp_path_factory.mktemp("runner"))


def git(folder, *words):
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def runner(company, site, number, folder, event="workflow_dispatch"):
    """A run of the repository's workflow; each environment has its own account's settings as a secret."""
    token = company.folder / "github-token"
    token.write_text(site.token)
    more = f'\n[github]\nurl = "{site.url}"\nrepository = "mlops/flights"\ntoken_file = "{token}"\n'

    def settings(account):
        return (company.folder / f"gatehouse-settings{account}.toml").read_text() + more

    github = {
        "event_name": event,
        "event": {"inputs": {"seed": ""}},
        "run_id": number,
        "sha": git(company.source, "rev-parse", "HEAD"),
        "server_url": site.url,
        "repository": "mlops/flights",
        "token": site.token,
    }
    environments = {
        "gatehouse-approval": {
            "reviewers": True,
            "secrets": {"GATEHOUSE_SETTINGS_APPROVAL": settings("-approval")},
        },
        "gatehouse-production": {"secrets": {"GATEHOUSE_SETTINGS_PRODUCTION": settings("-production")}},
    }
    variables = {"GATEHOUSE_VENV": str(ROOT / ".venv")}
    text = (company.source / WORKFLOW).read_text()
    return Runner(text, folder, github, {"GATEHOUSE_SETTINGS": settings("")}, environments, variables)


def by_hand(company, project, tmp_path):
    company.gatehouse("run", "--run", "by-hand", "--project", str(project), "--until", "register")
    return "by-hand"


def by_jenkins(company, project, tmp_path):
    if groovy_environment() is None:
        pytest.skip(MISSING)
    build = company.begin("ada", company.primed(LINE), RUN="by-jenkins", PROJECT=f"{LATE}/project.toml")
    company.wait(lambda: build.stages.get("register") == "SUCCESS" or not build.building)
    build.execution.stop("ABORTED", "far enough")
    company.ended(build)
    return "by-jenkins"


def by_dvc(company, project, tmp_path):
    machine = Machine(tmp_path, company.settings_file)
    folder = write_project(tmp_path / "project")
    machine.init_dvc(folder, "--no-scm")
    machine("gatehouse", "export", "dvc", cwd=folder)
    said = machine("dvc", "repro", "register", cwd=folder)
    return re.search(r"^run (late-[0-9a-f]{12})$", said, re.MULTILINE)[1]


def by_kubeflow(company, project, tmp_path):
    (tmp_path / "kubeflow.toml").write_text(KUBEFLOW)
    words = ("--with", str(tmp_path / "kubeflow.toml"), "--out", str(tmp_path / "all.yaml"))
    company.gatehouse("export", "kubeflow", "--project", str(project), *words)
    pipeline = part(tmp_path / "all.yaml", tmp_path / "part.yaml", *TRAINING)
    run_locally(pipeline, company.settings_file, tmp_path, run="by-kubeflow", project=str(project))
    return "by-kubeflow"


def by_actions(company, project, tmp_path, workflow):
    workflow.go(until="register")
    assert workflow.states["register"] == "success", workflow.log[-6000:]
    return "late-github-7"


@pytest.fixture(scope="module")
def reference(company, project, tmp_path_factory):
    return digests(company, by_hand(company, project, tmp_path_factory.mktemp("by hand")))


def digests(company, run):
    """Of data, weights, package and evidence."""
    state = company.place().state(run)
    parts = {name: part["digest"] for name, part in state.fact("ingest")["parts"].items()}
    trained, evaluated = state.fact("train"), state.fact("evaluate")
    return parts | {"weights": trained["weights"], "package": trained["package"], "results": evaluated["results"]}


@pytest.mark.parametrize("carry", [by_jenkins, by_dvc, by_kubeflow])
def test_the_same_comes_out(company, project, reference, carry, tmp_path):
    assert digests(company, carry(company, project, tmp_path)) == reference


def test_the_same_comes_out_of_github_actions(company, project, reference, workflow, tmp_path):
    assert digests(company, by_actions(company, project, tmp_path, workflow)) == reference


def test_another_seed_is_another_model(company, project, reference):
    opening = ("--project", str(project), "--set", "training.seed=8")
    for stage in TRAINING:
        company.gatehouse(stage, "--run", "other", *(opening if stage == "ingest" else ()))
    other = digests(company, "other")
    assert {name for name in reference if other[name] != reference[name]} == {"weights", "package", "results"}


# --- GitHub Actions: the gate -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(company, workflow):
    """What the job in the approval environment has, as a file."""
    file = company.folder / "of the approval environment.toml"
    file.write_text(workflow.environments["gatehouse-approval"]["secrets"]["GATEHOUSE_SETTINGS_APPROVAL"])
    return file


def decide(company, site, settings, number=7, run="late-github-7", expected=(0,)):
    url = f"{site.url}/mlops/flights/actions/runs/{number}"
    return company.gatehouse(
        "gate", "decide", "--run", run, "--build", url, settings=settings, expected=expected
    ).stderr


def test_it_waits_for_a_review_and_who_asked_is_whom_github_names(company, workflow):
    workflow.go()
    assert workflow.states["verify-staging"] == "success", workflow.log[-6000:]
    assert workflow.states["gate-production"] == workflow.states["promote-production"] == "waiting"
    assert company.events("late-github-7", "run.opened")[0]["body"]["requester"] == "ada"
    assert "1 approval(s) missing" in workflow.summary


@pytest.mark.parametrize(
    ("review", "says"),
    [
        ({"user": "ada", "comment": "mine"}, "own"),
        ({"user": "eve", "comment": "let it through"}, "eve"),
        ({"user": "grace"}, "gave no reason"),
        ({"user": "ci[bot]", "comment": "ok", "kind": "Bot"}, "no person"),
    ],
)
def test_a_review_that_does_not_count(company, site, workflow, settings, review, says):
    kept = list(site.reviews[7])
    site.review(7, **review)
    try:
        assert says in decide(company, site, settings, expected=(4,))
    finally:
        site.reviews[7] = kept
    assert not company.events("late-github-7", "approval.decided")


def test_a_review_of_something_else_decides_nothing(company, site, workflow, settings):
    site.review(7, "grace", comment="to staging", environment="somewhere")
    decide(company, site, settings)
    commit = site.runs[7]["head_sha"]
    site.started(8, "ada", commit)
    site.review(8, "grace", comment="another run's")
    assert "of another run" in decide(company, site, settings, number=8, expected=(4,))
    for field, value, says in (("head_sha", "0" * 40, "opened from commit"), ("path", "mine.yml", "decides nothing")):
        kept = site.runs[7][field]
        site.runs[7][field] = value
        assert says in decide(company, site, settings, expected=(4,))
        site.runs[7][field] = kept
    assert not company.events("late-github-7", "approval.decided")


def test_a_server_in_trouble_is_said_without_the_token(company, site, settings):
    elsewhere = (301, {}, [("Location", "http://127.0.0.1:1/")])
    for answer, code, says in (
        ((401, {}), 2, "does not know this token"),
        ((403, {}), 2, "refuses this token"),
        ((404, {}), 2, "no such run"),
        (elsewhere, 2, "sends elsewhere"),
        ((200, []), 2, "not what GitHub's API gives"),
    ):
        site.answers.append(answer)
        said = decide(company, site, settings, expected=(code,))
        assert says in said and site.token not in said
    site.answers += [(429, {}, [("Retry-After", "0")]), (502, {})]
    decide(company, site, settings)  # tried again
    site.answers += [(503, {})] * 4
    assert "GitHub answers 503" in decide(company, site, settings, expected=(6,))
    site.answers.clear()


def test_a_reviewer_lets_it_into_production(company, site, workflow):
    site.review(7, "grace", comment="better in every slice")
    workflow.go(reviewed=["gatehouse-approval"])
    assert set(workflow.states.values()) == {"success", "skipped"}, workflow.log[-6000:]
    (decided,) = company.events("late-github-7", "approval.decided")
    assert (decided["actor"], decided["body"]["assurance"]) == ("grace", "github")
    assert decided["body"]["reason"] == "better in every slice"
    assert company.place().environment("late", "production").wanted.run == "late-github-7"
    assert company.events("late-github-7", "model.verified")


def test_no_secret_is_printed_and_none_is_left(company, site, workflow):
    ledger = company.place().settings.ledger
    assert all(secret not in workflow.said for secret in (site.token, ledger.uri, ledger.approval_uri))
    assert not list(workflow.folder.rglob("gatehouse-settings.toml"))


def test_the_same_review_is_recorded_once(company, site, settings):
    before = company.place().ledger.head()
    assert "said this already" in decide(company, site, settings)
    assert company.place().ledger.head() == before


def test_a_workflow_edited_by_hand_ends_in_its_first_job(company, site, tmp_path):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(company.source), str(clone))
    text = (clone / WORKFLOW).read_text()
    edited = text.replace('gate check --run "$GATEHOUSE_RUN"', "--help")
    assert edited != text
    (clone / WORKFLOW).write_text(edited)
    git(clone, "commit", "--quiet", "--all", "-m", "quicker")
    run = runner(company, site, 9, tmp_path / "runner")
    run.workflow = yaml.safe_load(edited)
    run.github["sha"] = git(clone, "rev-parse", "HEAD")
    git(company.source, "fetch", "--quiet", str(clone), "HEAD")
    git(company.source, "config", "uploadpack.allowAnySHA1InWant", "true")
    run.go()
    assert run.states["ingest"] == "failure" and run.states["train"] == "skipped"
    assert "edited by hand" in run.log
    assert "-          .venv/bin/python -m pipeline --help" in run.log


def test_a_pull_request_runs_the_tests_and_nothing_else(company, site, tmp_path):
    run = runner(company, site, 10, tmp_path, event="pull_request")
    begun = []
    run.job = lambda name, *_: begun.append(name) or "success"
    run.go()
    assert begun == ["tests"]
    steps = run.workflow["jobs"]["tests"]["steps"]
    assert steps[-1]["run"] == "scripts/test" and "secrets" not in str(steps)


# --- the report in the merge request ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(company, tmp_path_factory):
    """A branch's checkout, as a CI has it."""
    folder = tmp_path_factory.mktemp("branch")
    git(folder, "clone", "--quiet", str(company.source), ".")
    return folder


def test_the_report_is_posted_beside_the_target_branchs_newest_run(company, clone, workflow, monkeypatch):
    with Gitea() as server:
        token = company.folder / "forge-token"
        token.write_text(TOKEN)
        about = f'kind = "gitea"\nurl = "{server.url}"\nrepository = "{server.repository}"\ntoken_file = "{token}"\n'
        settings = company.folder / "with a forge.toml"
        more = 'evidence_url = "https://ci.example/{run}/evidence.html"\n'
        settings.write_text(f"{company.settings_file.read_text()}\n[forge]\n{about}{more}")
        monkeypatch.setenv("GITHUB_REF", f"refs/pull/{REQUEST}/merge")
        monkeypatch.setenv("GITHUB_BASE_REF", "main")
        publish = ("report", "publish", "--run", "other")
        assert "posted" in company.gatehouse(*publish, settings=settings, cwd=clone).stdout
        assert "already there" in company.gatehouse(*publish, settings=settings, cwd=clone).stdout
        (note,) = server.notes.values()
    newest = [row["run"] for row in company.events(None, "model.evaluated") if row["run"] != "other"][-1]
    assert f"The target branch's newest run is `{newest}`." in note["body"]
    assert "(https://ci.example/other/evidence.html)" in note["body"]
    assert "/attachments/late-roc-" in note["body"]


def test_where_cml_is_installed_it_posts_and_sends_nothing_to_its_maker(company, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "cml"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nfor last; do :; done\ncp "$last" {quote(str(tmp_path))}/posted.md\ncd {quote(str(tmp_path))}\n'
        'printf "%s\\n" "$@" > words\necho "$ITERATIVE_DO_NOT_TRACK" >> words\necho https://git.example/comment/1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert "https://git.example/comment/1" in company.gatehouse("report", "publish", "--run", "other").stdout
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:5] == ["comment", "create", "--update", "--publish=false", "--watermark-title=gatehouse late"]
    assert words[-1] == "true"
    company.gatehouse("report", "markdown", "--run", "other", "--out", str(tmp_path / "report.md"))
    assert (tmp_path / "report.md").read_text() == (tmp_path / "posted.md").read_text()
    assert "| auc |" in (tmp_path / "report.md").read_text()


def test_without_a_server_and_without_cml_it_says_what_is_missing(company, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "settings: forge" in company.gatehouse("report", "publish", "--run", "other", expected=(2,)).stderr


def test_the_evidence_page_is_written_as_before(company, tmp_path):
    said = company.gatehouse("report", "by-hand", "--out", str(tmp_path / "evidence")).stdout
    assert "evidence page" in said and (tmp_path / "evidence" / "evidence.html").is_file()
