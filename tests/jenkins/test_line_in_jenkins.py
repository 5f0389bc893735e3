"""The line in Jenkins, end to end: from scripts/trigger to a served model, on the real stack.

The Jenkinsfiles are carried out with real commands against real Postgres, MLflow and model servers; the controller is the
stand-in. People act with the scripts and with their own tokens.
"""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
import requests
from mlflow import MlflowClient

from tests.integration.conftest import SAMPLE
from tests.jenkins.company import APPROVAL, GATE, IMPOSSIBLE, LINE, MONITORING, OPERATIONS, QUICK, Company
from tests.jenkins.conftest import MISSING, groovy_environment
from tests.jenkins.controller import Controller

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(groovy_environment() is None, reason=MISSING),
]

WEBHOOKS = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    from pipeline.adapters.console import ConsoleReporter
    from pipeline.bootstrap import embedded
    from pipeline.embedded import processes, warehouse

    folder = tmp_path_factory.mktemp("a company")
    home = folder / ".gatehouse"
    with (
        pytest.MonkeyPatch.context() as patched
    ):  # MLflow sends webhooks over HTTPS and to public addresses, unless told
        plain = processes.clean_environment
        patched.setattr(processes, "clean_environment", lambda home: plain(home) | WEBHOOKS)
        place = embedded.up(home)
    warehouse.load(place.settings.sources["warehouse"], "2013-01", "2013-08", ConsoleReporter(), sample=SAMPLE)
    with Controller() as controller:
        yield Company(home, controller, folder)
    embedded.down(home)


@pytest.fixture(scope="module")
def line(company):
    return company.primed(LINE)


@pytest.fixture(scope="module")
def served(company, line):
    """A run that went the whole way: started by Ada, decided by Grace in the approval job and by Hedy at the gate."""
    build, followed = company.follow("ada", line, RUN="first", PROJECT=f"{QUICK}/project.toml", REASON="a first model")
    company.asks(build)
    waiting = json.loads(company.shell("grace", "approvals", "--json").stdout)
    company.primed(APPROVAL)
    first = company.begin("grace", APPROVAL, RUN="first", DECISION="approve", WHY="better in every slice")
    company.ended(first)
    still = list(build.pending)
    company.shell("hedy", "approve", company.url(build), "--reason", "agreed")
    return {"build": build, "waiting": waiting, "first": first, "still": still, "followed": followed()}


def stages(build, status):
    return [name for name, state in build.stages.items() if state == status]


# --- the whole line -----------------------------------------------------------------------------------------


def test_a_model_goes_from_a_trigger_to_being_served(company, served):
    build = served["build"]
    assert (build.result, served["followed"].returncode) == ("SUCCESS", 0), company.said(build)
    assert stages(build, "SKIPPED") == ["tests"]
    wanted = company.place().environment("flights", "production").wanted
    assert wanted.run == "first"
    assert company.place().server("production").version()["package"] == wanted.package
    assert "verify production: done" in served["followed"].stdout
    for said in ("train: begins", "gate production: waits for a decision", "SUCCESS"):
        assert said in served["followed"].stderr


def test_what_waits_is_shown_with_all_that_a_decision_needs(company, served):
    (row,) = served["waiting"]
    assert (row["model"], row["version"], row["run"], row["input"]) == ("flights", "1", "first", GATE)
    assert row["verdict"] == "the policy passes; 2 approval(s) missing"
    assert row["may decide"] == "gatehouse-approvers, gatehouse"
    assert 71 < float(row["left"].removesuffix(" h")) <= 72
    page = requests.get(row["evidence"], auth=("grace", company.controller.users["grace"].token), timeout=10)
    assert page.status_code == 200 and "flights" in page.text


def test_the_first_of_two_approvals_does_not_let_the_build_go_on_and_the_second_does(company, served):
    assert served["first"].result == "SUCCESS", company.said(served["first"])
    assert [waiting.id for waiting in served["still"]] == [GATE]
    decided = company.events("first", "approval.decided")
    assert [(row["actor"], row["body"]["reason"]) for row in decided] == [
        ("grace", "better in every slice"),
        ("hedy", "agreed"),
    ]
    assert decided[0]["body"]["proof"] == {"build": company.url(served["first"])}


def test_who_asked_is_whom_jenkins_names(company, served):
    assert company.events("first", "run.opened")[0]["body"]["requester"] == "ada"


def test_the_builds_description_is_an_anchor_of_the_ledger(company, served):
    shown = served["build"].description
    assert shown.startswith("flights version 1: in production as 1, approved by grace, hedy | ledger ")
    anchor = re.search(r"ledger (\d+:sha256:[0-9a-f]{64})", shown)[1]
    company.gatehouse("ledger", "verify", "--anchor", anchor)


def test_each_job_could_do_no_more_than_its_own_account(company, served):
    log = served["build"].log.decode()
    for name in ("gatehouse-settings", "gatehouse-settings-approval", "gatehouse-settings-production"):
        assert f"{name}.toml" not in log
    line = (company.folder / "gatehouse-settings.toml").read_text()
    assert "approval_uri" not in line and "promotion_uri" not in line and "key = " not in line
    settings = company.folder / "gatehouse-settings.toml"
    words = (
        "gate",
        "approve",
        "--run",
        company.copy("first", "stolen"),
        "--reason",
        "mine",
        "--demo-identity",
        "grace",
    )
    assert "Postgres refuses" in company.gatehouse(*words, settings=settings, expected=(2, 4)).stderr


# --- when it does not go well -------------------------------------------------------------------------------


def test_a_gate_nobody_answers_ends_and_can_be_asked_again_and_a_rejection_is_final(company, line, served):
    run = company.copy("first", "slow")
    build = company.asks(company.begin("ada", line, RUN=run))
    company.controller.time_out(build)
    assert company.ended(build).result == "ABORTED"
    assert stages(build, "ABORTED") == ["gate production"]

    again = company.asks(restarted(company, build, "gate production"))
    company.shell("hedy", "reject", company.url(again), "--reason", "worse for night flights")
    assert company.ended(again).result == "FAILURE"
    assert "script returned exit code 4" in again.log.decode()
    assert "rejected by hedy" in again.description

    refused = restart(company, again, "promote production")
    assert refused == {"success": "false", "message": "Failure restarting from stage: no stage promote production"}
    # Replay, by somebody who may configure the job, gets behind the gate.
    environment = {"stage": "promote production", "environment": again.environment}
    company.controller.schedule(again.job, again.parameters, {"shortDescription": "Replayed #2"}, environment)
    behind = company.ended(company.newest(line))
    assert behind.result == "FAILURE"
    assert stages(behind, "FAILURE") == ["promote production"]
    assert "script returned exit code 4" in behind.log.decode()
    assert company.place().environment("flights", "production").wanted.run == "first"


def restarted(company, build, stage):
    assert restart(company, build, stage) == {"success": "true", "message": "ok"}
    return company.newest(build.job.name)


def restart(company, build, stage):
    url = f"{company.url(build)}restart/restartPipeline"
    answer = requests.post(
        url, data={"stageName": stage}, auth=("ada", company.controller.users["ada"].token), timeout=10
    )
    return answer.json()["data"]


def test_a_model_that_the_policy_refuses_asks_nobody(company, line):
    build, followed = company.follow("ada", line, RUN="hopeless", PROJECT=f"{IMPOSSIBLE}/project.toml")
    assert followed().returncode == 1
    assert stages(build, "FAILURE") == ["register"]
    assert "script returned exit code 3" in build.log.decode()
    assert build.description.startswith("flights version 2: the policy refuses (1 rule(s))")
    assert not build.had_input


def test_of_two_builds_at_the_gate_the_older_ends_when_the_newer_is_decided(company, line, served):
    """Both decisions come from the approval job, while the builds wait: the newer goes on by itself."""
    older = company.asks(company.begin("ada", line, RUN=company.copy("first", "older")))
    newer = company.asks(company.begin("ada", line, RUN=challenger(company, "newer")))
    company.primed(APPROVAL)
    for who in ("grace", "hedy"):
        decided = company.begin(who, APPROVAL, RUN="newer", DECISION="approve", WHY=f"{who} has looked")
        assert company.ended(decided).result == "SUCCESS", company.said(decided)
    assert company.ended(newer).result == "SUCCESS", company.said(newer)
    assert company.ended(older).result == "NOT_BUILT"
    assert company.place().environment("flights", "production").wanted.run == "newer"
    assert [row["actor"] for row in company.events("newer", "approval.decided")] == ["grace", "hedy"]
    assert newer.approved_by == ["gatehouse"]


def challenger(company, name):
    """A copy of the first run, compared with what production wants now."""
    wanted = company.place().environment("flights", "production").wanted
    champion = company.events("first", "model.evaluated")[0]["body"]["champion"] or {}
    return company.copy("first", name, model_evaluated={"champion": {**champion, "package": wanted.package}})


def test_what_was_decided_before_the_gate_is_not_asked_for_again(company, line, served):
    run = challenger(company, "early")
    for who in ("grace", "hedy"):
        assert (
            company.ended(company.begin(who, APPROVAL, RUN=run, DECISION="approve", WHY="on my phone")).result
            == "SUCCESS"
        )
    build = company.ended(company.begin("ada", line, RUN=run))
    assert build.result == "SUCCESS", company.said(build)
    assert stages(build, "SKIPPED") == ["tests", "gate production"]
    assert not build.had_input


def test_a_decision_of_two_people_in_one_build_or_of_nobody_is_none(company, line, served):
    run = company.copy("first", "disputed")
    company.primed(APPROVAL)
    job = company.controller.jobs[APPROVAL]
    values = {"RUN": run, "DECISION": "approve", "WHY": "the same words"}
    people = [{"_class": "hudson.model.Cause$UserIdCause", "userId": who} for who in ("grace", "hedy")]
    for causes in (people, [{"_class": "hudson.triggers.TimerTrigger$TimerTriggerCause"}]):
        with company.controller.lock:
            number = company.controller.schedule(job, values, causes[0])[1]
            company.controller.queue[number]["build"].causes[:] = causes
        build = company.ended(company.newest(APPROVAL))
        assert build.result == "FAILURE"
        assert "a decision is one person's" in build.log.decode()
    undecided = company.ended(company.begin("grace", APPROVAL, RUN=run, DECISION="undecided", WHY=""))
    assert "script returned exit code 2" in undecided.log.decode()
    assert company.events(run, "approval.decided") == []


def test_a_trainer_who_starts_the_approval_job_decides_nothing(company, line, served):
    run = company.copy("first", "own")
    company.primed(APPROVAL)
    build = company.ended(company.begin("ada", APPROVAL, RUN=run, DECISION="approve", WHY="it is mine"))
    assert build.result == "FAILURE" and "script returned exit code 4" in build.log.decode()
    assert company.events(run, "approval.decided") == []


def test_a_build_whose_stage_was_killed_is_restarted_from_there_and_goes_on_with_its_run(company, line, served):
    build = company.begin("ada", line, RUN="killed")
    company.wait(lambda: build.stages.get("train") == "IN_PROGRESS" and killed(build.execution.pid))
    assert company.ended(build).result == "FAILURE"
    assert stages(build, "FAILURE") == ["train"]
    assert company.events("killed", "model.trained") == []

    again = restarted(company, build, "train")
    company.wait(lambda: again.stages.get("evaluate") == "IN_PROGRESS" or not again.building)
    company.shell("olga", "abort", company.url(again))
    assert company.ended(again).result == "ABORTED", company.said(again)
    assert stages(again, "SUCCESS") == ["train"]
    for kind in ("run.opened", "data.ingested", "model.trained"):
        assert len(company.events("killed", kind)) == 1, kind


def killed(pid):
    """Kill the command that runs now, if one does."""
    try:
        os.killpg(pid or 0x7FFFFFFF, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


# --- by the clock, by drift, by a webhook -------------------------------------------------------------------


def test_drift_asks_for_a_new_model_once(company, line, served):
    company.primed(MONITORING)
    build, followed = company.follow("olga", MONITORING, WINDOW="2013-08")
    assert followed().returncode == 3, company.said(build)
    assert build.result == "UNSTABLE", company.said(build)
    assert (build.artifacts / "build/monitor/monitor.html").is_file()
    asked = company.newest(line)
    run = asked.parameters["RUN"]
    assert re.fullmatch(r"flights-drift-\d+", run)
    assert (asked.parameters["TRAIN"], asked.parameters["HOLDOUT"]) == ("2013-02..2013-07", "2013-08")
    assert asked.parameters["REASON"].startswith("drift in production, 2013-08: ")
    assert asked.causes[0]["userId"] == "gatehouse-retrain"

    company.shell("olga", "abort", company.url(asked))
    company.ended(asked)

    again = company.follow("olga", MONITORING, WINDOW="2013-08")[1]()
    assert "nothing is asked for: row" in again.stdout
    assert company.newest(line) is asked
    assert len(company.events(run, "retrain.requested")) == 1


def test_the_clock_starts_the_line_and_who_may_can_stop_it(company, line):
    assert [trigger["name"] for trigger in company.controller.jobs[line].triggers] == ["cron", "GenericTrigger"]
    company.controller.tick(company.controller.jobs[line])
    build = company.newest(line)
    company.wait(lambda: build.stages.get("ingest") == "IN_PROGRESS" and build.execution.pid)
    company.shell("ada", "abort", company.url(build), expected=(2,))
    company.shell("olga", "abort", company.url(build))
    assert company.ended(build).result == "ABORTED"
    assert company.events("", "run.opened") == []


def test_a_webhook_lets_the_operators_job_look_now(company, served):
    company.primed(OPERATIONS)
    address = f"{company.controller.url}/generic-webhook-trigger/invoke"
    assert requests.post(address, headers={"token": "another"}, timeout=10).status_code == 404
    answer = requests.post(address, headers={"token": "a webhook's token"}, json={"anything": "at all"}, timeout=10)
    assert list(answer.json()["jobs"]) == [OPERATIONS]
    build = company.ended(company.newest(OPERATIONS))
    assert build.result == "SUCCESS", company.said(build)
    assert [cause["shortDescription"] for cause in build.causes] == ["Asked by a webhook"]


def test_mlflows_own_webhook_has_an_alias_put_back_that_somebody_removed(company, served):
    company.primed(OPERATIONS)
    uri = company.place().settings.mlflow.uri
    mlflow = MlflowClient(uri, uri)
    hint = f"{company.controller.url}/generic-webhook-trigger/invoke?token=a%20webhook%27s%20token"
    mlflow.create_webhook("look-now", hint, ["model_version_alias.deleted"])
    before = company.newest(OPERATIONS)
    champion = mlflow.get_model_version_by_alias("prod.flights", "champion").version
    mlflow.delete_registered_model_alias("prod.flights", "champion")
    company.wait(lambda: company.newest(OPERATIONS) is not before)
    build = company.ended(company.newest(OPERATIONS))
    assert build.result == "SUCCESS", company.said(build)
    assert mlflow.get_model_version_by_alias("prod.flights", "champion").version == champion
