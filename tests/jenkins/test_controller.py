"""The stand-in controller itself, as python-jenkins and a plain HTTP client meet it."""

from __future__ import annotations

import jenkins
import pytest
import requests

from tests.jenkins.controller import Controller
from tests.jenkins.controller_state import Input

JOB = "mlops/flights"


@pytest.fixture
def controller():
    with Controller() as controller:
        controller.add_user("ada", "Job/Build", "Job/Cancel")
        controller.add_user("grace", groups=["approvers"])
        controller.add_job(JOB, parameters=[{"name": "TRAIN", "defaultParameterValue": {"value": ""}}])
        yield controller


@pytest.fixture
def server(controller):
    return jenkins.Jenkins(controller.url, "ada", controller.users["ada"].token, timeout=5)


def token(controller, name):
    return (name, controller.users[name].token)


def test_a_build_goes_from_the_queue_to_a_number(controller, server):
    item = server.build_job(JOB, {"TRAIN": "2013-01"})
    assert "executable" not in server.get_queue_item(item)
    controller.leave_queue(item)
    number = server.get_queue_item(item)["executable"]["number"]
    build = server.get_build_info(JOB, number)
    assert build["building"] and build["actions"][0]["causes"][0]["userId"] == "ada"
    assert controller.jobs[JOB].builds[number].parameters == {"TRAIN": "2013-01"}


def test_the_same_build_twice_in_the_queue_is_one(controller):
    url = f"{controller.url}/job/mlops/job/flights/buildWithParameters"
    first, second = (
        requests.post(url, auth=token(controller, "ada"), allow_redirects=False, timeout=5) for _ in range(2)
    )
    assert (first.status_code, second.status_code) == (201, 303)
    assert first.headers["Location"] == second.headers["Location"]


def test_a_job_that_cannot_be_built_is_409_and_one_without_parameters_400(controller):
    controller.jobs[JOB].buildable = False
    controller.add_job("plain")
    for path, status in (("mlops/job/flights", 409), ("plain", 400)):
        answer = requests.post(
            f"{controller.url}/job/{path}/buildWithParameters", auth=token(controller, "ada"), timeout=5
        )
        assert answer.status_code == status


def test_who_may_not_build_is_403_with_the_permission_named(controller):
    answer = requests.post(f"{controller.url}/job/mlops/job/flights/build", auth=token(controller, "grace"), timeout=5)
    assert (answer.status_code, answer.headers["X-Required-Permission"]) == (403, "hudson.model.Job/Build")


def test_an_act_by_get_is_405(controller):
    answer = requests.get(f"{controller.url}/job/mlops/job/flights/build", auth=token(controller, "ada"), timeout=5)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_a_password_needs_a_crumb_and_a_token_none(controller):
    url = f"{controller.url}/job/mlops/job/flights/build"
    assert requests.post(url, auth=("ada", "password"), timeout=5).status_code == 403
    crumb = requests.get(f"{controller.url}/crumbIssuer/api/json", auth=("ada", "password"), timeout=5).json()
    headers = {crumb["crumbRequestField"]: crumb["crumb"]}
    assert requests.post(url, auth=("ada", "password"), headers=headers, timeout=5).status_code == 201
    controller.queue.clear()
    assert requests.post(url, auth=token(controller, "ada"), timeout=5).status_code == 201


def test_a_log_is_read_on_from_where_it_was(controller):
    build = controller.jobs[JOB].start()
    build.log = "größer\n".encode()
    url = controller.build_url(build) + "logText/progressiveText"
    first = requests.get(url, auth=token(controller, "ada"), timeout=5)
    assert first.headers["X-More-Data"] == "true"
    build.log += b"done\n"
    build.finish("SUCCESS")
    second = requests.get(url, params={"start": first.headers["X-Text-Size"]}, auth=token(controller, "ada"), timeout=5)
    assert second.text == "done\n"
    assert "X-More-Data" not in second.headers


def test_a_stopped_build_says_who_stopped_it(controller, server):
    build = controller.jobs[JOB].start()
    requests.post(controller.build_url(build) + "stop", auth=token(controller, "ada"), allow_redirects=False, timeout=5)
    info = server.get_build_info(JOB, build.number)
    assert info["result"] == "ABORTED"
    assert info["actions"][-1]["causes"][0]["user"]["id"] == "ada"


@pytest.fixture
def asked(controller):
    build = controller.jobs[JOB].start()
    why = {"name": "WHY", "type": "StringParameterDefinition", "defaultParameterValue": {"value": "because"}}
    build.ask(Input("promote", "Promote?", "approvers", "APPROVER", [why]))
    return build


def answer(controller, build, path, **form):
    return requests.post(
        controller.build_url(build) + path, data=form, auth=token(controller, "grace"), allow_redirects=False, timeout=5
    )


def test_an_id_begins_with_a_capital_whatever_was_written(controller, asked):
    assert answer(controller, asked, "input/promote/proceed", json="{}").status_code == 404
    assert answer(controller, asked, "input/Promote/proceed", json="{}").status_code == 200


def test_proceeding_empty_makes_every_parameter_null(controller, asked):
    assert answer(controller, asked, "input/Promote/proceedEmpty").status_code == 200
    assert asked.answers == {"WHY": None, "APPROVER": "grace"}


def test_submitting_without_the_word_proceed_aborts(controller, asked):
    assert answer(controller, asked, "input/Promote/submit", json="{}").status_code == 302
    assert asked.approved_by == [] and asked.interrupted


def test_a_form_without_json_is_400_with_a_reason_and_a_second_answer_404(controller, asked):
    refused = answer(controller, asked, "input/Promote/proceed")
    assert refused.status_code == 400 and refused.headers["X-Error"]
    assert answer(controller, asked, "input/Promote/proceed", json="{}").status_code == 200
    assert answer(controller, asked, "input/Promote/proceed", json="{}").status_code == 404


def test_wfapi_turns_every_refusal_into_500(controller, asked):
    url = controller.build_url(asked) + "wfapi/inputSubmit"
    for name, input_id in (("ada", "Promote"), ("grace", "promote")):
        refused = requests.post(
            url, params={"inputId": input_id}, data={"json": "{}"}, auth=token(controller, name), timeout=5
        )
        assert refused.status_code == 500
