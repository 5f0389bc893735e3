"""The client against a stand-in controller, over real HTTP."""

from __future__ import annotations

import threading

import pytest
import stamina

from pipeline.adapters.jenkins_client import Jenkins
from pipeline.errors import ApprovalInvalid, Unreachable, UsageError
from tests.jenkins.controller import LOGIN_PAGE, Answer, Controller
from tests.jenkins.controller_state import Input

GATE = "Approve-production"
RUN = "mlops-flights-20261123-201500-1"


@pytest.fixture(autouse=True)
def _no_waiting_between_attempts():
    with stamina.set_testing(testing=True, attempts=4):
        yield


@pytest.fixture(params=["", "/jenkins"], ids=["at the root", "below a path"])
def controller(request):
    with Controller(request.param) as controller:
        controller.add_user("grace", groups=["gatehouse-approvers"])
        controller.add_user("hedy", groups=["gatehouse-approvers"])
        controller.add_user("ada", "Job/Build", groups=["gatehouse-trainers"])
        controller.add_user("olga", "Job/Build", "Job/Cancel", groups=["gatehouse-operators"])
        controller.add_user("root", "Overall/Administer")
        controller.add_user("gatehouse")
        controller.add_job("mlops/Flüge & Züge/main")
        yield controller


@pytest.fixture
def build(controller):
    cause = {"_class": "hudson.model.Cause$UserIdCause", "userId": "ada"}
    build = controller.jobs["mlops/Flüge & Züge/main"].start(causes=[cause])
    build.display_name = f"#1 {RUN}"
    build.ask(gate())
    return build


def gate(input_id=GATE):
    decision = {
        "name": "DECISION",
        "type": "ChoiceParameterDefinition",
        "description": "",
        "choices": ["undecided", "approve", "reject"],
        "defaultParameterValue": {"value": "undecided"},
    }
    why = {
        "name": "WHY",
        "type": "StringParameterDefinition",
        "description": "The reason",
        "defaultParameterValue": {"value": ""},
    }
    return Input(input_id, "Promote to production?", "gatehouse-approvers", "APPROVER", [decision, why])


def client(controller, name):
    return Jenkins(controller.url, name, controller.users[name].token, timeout=5.0)


# --- what waits ---


@pytest.mark.parametrize("source", ["exported by pipeline-input-step", "told by pipeline-rest-api"])
def test_a_waiting_input_is_found_with_its_questions(controller, build, source):
    controller.exports_inputs = source.startswith("exported")
    (waiting,) = client(controller, "grace").pending_inputs(controller.build_url(build))
    assert (waiting.id, waiting.message) == (GATE, "Promote to production?")
    assert [(parameter.name, parameter.default, parameter.choices) for parameter in waiting.parameters] == [
        ("DECISION", "undecided", ("undecided", "approve", "reject")),
        ("WHY", "", ()),
    ]
    assert waiting.submitters == (("gatehouse-approvers",) if controller.exports_inputs else None)


def test_nothing_waits_in_a_build_that_has_ended_or_never_asked(controller, build):
    quiet = build.job.start()
    build.finish("SUCCESS")
    jenkins = client(controller, "grace")
    assert (
        jenkins.pending_inputs(controller.build_url(build)) == jenkins.pending_inputs(controller.build_url(quiet)) == []
    )


def test_who_started_a_build_is_known_and_a_schedule_is_nobody(controller, build):
    scheduled = build.job.start(causes=[{"_class": "hudson.triggers.TimerTrigger$TimerTriggerCause"}])
    jenkins = client(controller, "gatehouse")
    assert jenkins.started_by(controller.build_url(build)) == "ada"
    assert jenkins.started_by(controller.build_url(scheduled)) is None


def test_reading_needs_no_crumb_and_one_request(controller, build):
    client(controller, "grace").pending_inputs(controller.build_url(build))
    assert len(controller.requests) == 1


# --- deciding ---


def test_an_answer_carries_every_parameter_the_ones_left_out_with_their_defaults(controller, build):
    decision = client(controller, "grace").proceed(controller.build_url(build), GATE, {"DECISION": "approve"})
    assert (decision.outcome, decision.user) == ("approved", "grace")
    assert build.answers == {"DECISION": "approve", "WHY": "", "APPROVER": "grace"}


@pytest.mark.parametrize(
    ("answers", "said"),
    [({"DECISON": "approve"}, "it asks for DECISION"), ({"DECISION": "yes"}, "undecided, approve, reject")],
    ids=["a misspelt question", "no such choice"],
)
def test_an_answer_that_was_not_asked_for_is_refused_before_anything_is_sent(controller, build, answers, said):
    with pytest.raises(UsageError) as refused:
        client(controller, "grace").proceed(controller.build_url(build), GATE, answers)
    assert said in refused.value.fix
    assert controller.posts("") == []


def test_an_abort_ends_the_wait(controller, build):
    assert client(controller, "grace").abort(controller.build_url(build), GATE).outcome == "rejected"
    assert build.pending == []


@pytest.mark.parametrize("name", ["ada", "gatehouse", "olga"])
def test_who_may_not_approve_is_told_so_as_a_matter_of_approval(controller, build, name):
    with pytest.raises(ApprovalInvalid, match="You need to be gatehouse-approvers"):
        client(controller, name).proceed(controller.build_url(build), GATE, {})
    assert build.pending and build.approved_by == []


@pytest.mark.parametrize("input_id", ["approve-production", "Approve", "Something-else"])
def test_an_id_that_does_not_wait_is_refused_with_those_that_do(controller, build, input_id):
    with pytest.raises(UsageError, match=f"no input '{input_id}' waits; the build is running") as refused:
        client(controller, "grace").proceed(controller.build_url(build), input_id, {})
    assert refused.value.fix == f"waiting: {GATE}"


def test_a_decision_on_a_build_that_has_ended_says_how_it_ended(controller, build):
    build.finish("FAILURE")
    with pytest.raises(UsageError, match="the build has ended: FAILURE"):
        client(controller, "grace").proceed(controller.build_url(build), GATE, {})


def test_of_two_who_decide_at_once_one_wins_and_the_other_learns_who(controller, build):
    together = threading.Barrier(2, timeout=5)
    controller.before = lambda method, path: [together.wait(), None][1] if method == "POST" else None
    outcomes = {}

    def decide(name):
        try:
            outcomes[name] = client(controller, name).proceed(controller.build_url(build), GATE, {}).user
        except ApprovalInvalid as error:
            outcomes[name] = str(error)

    threads = [threading.Thread(target=decide, args=(name,)) for name in ("grace", "hedy")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = build.approved_by
    loser = ({"grace", "hedy"} - {winner}).pop()
    assert outcomes == {winner: winner, loser: f"this input was answered meanwhile: approved by {winner}"}


def test_of_two_answers_of_one_person_at_once_only_the_one_that_counted_is_told_so(controller, build):
    together = threading.Barrier(2, timeout=5)
    controller.before = lambda method, path: [together.wait(), None][1] if method == "POST" else None
    outcomes = []

    def decide():
        try:
            outcomes.append(client(controller, "grace").proceed(controller.build_url(build), GATE, {}).outcome)
        except ApprovalInvalid:
            outcomes.append("refused")

    threads = [threading.Thread(target=decide) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["approved", "refused"]


# --- when the outcome is uncertain ---


def test_an_answer_that_arrived_while_the_reply_was_lost_is_not_sent_again(controller, build):
    controller.after = lambda method, path: "drop" if method == "POST" else None
    decision = client(controller, "grace").proceed(controller.build_url(build), GATE, {"DECISION": "approve"})
    assert decision.user == "grace"
    assert len(controller.posts("/proceed")) == len(build.approved_by) == 1


def test_an_answer_that_never_arrived_is_reported_and_not_sent_again(controller, build):
    controller.before = lambda method, path: "drop" if method == "POST" else None
    with pytest.raises(Unreachable):
        client(controller, "grace").proceed(controller.build_url(build), GATE, {})
    assert len(controller.posts("/proceed")) == 1
    assert build.pending


def test_an_abort_whose_reply_was_lost_is_left_open_rather_than_guessed(controller, build):
    controller.after = lambda method, path: "drop" if method == "POST" else None
    with pytest.raises(Unreachable, match="does not say yet") as open_:
        client(controller, "grace").abort(controller.build_url(build), GATE)
    assert "do not decide again" in open_.value.fix


def test_a_proxy_that_answers_in_jenkins_place_is_not_taken_for_a_decision(controller, build):
    controller.before = lambda method, path: (
        Answer(200, LOGIN_PAGE, Content_Type="text/html") if method == "POST" else None
    )
    with pytest.raises(Unreachable, match="the input waits still"):
        client(controller, "grace").proceed(controller.build_url(build), GATE, {})


@pytest.mark.parametrize("fault", ["drop", 500, 502, 503], ids=str)
def test_reads_are_tried_again(controller, build, fault):
    faults = iter([fault, fault])
    controller.before = lambda method, path: next((one if one == "drop" else Answer(one) for one in faults), None)
    assert len(client(controller, "grace").pending_inputs(controller.build_url(build))) == 1
    assert len(controller.requests) == 3


# --- who decided ---


def test_the_submitter_is_the_one_whom_jenkins_authenticated(controller, build):
    client(controller, "hedy").proceed(controller.build_url(build), GATE, {"DECISION": "approve"})
    asked = client(controller, "gatehouse")
    assert asked.submitter(controller.build_url(build), GATE, approved=True, run=RUN) == "hedy"
    assert asked.verify_submitter(controller.build_url(build), GATE, "Hedy") == "hedy"
    assert asked.approvers(controller.build_url(build)) == ["hedy"]
    with pytest.raises(ApprovalInvalid, match="grace is claimed, but Jenkins names hedy"):
        asked.verify_submitter(controller.build_url(build), GATE, "grace")


def test_an_input_that_waits_approves_nothing(controller, build):
    asked = client(controller, "gatehouse")
    assert asked.who_decided(controller.build_url(build), GATE).outcome == "pending"
    with pytest.raises(ApprovalInvalid, match="pending"):
        asked.submitter(controller.build_url(build), GATE, approved=True)


def test_an_old_build_s_approval_is_worth_nothing(controller, build):
    client(controller, "grace").proceed(controller.build_url(build), GATE, {})
    build.finish("SUCCESS")
    with pytest.raises(ApprovalInvalid, match="is over"):
        client(controller, "gatehouse").submitter(controller.build_url(build), GATE, approved=True)


def test_an_approval_in_another_run_s_build_is_worth_nothing(controller, build):
    client(controller, "grace").proceed(controller.build_url(build), GATE, {})
    with pytest.raises(ApprovalInvalid, match="not of run another"):
        client(controller, "gatehouse").submitter(controller.build_url(build), GATE, approved=True, run="another")


def test_a_build_that_two_people_answered_speaks_for_neither(controller, build):
    build.ask(gate("Second"))
    client(controller, "grace").proceed(controller.build_url(build), GATE, {})
    client(controller, "hedy").proceed(controller.build_url(build), "Second", {})
    with pytest.raises(ApprovalInvalid, match="grace, hedy"):
        client(controller, "gatehouse").submitter(controller.build_url(build), GATE, approved=True)


def test_a_rejection_a_timeout_and_a_stopped_build_are_told_apart(controller, build):
    asked, url = client(controller, "gatehouse"), controller.build_url(build)
    client(controller, "grace").abort(url, GATE)
    assert asked.who_decided(url, GATE).outcome == "not asked"  # Jenkins writes it down at the end only
    build.finish("ABORTED")
    rejected = asked.who_decided(url, GATE)
    assert (rejected.outcome, rejected.user) == ("rejected", "grace")
    assert rejected.at is not None and rejected.at.tzinfo is not None
    assert asked.submitter(url, GATE, approved=False) == "grace"
    late = build.job.start()
    late.ask(gate())
    late.time_out()
    assert asked.who_decided(controller.build_url(late), GATE).outcome == "timeout"
    with pytest.raises(ApprovalInvalid):
        asked.submitter(controller.build_url(late), GATE, approved=False)


# --- errors say what, where and what to do ---


def test_a_wrong_token_is_explained(controller, build):
    with pytest.raises(UsageError, match="does not accept") as refused:
        Jenkins(controller.url, "grace", "wrong", timeout=5.0).build(controller.build_url(build))
    assert "API token" in refused.value.fix


def test_a_build_that_was_deleted_meanwhile_is_explained(controller, build):
    del build.job.builds[1]
    with pytest.raises(UsageError, match="no such thing, or this user may not see it"):
        client(controller, "grace").proceed(controller.build_url(build), GATE, {})


def test_a_missing_permission_is_named(controller, build):
    controller.before = lambda method, path: Answer(403, b"", X_Required_Permission="hudson.model.Item.Read")
    with pytest.raises(UsageError, match=r"hudson\.model\.Item\.Read is needed"):
        client(controller, "grace").build(controller.build_url(build))


def test_a_login_page_in_place_of_json_is_explained(controller, build):
    controller.before = lambda method, path: Answer(200, LOGIN_PAGE, Content_Type="text/html")
    with pytest.raises(UsageError, match="something else than JSON"):
        client(controller, "grace").build(controller.build_url(build))


def test_neither_plugin_there_to_ask_is_explained(controller, build):
    controller.exports_inputs = controller.has_wfapi = False
    with pytest.raises(UsageError, match="no such thing"):
        client(controller, "grace").pending_inputs(controller.build_url(build))


def test_a_build_of_another_controller_is_never_asked(controller, build):
    with pytest.raises(UsageError, match="not of the configured Jenkins"):
        client(controller, "grace").build("https://elsewhere.example/job/x/1/")
    assert controller.requests == []


def test_a_controller_that_does_not_answer_is_unreachable_within_the_time_limit(controller, build):
    released = threading.Event()
    controller.before = lambda method, path: released.wait(5) and None
    try:
        with pytest.raises(Unreachable, match="does not answer"):
            Jenkins(controller.url, "grace", controller.users["grace"].token, timeout=0.05).build(
                controller.build_url(build)
            )
    finally:
        released.set()


def test_a_controller_that_is_gone_is_unreachable():
    with pytest.raises(Unreachable, match="does not answer"):
        Jenkins("http://127.0.0.1:9", "grace", "token", timeout=1.0).build("http://127.0.0.1:9/job/x/1/")
