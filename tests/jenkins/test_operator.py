"""Starting, following, deciding and stopping builds from a shell, against a controller that can misbehave."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
import stamina
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pipeline.adapters.jenkins_builds import Builds, Started
from pipeline.adapters.jenkins_client import Jenkins
from pipeline.errors import Unreachable, UsageError
from tests.jenkins.controller import Answer, Controller
from tests.jenkins.controller_state import Input

JOB = "mlops/Flüge & Züge/main"
PARAMETERS = [{"name": name, "defaultParameterValue": {"value": ""}} for name in ("RUN", "TRAIN")]
DECISION = {
    "name": "DECISION",
    "type": "ChoiceParameterDefinition",
    "choices": ["undecided", "approve", "reject"],
    "defaultParameterValue": {"value": "undecided"},
}
WHY = {"name": "WHY", "type": "StringParameterDefinition", "defaultParameterValue": {"value": ""}}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("pipeline.adapters.jenkins_builds.LOOK_EVERY_SECONDS", 0.01)
    with stamina.set_testing(testing=True, attempts=4):
        yield


@pytest.fixture
def controller():
    with Controller() as controller:
        controller.add_user("ada", "Job/Build", groups=["gatehouse-trainers"])
        controller.add_user("grace", groups=["gatehouse-approvers"])
        controller.add_user("olga", "Job/Build", "Job/Cancel", groups=["gatehouse-operators"])
        controller.add_job(JOB, parameters=PARAMETERS)
        yield controller


def builds(controller, name="ada"):
    return Builds(Jenkins(controller.url, name, controller.users[name].token, timeout=5.0))


def started(controller):
    return list(controller.queue.values())


# --- starting -----------------------------------------------------------------------------------------------


def test_a_build_is_started_with_its_parameters_and_found_when_it_has_left_the_queue(controller):
    asked = builds(controller)
    begun = asked.trigger(JOB, {"RUN": "flights-1", "TRAIN": "2013-01..2013-06"})
    assert started(controller)[0]["values"] == {"RUN": "flights-1", "TRAIN": "2013-01..2013-06"}
    reasons = []
    leaving = threading.Timer(0.05, controller.leave_queue, [1])
    leaving.start()
    url = asked.begun(begun, reasons.append)
    assert url == controller.build_url(controller.jobs[JOB].builds[1])
    assert reasons == ["In the quiet period"]


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_start_that_was_lost_on_the_way_is_never_sent_twice(controller, lost):
    gone = []

    def once(method, path):
        if method == "POST" and not gone:
            gone.append(path)
            return "drop"
        return None

    setattr(controller, "before" if lost == "request" else "after", once)
    asked = builds(controller)
    if lost == "request":
        with pytest.raises(Unreachable):
            asked.trigger(JOB, {"RUN": "flights-1"})
        assert started(controller) == []
    else:
        assert asked.trigger(JOB, {"RUN": "flights-1"}) == Started(queue=f"{controller.url}/queue/item/1/")
        assert len(started(controller)) == 1
    assert len(controller.posts("buildWithParameters")) == 1


def test_a_lost_start_is_found_also_when_it_builds_already(controller):
    def leave_and_drop(method, path):
        if method == "POST":
            controller.leave_queue(1)
            return "drop"
        return None

    controller.after = leave_and_drop
    found = builds(controller).trigger(JOB, {"RUN": "flights-1"})
    assert found.build == controller.build_url(controller.jobs[JOB].builds[1])


@pytest.mark.parametrize(
    ("job", "parameters", "name", "says"),
    [
        ("mlops/nothing", {"RUN": "r"}, "ada", "no such thing"),
        (JOB, {"RUN": "r", "TRIAN": "x"}, "ada", "no parameter 'TRIAN'"),
        (JOB, {"RUN": "r"}, "grace", "Job/Build"),
    ],
    ids=["no such job", "no such parameter", "no permission"],
)
def test_what_cannot_be_started_says_why(controller, job, parameters, name, says):
    with pytest.raises(UsageError) as refused:
        builds(controller, name).trigger(job, parameters)
    assert says in f"{refused.value.what} {refused.value.fix}"
    assert started(controller) == []


def test_a_job_that_is_switched_off_and_a_start_taken_out_of_the_queue_are_said(controller):
    controller.jobs[JOB].buildable = False
    with pytest.raises(UsageError):
        builds(controller).trigger(JOB, {"RUN": "r"})
    controller.jobs[JOB].buildable = True
    asked = builds(controller)
    waiting = asked.trigger(JOB, {"RUN": "r"})
    controller.queue[1]["cancelled"] = True
    with pytest.raises(UsageError, match="out of the queue"):
        asked.begun(waiting, lambda _: None)


# --- the log ------------------------------------------------------------------------------------------------


def test_a_log_is_followed_to_its_end_by_the_servers_own_offsets(controller):
    build = controller.jobs[JOB].start()
    build.log = "Zürich\n".encode()

    def ending():
        build.log += b"done\n"
        build.finish("SUCCESS")

    threading.Timer(0.05, ending).start()
    pieces = builds(controller).log(controller.build_url(build), follow=True)
    assert b"".join(pieces).decode() == "Zürich\ndone\n"


def test_a_log_of_200_mb_is_never_held_in_memory(controller, tmp_path):
    build = controller.jobs[JOB].start()
    build.log = b"x" * 200_000_000
    build.finish("SUCCESS")
    program = (
        "import resource, sys\n"
        "from pipeline.adapters.jenkins_builds import Builds\n"
        "from pipeline.adapters.jenkins_client import Jenkins\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "builds = Builds(Jenkins(sys.argv[1], 'ada', sys.argv[2]))\n"
        "size = sum(len(piece) for piece in builds.log(sys.argv[3], follow=True))\n"
        "print(size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    words = [controller.url, controller.users["ada"].token, controller.build_url(build)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    size, grown = map(int, done.stdout.split())
    assert size == 200_000_000
    assert grown < 20


# --- what waits, deciding, stopping: the commands -----------------------------------------------------------


@pytest.fixture
def shell(controller, tmp_path):
    """The commands, as somebody with a token runs them."""

    def run(name, *words, expected=0):
        token = tmp_path / name
        token.write_text(f"{name}:{controller.users[name].token}")
        settings = tmp_path / "settings.toml"
        settings.write_text(
            f'home = "{tmp_path}"\n[ledger]\nuri = "postgresql+psycopg2://x"\n[mlflow]\nuri = "http://127.0.0.1:9"\n'
            f'[environments.staging]\nserver = "http://127.0.0.1:9"\n'
            f'[jenkins]\nurl = "{controller.url}"\ntoken_file = "{token}"\n'
        )
        env = {**os.environ, "GATEHOUSE_SETTINGS": str(settings)}
        env.pop("GATEHOUSE_JENKINS_TOKEN", None)
        command = [sys.executable, "-m", "pipeline", "jenkins", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)
        assert done.returncode == expected, done.stdout + done.stderr
        assert controller.users[name].token not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def waiting(controller):
    build = controller.jobs[JOB].start(causes=[{"_class": "hudson.model.Cause$UserIdCause", "userId": "ada"}])
    build.display_name, build.description = "#1 flights-1", "flights-1: the policy passes; 1 approval(s) missing"
    build.ask(Input("Approve-production", "Promote?", "gatehouse-approvers", "APPROVER", [DECISION, WHY]))
    return build


def test_what_waits_is_listed_with_run_verdict_and_who_may_decide(controller, shell, waiting):
    shown = shell("grace", "approvals").stdout
    for word in ("flights-1", "the policy passes", "gatehouse-approvers"):
        assert word in shown
    waiting.finish("ABORTED")
    assert "nothing waits" in shell("grace", "approvals", "mlops").stdout


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_decision_from_the_shell_answers_the_input_with_everything_it_asks(controller, shell, waiting, verb):
    shell("grace", verb, controller.build_url(waiting), "--reason", "measured")
    assert waiting.answers == {"DECISION": verb, "WHY": "measured", "APPROVER": "grace"}
    again = shell("grace", verb, controller.build_url(waiting), "--reason", "again", expected=2)
    assert "0 inputs wait" in again.stderr
    assert len(controller.posts("proceed")) == 1


def test_who_may_not_decide_is_told_so(controller, shell, waiting):
    done = shell("ada", "approve", controller.build_url(waiting), "--reason", "mine", expected=4)
    assert "gatehouse-approvers" in done.stderr
    assert waiting.answers == {}


def test_a_build_is_stopped_by_who_may(controller, shell, waiting):
    shell("grace", "abort", controller.build_url(waiting), expected=2)
    assert waiting.building
    assert '"ABORTED"' in shell("olga", "abort", controller.build_url(waiting)).stdout


def test_ten_thousand_builds_are_no_matter(controller, shell):
    for _ in range(10_000):
        controller.jobs[JOB].start().finish("SUCCESS")
    shown = shell("ada", "status", JOB, "--json").stdout
    assert '"number": 10000' in shown
    assert "nothing waits" in shell("ada", "approvals").stdout


def test_a_build_is_started_followed_and_its_result_is_the_exit_code(controller, shell):
    def play():
        while not controller.queue:
            pass
        build = controller.leave_queue(1)
        build.log = b"training\n"
        build.finish("FAILURE")

    threading.Thread(target=play, daemon=True).start()
    done = shell("ada", "trigger", JOB, "--param", "RUN=flights-7", expected=1)
    assert done.stdout == "training\n"
    assert "run flights-7" in done.stderr


def test_a_login_page_in_place_of_jenkins_is_explained(controller, shell):
    controller.before = lambda method, path: Answer(200, b"<html>login</html>", Content_Type="text/html")
    assert "login page" in shell("ada", "status", JOB, expected=2).stderr


# --- controllers that go away -------------------------------------------------------------------------------


def test_a_log_is_followed_through_a_restart_and_a_broken_answer_and_nothing_is_shown_twice(controller):
    build = controller.jobs[JOB].start()
    build.log = "".join(f"line {number} of the training\n" for number in range(50_000)).encode()
    build.finish("SUCCESS")
    left = ["cut", Answer(503, b"starting up"), "drop", "cut", None]
    controller.before = lambda method, path: left.pop(0) if left and path.endswith("progressiveText") else None
    shown = b"".join(builds(controller).log(controller.build_url(build), follow=True))
    assert shown == build.log
    assert left == []


def test_a_controller_that_stays_away_ends_the_wait(controller, monkeypatch):
    monkeypatch.setattr("pipeline.adapters.jenkins_builds.PATIENCE_SECONDS", 0.05)
    url = controller.build_url(controller.jobs[JOB].start())
    controller.before = lambda method, path: "drop"
    with pytest.raises(Unreachable):
        list(builds(controller).log(url, follow=True))


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_controller_that_asks_for_patience_gets_it(controller, status):
    answers = [Answer(status, b"<html>later</html>")] * 2
    controller.before = lambda method, path: answers.pop() if answers else None
    assert builds(controller).latest(JOB) == []


def test_a_companys_own_authority_is_believed_where_the_settings_name_it_and_nowhere_else(controller, tmp_path):
    certificate, key = authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    controller.server.socket = context.wrap_socket(controller.server.socket, server_side=True)
    url = controller.url.replace("http://127.0.0.1", "https://localhost")
    asked = {"user": "ada", "token": controller.users["ada"].token, "timeout": 5.0}
    assert Builds(Jenkins(url, **asked, ca_file=certificate)).latest(JOB) == []
    with pytest.raises(Unreachable, match="SSLError"):
        Builds(Jenkins(url, **asked)).latest(JOB)


def authority(folder):
    """A certificate for localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    files = folder / "ca.pem", folder / "key.pem"
    files[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files
