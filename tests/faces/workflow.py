"""Carries a workflow out as GitHub's runner does, for what generated workflows use: contexts, `if`, `needs`, environments.

A job gets an empty workspace, the secrets of the repository and of its environment, and nothing of whoever runs this; a
step is ``bash --noprofile --norc -eo pipefail FILE``; secrets are masked in the log. A job in an environment that wants
a review waits until somebody gave one.
"""

from __future__ import annotations

import os
import re
import subprocess

import yaml

EXPRESSION = re.compile(r"\$\{\{ *(.+?) *\}\}")


class Runner:
    """One run of a workflow.

    Attributes:
        states: by job: success, failure, skipped, or waiting.
        log: what was printed, secrets masked.
        said: the same unmasked.
    """

    def __init__(self, text, folder, github, secrets, environments, variables):
        self.workflow = yaml.safe_load(text)
        self.folder, self.github = folder, github
        self.secrets, self.environments, self.variables = secrets, environments, variables
        self.states, self.log, self.said, self.summary = {}, "", "", ""

    def value(self, text, secrets=None):
        """A value with its expressions replaced."""
        return EXPRESSION.sub(lambda found: str(self.look_up(found[1], secrets)), str(text))

    def look_up(self, expression, secrets):
        for sign, same in (("!=", False), ("==", True)):
            left, found, right = expression.partition(f" {sign} ")
            if found:
                return (self.look_up(left, secrets) == self.look_up(right, secrets)) is same
        if expression.startswith("'"):
            return expression.strip("'")
        context, *names = expression.split(".")
        found = {"github": self.github, "secrets": secrets or {}}[context]
        for name in names:
            found = (found or {}).get(name, "")
        return found

    def ready(self, name):
        """Whether a job may begin; those whose condition or predecessor says no are skipped."""
        job = self.workflow["jobs"][name]
        before = [self.states[one] for one in job.get("needs", ())]
        if "waiting" in before:
            return False
        if any(one != "success" for one in before) or not self.look_up(job.get("if", "'' == ''"), None):
            self.states[name] = "skipped"
            return False
        return True

    def go(self, reviewed=(), until=None):
        """Carry out what is not done: jobs in environments that want a review only when these were reviewed."""
        for name, job in self.workflow["jobs"].items():
            if self.states.get(name) in ("success", "skipped"):
                continue
            environment = job.get("environment")
            if not self.ready(name):
                self.states.setdefault(name, "waiting")
            elif self.environments.get(environment, {}).get("reviewers") and environment not in reviewed:
                self.states[name] = "waiting"
            else:
                self.states[name] = self.job(name, job, environment)
            if name == until:
                break
        return self

    def job(self, name, job, environment):
        secrets = self.secrets | self.environments.get(environment, {}).get("secrets", {})
        workspace, temporary = self.folder / name / "workspace", self.folder / name / "temp"
        for folder in (workspace, temporary):
            folder.mkdir(parents=True, exist_ok=True)
        env = {key: self.value(value) for key, value in self.workflow.get("env", {}).items()}
        env |= {key: self.value(value, secrets) for key, value in job.get("env", {}).items()}
        for number, step in enumerate(job["steps"]):
            assert "uses" not in step and self.workflow["defaults"]["run"]["shell"] == "bash"
            file = temporary / f"{number}.sh"
            file.write_text(self.value(step["run"], secrets))
            mine = {key: self.value(value, secrets) for key, value in step.get("env", {}).items()}
            if self.step(file, workspace, temporary, env | mine, [*secrets.values(), self.github["token"]]):
                return "failure"
        left = [
            path.name
            for path in temporary.iterdir()
            if path.suffix != ".sh" and path.name not in ("summary", "report.md")
        ]
        assert not left, left
        return "success"

    def step(self, file, workspace, temporary, env, hidden):
        github = self.github
        own = {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_SERVER_URL": github["server_url"],
            "GITHUB_REPOSITORY": github["repository"],
            "GITHUB_RUN_ID": str(github["run_id"]),
            "GITHUB_SHA": github["sha"],
            "GITHUB_STEP_SUMMARY": str(temporary / "summary"),
            "RUNNER_TEMP": str(temporary),
            "HOME": str(self.folder),
            "PATH": os.environ["PATH"],
            **{key: os.environ[key] for key in ("PIP_FIND_LINKS", "LANG") if key in os.environ},
        }
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(file)]
        done = subprocess.run(
            words,
            cwd=workspace,
            env=own | self.variables | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said += done.stdout
        masked = done.stdout
        for secret in hidden:
            for line in filter(None, (secret, *secret.splitlines())):
                masked = masked.replace(line, "***")
        self.log += masked
        summary = temporary / "summary"
        self.summary += summary.read_text() if summary.exists() else ""
        return done.returncode
