"""A whole site: the embedded stack, a repository, a controller with its jobs and people, and shells with their tokens."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading

from tests.attacks.conftest import Castle
from tests.faces.late import write_project
from tests.integration.conftest import SMALL
from tests.jenkins.conftest import ROOT, wait_until
from tests.jenkins.execution import Definition

LINE, APPROVAL = "mlops/flights/main", "approvals/decide"
MONITORING, OPERATIONS = "operations/monitoring", "operations/production"
GATE = "Approve-production"
LENIENT = "metric = [{ metric = 'auc', min = 0.5 }]\nslice = []\nnot_worse = [{ metric = 'auc', by = 1.0 }]\n"
STRICT = "metric = [{ metric = 'auc', min = 0.99 }]\nslice = []\nnot_worse = []\n"
QUICK, IMPOSSIBLE, LATE = "projects/quick", "projects/impossible", "projects/late"
# Whose accounts each credential holds, by the names of the settings that go with it.
ACCOUNTS = {
    "gatehouse-settings": (),
    "gatehouse-settings-monitoring": (),
    "gatehouse-settings-approval": ("approval_uri", "key"),
    "gatehouse-settings-production": ("promotion_uri",),
}
SECRET = ("approval_uri", "promotion_uri", "owner_uri", "key")


class Company(Castle):
    """The stack, driven through Jenkins."""

    def __init__(self, home, controller, folder):
        super().__init__(home)
        self.controller, self.folder = controller, folder
        self.people()
        self.source = self.repository()
        credentials = {name: str(self.settings_of(name, kept)) for name, kept in ACCOUNTS.items()}
        variables = {"GATEHOUSE_VENV": str(ROOT / ".venv"), "GATEHOUSE_SETTINGS": ""}
        jobs = {
            LINE: (
                "Jenkinsfile",
                ("gatehouse-settings", "gatehouse-settings-approval", "gatehouse-settings-production"),
            ),
            APPROVAL: ("infra/jenkins/approval.Jenkinsfile", ("gatehouse-settings-approval",)),
            MONITORING: ("infra/jenkins/monitoring.Jenkinsfile", ("gatehouse-settings-monitoring",)),
            OPERATIONS: ("infra/jenkins/operations.Jenkinsfile", ("gatehouse-settings-production",)),
        }
        controller.secrets["gatehouse-webhook"] = "a webhook's token"
        for name, (file, bound) in jobs.items():
            known = {one: credentials[one] for one in bound}
            controller.add_job(name, definition=Definition(file, self.source, known, variables))

    def people(self):
        add = self.controller.add_user
        add("ada", "Job/Build", groups=["gatehouse-trainers"])
        for name in ("grace", "hedy"):
            add(name, "Job/Build", groups=["gatehouse-approvers"])
        add("olga", "Job/Build", "Job/Cancel", groups=["gatehouse-operators"])
        add("gatehouse")
        add("gatehouse-retrain", "Job/Build")

    def repository(self):
        """What a git server would hand out: this checkout as it is, and two small projects."""
        source = self.folder / "source"
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
        )
        for name in listed.stdout.decode().splitlines():
            if (ROOT / name).is_file() and not name.startswith("tests/"):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        for place, policy in ((QUICK, LENIENT), (IMPOSSIBLE, STRICT)):
            self.project(source, place, policy)
        write_project(source / LATE)
        for words in (
            ["init", "--quiet", "--initial-branch=main"],
            ["add", "--all"],
            ["commit", "--quiet", "-m", "site"],
        ):
            who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
            subprocess.run(["git", *who, *words], cwd=source, check=True, capture_output=True)
        return source

    def project(self, source, place, policy):
        shutil.copytree(ROOT / "pipeline/examples/flights", source / place)
        file = source / place / "project.toml"
        text = file.read_text()
        for name, value in {**SMALL, "resamples": 50}.items():
            text, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
            assert count == 1, name
        text = re.sub(r"^(metric|slice|not_worse) = \[.*?^\]\n", "", text, flags=re.MULTILINE | re.DOTALL)
        text = text.replace("max_evidence_age_hours", policy + "max_evidence_age_hours")
        file.write_text(text.replace('risk_tier = "low"', 'risk_tier = "medium"'))

    def settings_of(self, name, kept):
        """The installation's settings as one job gets them: with its own account, and nobody else's."""
        token = self.token("gatehouse-retrain" if name.endswith("monitoring") else "gatehouse")
        dropped = [key for key in SECRET if key not in kept]
        lines = (self.home / "settings.toml").read_text().splitlines()
        lines = [line for line in lines if line.split(" = ")[0] not in dropped]
        lines += ["", "[jenkins]", f'url = "{self.controller.url}"', f'token_file = "{token}"']
        lines += [f'approval_job = "{APPROVAL}"', f'jobs = {{ flights = "{LINE}" }}', ""]
        file = self.folder / f"{name}.toml"
        file.write_text("\n".join(lines))
        return file

    def token(self, user):
        file = self.folder / f"token-{user}"
        file.write_text(f"{user}:{self.controller.users[user].token}")
        return file

    # --- people at their shells ---

    def shell(self, user, script, *words, expected=(0,), timeout=300):
        """One of scripts/, with somebody's token."""
        environment = {
            **os.environ,
            "GATEHOUSE_SETTINGS": str(self.folder / "gatehouse-settings.toml"),
            "GATEHOUSE_JENKINS_TOKEN": str(self.token(user)),
        }
        command = [str(ROOT / "scripts" / script), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=timeout)
        assert done.returncode in expected, (
            f"{script} {words}: {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        )
        assert self.controller.users[user].token not in done.stdout + done.stderr
        return done

    def begin(self, user, job, **parameters):
        """Start a build without following it; answers the build."""
        if job == LINE:
            parameters.setdefault("PROJECT", f"{QUICK}/project.toml")
        words = [word for name, value in parameters.items() for word in ("--param", f"{name}={value}")]
        self.shell(user, "trigger", job, *words, "--no-follow")
        return self.newest(job)

    def newest(self, job):
        builds = self.controller.jobs[job].builds
        return builds[max(builds)]

    def primed(self, job):
        """Parameters are known after a job's first build: the first one of a new site, as in Jenkins."""
        if not self.controller.jobs[job].parameters:
            self.controller.schedule(self.controller.jobs[job], {}, {"shortDescription": "Branch indexing"})
            build = self.newest(job)
            self.wait(lambda: self.controller.jobs[job].parameters)
            build.execution.stop("ABORTED", "only to learn the parameters")
            self.ended(build)
        return job

    def wait(self, holds, seconds=240):
        wait_until(holds, seconds)

    def asks(self, build):
        """Wait until the build asks somebody."""
        self.wait(lambda: build.pending or not build.building)
        assert build.pending, self.said(build)
        return build

    def ended(self, build):
        self.wait(lambda: not build.building)
        return build

    def said(self, build):
        return f"{build.result} {build.problem}\n{build.log.decode()[-6000:]}"

    def url(self, build):
        return self.controller.build_url(build)

    def follow(self, user, job, **parameters):
        """Start a build and follow it in the background; answers it when it has begun, with a way to wait for the end."""
        ended = []
        words = [word for name, value in parameters.items() for word in ("--param", f"{name}={value}")]
        known = set(self.controller.jobs[job].builds)

        def run():
            ended.append(self.shell(user, "trigger", job, *words, expected=(0, 1, 3, 4), timeout=600))

        thread = threading.Thread(target=run)
        thread.start()
        self.wait(lambda: set(self.controller.jobs[job].builds) - known or not thread.is_alive())

        def wait():
            thread.join()
            return ended[0]

        return self.newest(job), wait
