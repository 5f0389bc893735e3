"""A stand-in for GitHub Enterprise Server: one repository over git's smart HTTP, workflow runs, and their reviews.

Answers have the fields of docs.github.com/en/rest/actions/workflow-runs that are read here, and its status codes.
"""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from tests.stand_in import JsonHandler
from tests.stand_in import Site as StandIn

OWNER, NAME = "mlops", "flights"
WORKFLOW = ".github/workflows/gatehouse.yml"


class Handler(JsonHandler):
    def do_GET(self):  # noqa: N802  # the name that http.server calls
        path = urlsplit(self.path).path
        if path.startswith(f"/{OWNER}/{NAME}/"):
            self.git(b"")
        else:
            self.api(path)

    def do_POST(self):  # noqa: N802
        self.git(self.rfile.read(int(self.headers["Content-Length"])))

    def api(self, path):
        site = self.server.site
        site.asked.append(path)
        if site.answers:
            self.send(*site.answers.pop(0))
        elif self.headers.get("Authorization") != f"Bearer {site.token}":
            self.send(401, {"message": "Bad credentials"})
        else:
            prefix = f"/api/v3/repos/{OWNER}/{NAME}/actions/runs/"
            number, _, rest = path.removeprefix(prefix).partition("/")
            found = site.runs.get(int(number)) if path.startswith(prefix) and number.isdecimal() else None
            answer = None if found is None else {"": found, "approvals": site.reviews[int(number)]}.get(rest)
            self.send(*((404, {"message": "Not Found"}) if answer is None else (200, answer)))

    def git(self, body):
        site, split = self.server.site, urlsplit(self.path)
        known = base64.b64encode(f"x-access-token:{site.token}".encode()).decode()
        if self.headers.get("Authorization") != f"basic {known}":
            self.send(401, {}, [("WWW-Authenticate", "Basic")])
            return
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(site.repository),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": split.path.removeprefix(f"/{OWNER}/{NAME}"),
            "QUERY_STRING": split.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=True)
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Site(StandIn):
    """The server. `answers` are given instead of the next ones; `asked` are the paths that the API was asked for."""

    handler = Handler

    def __init__(self, repository: Path, token="a token of GitHub's"):
        self.repository = repository / ".git"
        self.token = token
        self.runs, self.reviews, self.answers, self.asked = {}, {}, [], []

    def started(self, number, actor, commit, again_by=None):
        """A run, by whom it was started and, if it was, run again."""
        people = [{"login": one, "type": "User"} for one in (actor, again_by or actor)]
        self.runs[number] = {
            "id": number,
            "path": WORKFLOW,
            "head_sha": commit,
            "actor": people[0],
            "triggering_actor": people[1],
        }
        self.reviews.setdefault(number, [])

    def review(self, number, user, state="approved", comment="", environment="gatehouse-approval", kind="User"):
        """What somebody says of an environment of a run."""
        self.reviews[number].append(
            {
                "state": state,
                "comment": comment,
                "environments": [{"name": environment}],
                "user": {"login": user, "type": kind},
            }
        )
