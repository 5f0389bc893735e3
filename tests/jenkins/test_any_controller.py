"""Starting, following, deciding and stopping with the scripts' commands: against the stand-in, or a real controller.

JENKINS_URL, JENKINS_USER and JENKINS_TOKEN name a real one, and a user of it who may create folders and start, answer and
stop builds; an agent must have the label `gatehouse`. The tests are the same. They leave nothing there.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from contextlib import contextmanager
from xml.sax.saxutils import escape

import jenkins
import pytest

from pipeline.adapters.jenkins_builds import Builds
from pipeline.adapters.jenkins_client import Jenkins
from tests.jenkins.conftest import MISSING, groovy_environment, wait_until
from tests.jenkins.controller import Controller
from tests.jenkins.execution import Definition

REAL = os.environ.get("JENKINS_URL")
NAME = "the line & more"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(REAL is None and groovy_environment() is None, reason=MISSING),
]
JENKINSFILE = """
pipeline {
    agent none
    parameters { string(name: 'RUN', defaultValue: '', description: 'The run.') }
    stages {
        stage('work') {
            agent { label 'gatehouse' }
            steps { sh 'echo "working on $RUN"' }
        }
        stage('gate') {
            input {
                message 'Promote?'
                id 'Gate'
                parameters {
                    choice(name: 'DECISION', choices: ['undecided', 'approve', 'reject'], description: 'What.')
                    string(name: 'WHY', defaultValue: '', description: 'Why.')
                }
            }
            agent { label 'gatehouse' }
            steps { sh 'echo "decided: $DECISION, because $WHY"; [ "$DECISION" = approve ]' }
        }
    }
}
"""
# What a pipeline job is on disk: workflow-job, WorkflowJob; workflow-cps, CpsFlowDefinition.
CONFIG = f"""<flow-definition><definition class="org.jenkinsci.plugins.workflow.cps.CpsFlowDefinition">
<script>{escape(JENKINSFILE)}</script><sandbox>true</sandbox></definition></flow-definition>"""
SETTINGS = """home = "{home}"
[ledger]
uri = "postgresql+psycopg2://nobody@127.0.0.1:1/nothing"
[mlflow]
uri = "http://127.0.0.1:1"
[environments.staging]
server = "http://127.0.0.1:1"
[environments.production]
server = "http://127.0.0.1:1"
[jenkins]
url = "{url}"
token_file = "{token}"
"""


@contextmanager
def stand_in(folder):
    source = folder / "source"
    source.mkdir()
    (source / "Jenkinsfile").write_text(JENKINSFILE)
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "a line"]):
        git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *words]
        subprocess.run(git, cwd=source, check=True)
    with Controller() as controller:
        user = controller.add_user("ada", "Job/Build", "Job/Cancel")
        controller.add_job(f"team/{NAME}", definition=Definition("Jenkinsfile", source, {}))
        yield controller.url, "ada", user.token, f"team/{NAME}"


@contextmanager
def real():
    user, token = os.environ["JENKINS_USER"], os.environ["JENKINS_TOKEN"]
    server = jenkins.Jenkins(REAL, user, token, timeout=60)
    folder = f"gatehouse-tests-{secrets.token_hex(4)}"
    server.create_folder(folder)
    server.create_job(f"{folder}/{NAME}", CONFIG)
    try:
        yield REAL, user, token, f"{folder}/{NAME}"
    finally:
        server.delete_job(folder)


class Site:
    """One controller and one user's shell; `builds` looks at it with the product's own client."""

    def __init__(self, folder, url, user, token, job):
        self.folder, self.url, self.user, self.token, self.job = folder, url, user, token, job
        self.builds = Builds(Jenkins(url, user, token))
        # Jenkins learns the parameters of a pipeline from its first build.
        first = self.builds.begun(self.builds.trigger(job, {}), lambda _: None)
        self.wait(lambda: self.builds.parameters(job))
        self.shell("abort", first)

    def settings(self, token=None):
        file, words = self.folder / "settings.toml", self.folder / "token"
        words.write_text(f"{self.user}:{token or self.token}")
        file.write_text(SETTINGS.format(home=self.folder, url=self.url, token=words))
        return file

    def shell(self, *words, expected=(0,), token=None):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "jenkins", *words],
            env={**os.environ, "GATEHOUSE_SETTINGS": str(self.settings(token))},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode in expected, f"{words}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def wait(self, holds):
        return wait_until(holds, 180)

    def waiting(self, run):
        """A build of `run` that waits at its gate."""
        url = self.builds.begun(self.builds.trigger(self.job, {"RUN": run}), lambda _: None)
        self.wait(lambda: Jenkins(self.url, self.user, self.token).pending_inputs(url))
        return url

    def result(self, url):
        return self.wait(lambda: self.builds.patiently(f"{url}api/json", {"tree": "result"})["result"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with real() if REAL else stand_in(folder) as (url, user, token, job):
        yield Site(folder, url, user, token, job)


def test_a_build_is_started_followed_decided_and_its_result_is_the_exit_code(site):
    followed = []
    words = ("trigger", site.job, "--param", "RUN=r-1")
    thread = threading.Thread(target=lambda: followed.append(site.shell(*words)))
    thread.start()

    def listed():
        found = site.shell("approvals", "--json").stdout
        return found if "Gate" in found else None

    site.wait(listed)
    url = next(url for url in site.builds.running("") if site.job.split("/")[0] in url)
    site.shell("approve", url, "--reason", "better in every slice")
    thread.join()
    (done,) = followed
    assert "working on r-1" in done.stdout
    assert "decided: approve, because better in every slice" in done.stdout
    assert "SUCCESS" in done.stderr


def test_a_rejection_fails_the_build_and_what_has_ended_cannot_be_decided(site):
    url = site.waiting("r-2")
    site.shell("reject", url, "--reason", "worse at night")
    assert site.result(url) == "FAILURE"
    assert "decided: reject, because worse at night" in site.shell("logs", url).stdout
    assert "nothing" in site.shell("approve", url, "--reason", "again", expected=(2, 4)).stderr


def test_of_two_decisions_at_once_one_counts(site):
    url = site.waiting("r-3")
    site.settings()
    answers = []

    def decide(word):
        answers.append((word, site.shell(word, url, "--reason", f"{word} it", expected=(0, 2, 4)).returncode))

    threads = [threading.Thread(target=decide, args=(word,)) for word in ("approve", "reject")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [word for word, code in answers if code == 0]
    assert len(won) == 1, answers
    assert site.result(url) == ("SUCCESS" if won == ["approve"] else "FAILURE")


def test_a_build_that_is_stopped_is_aborted(site):
    url = site.waiting("r-4")
    site.shell("abort", url)
    assert site.result(url) == "ABORTED"
    assert "ABORTED" in site.shell("status", site.job).stdout


@pytest.mark.parametrize(
    ("words", "token", "says"),
    [
        (("trigger", "{job}", "--param", "RUN=r"), "wrong", "token"),
        (("trigger", "{job}x", "--param", "RUN=r"), None, "no such thing"),
        (("trigger", "{job}", "--param", "RNU=r"), None, "no parameter 'RNU'"),
        (("logs", "{url}/job/nothing/7/"), None, "no such thing"),
    ],
    ids=["wrong token", "no such job", "no such parameter", "no such build"],
)
def test_what_is_wrong_is_said_in_words(site, words, token, says):
    filled = [word.format(job=site.job, url=site.url.rstrip("/")) for word in words]
    assert says in site.shell(*filled, token=token, expected=(2, 4)).stderr
