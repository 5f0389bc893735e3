"""The Jenkinsfile executed: its stages in Jenkins' order, its commands really run, against a stub of the pipeline.

The stub stands where a checkout has ``.venv/bin/python``. It keeps what a ledger would keep in a folder of its own, so
that a promotion without an approval is refused with exit code 4, whatever the Jenkinsfile does.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field

import pytest

from pipeline.graph import STAGES
from tests.jenkins.conftest import ROOT

GATE = "Approve-production"
PRODUCTION = [stage.name for stage in STAGES if stage.environment == "production" and not stage.gate]
APPROVE = {"act": "proceed", "user": "grace", "parameters": {"DECISION": "approve", "WHY": "good"}}
CREDENTIALS = {
    "gatehouse-settings": "/run/secret-line",
    "gatehouse-settings-approval": "/run/secret-approval",
    "gatehouse-settings-production": "/run/secret-production",
}

STUB = r"""#!/bin/sh
# Stands in for the pipeline: notes each call, keeps a small ledger, fails where a test says so.
shift 2
run=$GATEHOUSE_RUN
printf '%s|%s|%s|%s\n' "$run" "$GATEHOUSE_SETTINGS" "$PWD" "$*" >> "$STUB_LEDGER/calls"
for word in "$@"; do printf '<%s>' "$word" >> "$STUB_LEDGER/words"; done; echo >> "$STUB_LEDGER/words"
fail=$(sed -n "s/^$1 *\($2\)\{0,1\} *= *//p" "$STUB_LEDGER/fail" 2>/dev/null | head -1)
case "$1 $2" in
    "report "*) mkdir -p build/evidence; echo page > build/evidence/evidence.html
                echo '<testsuite><testcase name="auc"/></testsuite>' > build/junit.xml ;;
    "gate show") case "$*" in
        *"--only gate") [ -e "$STUB_LEDGER/approved-$run" ] && echo open || echo closed; exit 0 ;;
        *"--only line") [ -n "$fail" ] && said="the policy refuses (1 rule(s))" || said="the policy passes; 1 approval(s) missing"
                        echo "flights version 7: $said | ledger 9:sha256:ab"; exit 0 ;;
        esac ;;
    "gate approve") touch "$STUB_LEDGER/approved-$run" ;;
    "gate reject") touch "$STUB_LEDGER/rejected-$run" ;;
    "gate check") [ -e "$STUB_LEDGER/approved-$run" ] || exit 4 ;;
    "gate "*) exit 2 ;;
    "promote --env") if [ "$3" = production ]; then [ -e "$STUB_LEDGER/approved-$run" ] || exit 4; fi ;;
esac
if [ "$fail" = kill ]; then kill -9 $$; fi
exit ${fail:-0}
"""


@dataclass
class Scenario:
    answers: dict = field(default_factory=lambda: {GATE: APPROVE})
    fail: str = ""
    plan: dict = field(default_factory=dict)


SCENARIOS = {
    "approved": Scenario(),
    "rejected": Scenario(
        {GATE: {"act": "proceed", "user": "grace", "parameters": {"DECISION": "reject", "WHY": "no"}}}
    ),
    "undecided": Scenario(
        {GATE: {"act": "proceed", "user": "grace", "parameters": {"DECISION": "undecided", "WHY": ""}}}
    ),
    "aborted": Scenario({GATE: {"act": "abort", "user": "grace"}}),
    "timed out": Scenario({GATE: {"act": "timeout"}}),
    "refused by the policy": Scenario({}, "gate show = 3"),
    "killed in training": Scenario({}, "train = kill"),
    "fails verification": Scenario(fail="verify --env = 3"),
    "pull request": Scenario({}, plan={"change": 7}),
    "overtaken at the gate": Scenario({}, plan={"milestones": {"13": 10}}),
    "overtaken while it waits": Scenario({GATE: {"act": "superseded"}}),
    "with parameters": Scenario(
        {
            GATE: {
                "act": "proceed",
                "user": "grace",
                "parameters": {"DECISION": "approve", "WHY": 'it\'s "good" $(touch /tmp/oops)'},
            }
        },
        plan={
            "parameters": {
                "TRAIN": "2013-01..2013-03",
                "SEED": "7",
                "REASON": "drift in August",
                "PROJECT": "my models/project.toml",
            }
        },
    ),
    "resumed by its run id": Scenario(plan={"parameters": {"RUN": "an-earlier-run"}}),
    "without an answer": Scenario({}),
}
RESTARTS = {
    "restarted from training": ("killed in training", "train"),
    "restarted behind the gate": ("rejected", "promote production"),
    "restarted at the gate": ("timed out", "gate production"),
}


@dataclass
class Outcome:
    report: dict
    ledger: object

    def calls(self):
        """Run, settings, workspace and words of each call of the pipeline."""
        path = self.ledger / "calls"
        return [line.split("|") for line in path.read_text().splitlines()] if path.exists() else []

    def commands(self):
        """What was run, but for the lines that only show where a run stands."""
        return [words for _, _, _, words in self.calls() if "--only" not in words]

    def stage(self, name):
        return next(stage for stage in self.report["stages"] if stage["name"] == name)

    def ran(self):
        return [stage["name"] for stage in self.report["stages"] if stage["status"] == "SUCCESS"]

    def events(self, kind):
        return [event for event in self.report["events"] if event["kind"] == kind]


@pytest.fixture(scope="session")
def play(groovy, tmp_path_factory):
    """Runs plans in one Java machine."""
    checkout = tmp_path_factory.mktemp("checkout")
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / "scripts").mkdir()
    for path, text in {".venv/bin/python": STUB, "scripts/setup": "#!/bin/sh\n", "scripts/test": "#!/bin/sh\n"}.items():
        (checkout / path).write_text(text)
        (checkout / path).chmod(0o755)

    def run(scenarios, ledgers=None):
        home = tmp_path_factory.mktemp("plans")
        plans, outcomes = [], {}
        for number, (name, scenario) in enumerate(scenarios.items()):
            work = home / str(number)
            ledger = (ledgers or {}).get(name) or work / "ledger"
            ledger.mkdir(parents=True, exist_ok=True)
            (ledger / "fail").write_text(scenario.fail)
            plan = {
                "job": "mlops/flights/main",
                "number": 12,
                "library": str(ROOT / "infra/jenkins/library"),
                "checkout": str(checkout),
                "work": str(work),
                "credentials": CREDENTIALS,
            }
            plan |= {
                "answers": scenario.answers,
                "began": 1_795_464_900_000,
                "variables": {"STUB_LEDGER": str(ledger)},
                **scenario.plan,
            }
            (home / f"{number}.json").write_text(json.dumps(plan))
            plans.append(home / f"{number}.json")
            outcomes[name] = ledger
        done = groovy("run.groovy", ROOT / "Jenkinsfile", *plans)
        assert done.returncode == 0, done.stderr
        reports = json.loads(done.stdout.splitlines()[-1])
        return {name: Outcome(report, ledger) for (name, ledger), report in zip(outcomes.items(), reports, strict=True)}

    return run


@pytest.fixture(scope="session")
def first(play):
    return play(SCENARIOS)


@pytest.fixture(scope="session")
def restarted(play, first):
    scenarios, ledgers = {}, {}
    for name, (origin, stage) in RESTARTS.items():
        scenarios[name] = Scenario(
            plan={"number": 13, "restart": {"stage": stage, "environment": first[origin].report["environment"]}}
        )
        ledgers[name] = first[origin].ledger
        (ledgers[name] / "calls").unlink()
    return play(scenarios, ledgers)


def is_of_graph(words):
    return not words.startswith(("report", "gate show", "gate approve", "gate reject"))


# --- the whole line ---


def test_an_approved_build_runs_every_command_of_the_graph_in_its_order_for_one_run(first):
    outcome = first["approved"]
    assert outcome.report["result"] == "SUCCESS"
    run = outcome.report["environment"]["GATEHOUSE_RUN"]
    expected = [f"{' '.join(stage.command)} --run {run}" for stage in STAGES]
    found = [words.split(" --project")[0] for words in outcome.commands() if is_of_graph(words)]
    assert found == expected
    assert {call[0] for call in outcome.calls()} == {run}


def test_a_run_is_named_after_its_job_its_time_and_its_build(first):
    outcome = first["approved"]
    assert outcome.report["environment"]["GATEHOUSE_RUN"] == "mlops-flights-main-20261123-201500-12"
    assert outcome.report["displayName"] == "#12 mlops-flights-main-20261123-201500-12"


def test_every_stage_works_in_a_workspace_of_its_own(first):
    workspaces = [workspace for _, _, workspace, words in first["approved"].calls() if is_of_graph(words)]
    assert len(set(workspaces)) == len(STAGES)


def test_a_person_decides_without_an_executor_and_without_a_lock(first):
    (asked,) = first["approved"].events("input")
    assert (asked["stage"], asked["agents"], asked["locks"]) == ("gate production", [], [])


def test_production_is_promoted_under_its_lock(first):
    (lock,) = first["approved"].events("lock")
    assert (lock["stage"], lock["name"]) == ("promote production", "production-promotion")


def test_production_s_credentials_are_bound_only_behind_the_decision(first):
    settings = {words.split(" --run")[0]: file for _, file, _, words in first["approved"].calls()}
    assert {file for words, file in settings.items() if words in {"ingest", "train", "verify --env staging"}} == {
        CREDENTIALS["gatehouse-settings"]
    }
    assert settings["gate approve"] == settings["gate check"] == CREDENTIALS["gatehouse-settings-approval"]
    assert {file for words, file in settings.items() if "--env production" in words} == {
        CREDENTIALS["gatehouse-settings-production"]
    }


def test_evidence_and_test_results_are_there_before_anybody_is_asked_and_again_with_the_decision(first):
    outcome = first["approved"]
    assert outcome.report["artifacts"] == ["build/evidence/evidence.html"]
    kinds = [(event["kind"], event["stage"]) for event in outcome.report["events"]]
    assert kinds.index(("junit", "register")) < kinds.index(("input", "gate production"))
    assert sum(words.startswith("report ") for words in outcome.commands()) == 2


def test_the_build_shows_its_verdict(first):
    shown = "flights version 7: the policy passes; 1 approval(s) missing | ledger 9:sha256:ab"
    assert first["approved"].report["description"] == shown
    waited = first["timed out"].report["description"]
    assert re.fullmatch(re.escape(shown) + r"; decide until \d{4}-\d\d-\d\d \d\d:\d\d UTC", waited)


# --- when it does not go well ---


@pytest.mark.parametrize(("name", "code", "last"), [("rejected", 4, "gate check"), ("undecided", 2, "gate undecided")])
def test_without_an_approval_nothing_reaches_production(first, name, code, last):
    outcome = first[name]
    assert outcome.report["result"] == "FAILURE"
    assert outcome.report["error"] == f"script returned exit code {code}"
    decided = [words for words in outcome.commands() if words.startswith("gate") and "show" not in words]
    assert decided[-1].startswith(last)
    assert not set(PRODUCTION) & set(outcome.ran())


def test_a_rejection_is_recorded_with_its_reason_and_shown_in_the_evidence(first):
    outcome = first["rejected"]
    (words,) = [words for words in outcome.commands() if words.startswith("gate reject")]
    assert "--reason no --build http://jenkins.example/job/mlops/flights/main/12/ --input Approve-production" in words
    assert outcome.commands()[-1].startswith("report ")


@pytest.mark.parametrize("name", ["aborted", "timed out"])
def test_an_input_that_nobody_answers_ends_the_build_before_any_of_its_steps_and_its_own_post(first, name):
    outcome = first[name]
    assert outcome.report["result"] == outcome.stage("gate production")["status"] == "ABORTED"
    assert outcome.commands()[-1].startswith("verify --env staging")
    assert not [event for event in outcome.events("post") if event["of"] == "gate production"]


def test_nobody_is_asked_about_a_model_that_the_policy_refuses_and_it_reaches_no_environment(first):
    outcome = first["refused by the policy"]
    assert outcome.report["error"] == "script returned exit code 3"
    assert outcome.stage("register")["status"] == "FAILURE"
    assert outcome.events("input") == []
    assert not [words for words in outcome.commands() if words.startswith(("promote", "deploy"))]
    assert "the policy refuses" in outcome.report["description"]


def test_a_model_that_fails_in_staging_is_not_offered_for_production(first):
    outcome = first["fails verification"]
    assert outcome.stage("verify staging")["status"] == "FAILURE"
    assert outcome.events("input") == []


# --- again, and at the same time ---


def test_a_build_restarted_from_the_stage_that_was_killed_goes_on_with_its_run(first, restarted):
    killed, again = first["killed in training"], restarted["restarted from training"]
    assert killed.stage("train")["status"] == "FAILURE"
    assert again.report["result"] == "SUCCESS"
    assert again.commands()[0].startswith("train ")
    assert {call[0] for call in again.calls()} == {killed.report["environment"]["GATEHOUSE_RUN"]}


def test_a_build_restarted_behind_the_gate_without_an_approval_is_refused_with_exit_code_4(restarted):
    outcome = restarted["restarted behind the gate"]
    assert outcome.report["error"] == "script returned exit code 4"
    assert outcome.stage("promote production")["status"] == "FAILURE"
    assert outcome.ran() == []


def test_a_gate_that_timed_out_can_be_asked_again_and_its_build_carries_the_run(first, restarted):
    outcome = restarted["restarted at the gate"]
    assert outcome.report["result"] == "SUCCESS"
    assert outcome.report["displayName"] == f"#13 {first['timed out'].report['environment']['GATEHOUSE_RUN']}"


def test_a_run_named_by_a_parameter_is_gone_on_with(first):
    assert {call[0] for call in first["resumed by its run id"].calls()} == {"an-earlier-run"}


def test_an_older_build_yields_to_a_newer_one_before_anybody_is_asked(first):
    outcome = first["overtaken at the gate"]
    assert (outcome.report["result"], outcome.report["error"]) == ("NOT_BUILT", "Superseded by build #13")
    assert outcome.events("input") == []


def test_an_older_build_that_waits_yields_to_a_newer_one_that_comes_to_ask(first):
    outcome = first["overtaken while it waits"]
    assert outcome.report["result"] == "NOT_BUILT"
    assert not set(PRODUCTION) & set(outcome.ran())


# --- triggers, parameters, secrets ---


def test_a_pull_request_runs_the_tests_and_nothing_else_and_sees_no_credentials(first):
    outcome = first["pull request"]
    assert outcome.ran() == ["tests"]
    assert outcome.calls() == []
    assert outcome.events("credential") == outcome.events("input") == []


def test_a_schedule_starts_the_line_but_never_a_pull_request(first):
    assert first["approved"].events("triggers")[0]["names"] == ["cron", "GenericTrigger"]
    assert first["pull request"].events("triggers")[0]["names"] == ["GenericTrigger"]


def test_parameters_arrive_as_they_were_written_and_empty_ones_not_at_all(first):
    given, plain = first["with parameters"], first["approved"]
    words = (given.ledger / "words").read_text().splitlines()[0]
    run = given.report["environment"]["GATEHOUSE_RUN"]
    assert (
        words
        == f"<ingest><--run><{run}><--project><my models/project.toml><--train><2013-01..2013-03><--set><training.seed=7>"
    )
    assert plain.commands()[0].endswith("--project pipeline/examples/flights/project.toml")


def test_what_a_person_writes_is_never_run(first):
    words = (first["with parameters"].ledger / "words").read_text()
    assert '<--reason><it\'s "good" $(touch /tmp/oops)>' in words


def test_the_name_that_the_build_hands_over_is_not_passed_on(first):
    assert not [words for words in first["approved"].commands() if "grace" in words]


def test_the_settings_file_is_masked_in_the_log(first):
    log = (first["approved"].ledger.parent / "log.txt").read_text()
    assert "secret" not in log
    assert re.search(shlex.quote("ingest"), log)


def test_a_build_that_nobody_answers_would_wait(first):
    assert "the build would wait" in first["without an answer"].report["problem"]
