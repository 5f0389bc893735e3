"""A stand-in for a Jenkins controller: its HTTP API over real HTTP, for tests. The product never imports it.

Where behaviour comes from (sources of Jenkins' core and plugins):
- tokens need no crumb, passwords need one bound to the session: core, ApiCrumbExclusion, DefaultCrumbIssuer;
- build, queue and log: core, ParameterizedJobMixIn, ParametersDefinitionProperty, Queue, AnnotatedLargeText;
- inputs, who may answer them and how it is refused: pipeline-input-step, InputStepExecution and InputAction;
- 400 with X-Error: core, hudson.model.Failure; GET on an act: stapler, RequirePOST;
- wfapi: pipeline-rest-api, RunAPI and PendingInputActionsExt; what it cannot do ends as 500;
- restart from a stage, with the environment and the parameters of the first build: pipeline-model-definition,
  RestartDeclarativePipelineAction;
- milestones: pipeline-milestone-step, MilestoneStepExecution; the same item twice in the queue is one build with both
  causes: core, Queue.scheduleInternal and CauseAction.foldIntoExisting;
- webhooks: generic-webhook-trigger, GenericWebHookRequestReceiver; artifacts: core, DirectoryBrowserSupport.

A job with a definition is really carried out (execution.py); one without is played by the test.
What it does not do: folders' own pages, views, scanning for branches, and anything in HTML but the errors.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import mimetypes
import re
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.jenkins.controller_state import EXCEEDED, INPUT, Job, User, pruned
from tests.jenkins.execution import Execution, Resources

LOGIN_PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
EXECUTORS = {"gatehouse": 2, "gatehouse-production": 1}
# What Jenkins sends with every file of a build that a browser asks for.
CONTENT_SECURITY_POLICY = "sandbox; default-src 'none'; img-src 'self'; style-src 'self';"


class Answer(Exception):
    """Ends a request with a status."""

    def __init__(self, status, body=b"", **headers):
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not isinstance(body, bytes):
            self.headers["Content-Type"] = "application/json;charset=utf-8"


def failure(message):
    return Answer(400, b"<html>error</html>", X_Error=message, Content_Type="text/html;charset=utf-8")


def user_cause(name):
    words = f"Started by user {name}"
    return {"_class": "hudson.model.Cause$UserIdCause", "shortDescription": words, "userId": name, "userName": name}


def not_found():
    return Answer(404, b"<html>Not Found</html>", Content_Type="text/html;charset=utf-8")


class Controller:
    """State and switches. `before` is called with (method, path) first and may return an Answer, "drop", or "cut" (the answer breaks off in the middle); after a
    request was carried out, `after` may return "drop", and the client never learns what became of it."""

    def __init__(self, context=""):
        self.context = context
        self.users: dict[str, User] = {}
        self.jobs: dict[str, Job] = {}
        self.queue: dict[int, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.exports_inputs = True
        self.has_wfapi = True
        self.before: Callable[[str, str], Any] = lambda method, path: None
        self.after: Callable[[str, str], Any] = lambda method, path: None
        self.lock = threading.RLock()
        self.resources = Resources(EXECUTORS)
        self.secrets: dict[str, str] = {}

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="jenkins-", ignore_cleanup_errors=True)
        self.home = self._folder.name
        handler = type("Handler", (_Handler,), {"controller": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}{self.context}"
        return self

    def __exit__(self, *_):
        executions = [build.execution for job in self.jobs.values() for build in job.builds.values() if build.building]
        for execution in filter(None, executions):
            execution.stop("ABORTED", "the controller is shut down")
            execution.join()
        self._folder.cleanup()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def add_user(self, name, *permissions, groups=()):
        held = frozenset({"Overall/Read", "Job/Read", *permissions})
        self.users[name] = User(
            name, token=f"11{hashlib.md5(name.encode()).hexdigest()}", groups=tuple(groups), permissions=held
        )
        return self.users[name]

    def add_job(self, name, **about):
        self.jobs[name] = Job(name, **about)
        return self.jobs[name]

    def build_url(self, build):
        return f"{self.url}{build.job.path}/{build.number}/"

    def posts(self, ending):
        return [path for method, path in self.requests if method == "POST" and urlsplit(path).path.endswith(ending)]

    # --- routing ---

    def handle(self, request):
        path = request.path_only.removeprefix(self.context)
        hook = path.startswith("/generic-webhook-trigger/")  # by its token, without a user and a crumb
        user = None if hook else self.authenticate(request)
        if request.method == "POST" and not hook:
            self.check_crumb(request, user)
        for pattern, act in ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                with self.lock:
                    return getattr(self, act)(
                        request, user, **{key: unquote(value) for key, value in match.groupdict().items()}
                    )
        raise not_found()

    def authenticate(self, request):
        header = request.headers.get("Authorization", "")
        if not header.startswith("Basic "):
            raise Answer(403, b"<html>Authentication required</html>", X_You_Are_Authenticated_As="anonymous")
        name, _, secret = base64.b64decode(header[6:]).decode().partition(":")
        user = self.users.get(name)
        if user is None or secret not in (user.token, user.password):
            raise Answer(401, b"<html>Invalid password/token</html>", WWW_Authenticate='Basic realm="Jenkins"')
        request.by_token = secret == user.token
        return user

    def check_crumb(self, request, user):
        if not request.by_token and request.headers.get("Jenkins-Crumb") != self.crumb_of(request, user):
            raise Answer(403, b"<html>No valid crumb was included in the request</html>")

    def crumb_of(self, request, user):
        return hashlib.sha256(f"{user.name};{request.headers.get('Cookie', '')}".encode()).hexdigest()

    def require(self, user, permission):
        if not user.may(permission):
            raise Answer(
                403,
                b"<html>Access denied</html>",
                X_You_Are_Authenticated_As=user.name,
                X_Required_Permission=f"hudson.model.{permission}",
            )

    def job_at(self, user, job):
        name = "/".join(part for part in job.split("/job/"))
        if name not in self.jobs or not user.may("Job/Read"):
            raise not_found()
        return self.jobs[name]

    def build_at(self, user, job, number):
        build = self.job_at(user, job).builds.get(int(number))
        if build is None:
            raise not_found()
        return build

    def act_only(self, request):
        if request.method != "POST":
            raise Answer(405, b"", Allow="POST")

    # --- who, and what there is ---

    def crumb(self, request, user):
        raise Answer(
            200,
            {
                "_class": "hudson.security.csrf.DefaultCrumbIssuer",
                "crumb": self.crumb_of(request, user),
                "crumbRequestField": "Jenkins-Crumb",
            },
        )

    def me(self, request, user):
        raise Answer(200, {"_class": "hudson.model.User", "id": user.name, "fullName": user.name})

    def job_json(self, request, user, job):
        name = "/".join(part for part in job.split("/job/"))
        if name not in self.jobs:
            return self.folder_json(request, user, name)
        raise Answer(200, pruned(self.about_job(self.job_at(user, job)), request.query.get("tree")))

    def about_job(self, job):
        definitions = [{"_class": "hudson.model.StringParameterDefinition", **one} for one in job.parameters]
        property_ = {"_class": "hudson.model.ParametersDefinitionProperty", "parameterDefinitions": definitions}
        return {
            "_class": "org.jenkinsci.plugins.workflow.job.WorkflowJob",
            "name": job.name.rsplit("/", 1)[-1],
            "fullName": job.name,
            "url": f"{self.url}{job.path}/",
            "buildable": job.buildable,
            "property": [property_] if definitions else [],
            "builds": [self.about_build(job.builds[number]) for number in sorted(job.builds, reverse=True)[:100]],
        }

    def folder_json(self, request, user, name=""):
        """A folder, or the controller itself: the jobs inside, as deep as they go (``tree`` cuts that off)."""
        if not user.may("Job/Read") or (name and not any(job.startswith(f"{name}/") for job in self.jobs)):
            raise not_found()
        raise Answer(200, pruned(self.about_folder(name), request.query.get("tree")))

    def about_folder(self, name):
        inside = [
            job.removeprefix(f"{name}/") if name else job for job in self.jobs if not name or job.startswith(f"{name}/")
        ]
        jobs = []
        for child in dict.fromkeys(path.split("/")[0] for path in inside):
            full = f"{name}/{child}" if name else child
            jobs.append(self.about_job(self.jobs[full]) if full in self.jobs else self.about_folder(full))
        return {"_class": "com.cloudbees.hudson.plugins.folder.Folder", "jobs": jobs}

    def queue_json(self, request, user):
        items = [
            {
                "id": item["id"],
                "actions": [{"parameters": [{"name": n, "value": v} for n, v in item["values"].items()]}],
            }
            for item in self.queue.values()
            if item["build"] is None and not item["cancelled"]
        ]
        raise Answer(200, {"_class": "hudson.model.Queue", "items": items})

    def build_json(self, request, user, job, number):
        raise Answer(200, pruned(self.about_build(self.build_at(user, job, number)), request.query.get("tree")))

    def page(self, request, user, job, number):
        """What a person sees, and where a redirect of `stop` leads."""
        self.build_at(user, job, number)
        raise Answer(200, b"<html>a build</html>")

    def about_build(self, build):
        return {
            "_class": "org.jenkinsci.plugins.workflow.job.WorkflowRun",
            "number": build.number,
            "url": self.build_url(build),
            "building": build.building,
            "result": build.result,
            "displayName": build.display_name,
            "description": build.description,
            "timestamp": 1_795_000_000_000 + build.number,
            "actions": self.actions(build),
        }

    def actions(self, build):
        actions = [{"_class": "hudson.model.CauseAction", "causes": build.causes}, {}]
        parameters = [
            {"_class": "hudson.model.StringParameterValue", "name": name, "value": value}
            for name, value in build.parameters.items()
        ]
        actions.append({"_class": "hudson.model.ParametersAction", "parameters": parameters})
        if build.had_input:
            executions = [
                {
                    "_class": INPUT + "InputStepExecution",
                    "id": waiting.id,
                    "settled": False,
                    "input": self.input_json(waiting),
                }
                for waiting in build.pending
            ]
            exported = {"waitingForInput": bool(executions), "executions": executions} if self.exports_inputs else {}
            actions.append({"_class": INPUT + "InputAction", **exported})
        actions += [{"_class": INPUT + "ApproverAction", "userId": name} for name in build.approved_by]
        if not build.building and build.interrupted:
            actions.append({"_class": "jenkins.model.InterruptedBuildAction", "causes": build.interrupted})
        return actions

    def input_json(self, waiting):
        return {
            "_class": INPUT + "InputStep",
            "id": waiting.id,
            "message": waiting.message,
            "ok": waiting.ok,
            "cancel": "Abort",
            "submitter": waiting.submitter,
            "submitterParameter": waiting.submitter_parameter,
            "parameters": waiting.parameters,
        }

    # --- starting, stopping, reading the log ---

    def start(self, request, user, job, how):
        self.act_only(request)
        found = self.job_at(user, job)
        self.require(user, "Job/Build")
        if not found.buildable:
            raise Answer(409, b"<html>not buildable</html>")
        if how == "buildWithParameters" and not found.parameters:
            raise Answer(400, b"<html>is not parameterized</html>")
        given = {**request.query, **request.form}
        values = {
            parameter["name"]: given.get(parameter["name"], parameter.get("defaultParameterValue", {}).get("value"))
            for parameter in found.parameters
        }
        new, number = self.schedule(found, values, user_cause(user.name))
        raise Answer(201 if new else 303, b"", Location=self.queue_url(request, number))

    def schedule(self, job, values, cause, restart=None):
        """Queue a build; whether it is a new item, and its number. Restarts are never folded into others."""
        for item in self.queue.values():
            waits = item["build"] is None and not item["cancelled"]
            if waits and item["job"] is job and item["values"] == values and restart is None:
                item["causes"].append(cause)
                return False, item["id"]
        number = len(self.queue) + 1
        self.queue[number] = {
            "id": number,
            "job": job,
            "values": values,
            "causes": [cause],
            "restart": restart,
            "build": None,
            "cancelled": False,
        }
        self.maintain()
        return True, number

    def maintain(self):
        """Let what may leave the queue leave it: Queue.maintain, for jobs that are carried out."""
        for item in self.queue.values():
            job = item["job"]
            if job.definition is None or item["build"] or item["cancelled"]:
                continue
            if job.concurrent or not any(build.building for build in job.builds.values()):
                self.leave_queue(item["id"])

    def tick(self, job):
        """The time of the job's schedule has come: TimerTrigger."""
        defaults = {one["name"]: one["defaultParameterValue"]["value"] for one in job.parameters}
        cause = {"_class": "hudson.triggers.TimerTrigger$TimerTriggerCause", "shortDescription": "Started by timer"}
        return self.schedule(job, defaults, cause)[1]

    def webhook(self, request, user):
        """Start the jobs whose trigger has this token; the token comes in a header, or in the address."""
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = request.headers.get("token") or bearer or request.query.get("token", "")
        triggered = {}
        for job in self.jobs.values():
            for trigger in job.triggers:
                if trigger["name"] == "GenericTrigger" and self.is_meant(trigger["named"], token, request.query):
                    defaults = {one["name"]: one["defaultParameterValue"]["value"] for one in job.parameters}
                    words = trigger["named"].get("causeString", "Generic Cause")
                    cause = {"_class": "org.jenkinsci.plugins.gwt.GenericCause", "shortDescription": words}
                    number = self.schedule(job, defaults, cause)[1]
                    triggered[job.name] = {"triggered": True, "id": number, "url": f"queue/item/{number}/"}
        if not triggered:
            raise Answer(404, {"jobs": None, "message": "Did not find any jobs with GenericTrigger configured!"})
        raise Answer(200, {"jobs": triggered, "message": "Triggered jobs."})

    def is_meant(self, trigger, token, query):
        """Its token, and its filter found in the text that the address fills in."""
        text = re.sub(r"\$(\w+)", lambda found: query.get(found[1], ""), trigger.get("regexpFilterText", ""))
        wanted = re.search(trigger.get("regexpFilterExpression", ""), text)
        return token == self.secrets[trigger["tokenCredentialId"]] and wanted is not None

    def restart(self, request, user, job, number):
        self.act_only(request)
        build = self.build_at(user, job, number)
        stage = request.form.get("stageName") or request.query.get("stageName", "")
        refused = (
            "not allowed to restart"
            if build.building or not user.may("Job/Build") or not build.job.buildable
            else f"Failure restarting from stage: no stage {stage}"
            if build.stages.get(stage) in (None, "SKIPPED_FOR_FAILURE")
            else None
        )
        if refused:
            raise Answer(200, {"status": "ok", "data": {"success": "false", "message": refused}})
        restarted = {"stage": stage, "environment": build.environment}
        self.schedule(build.job, build.parameters, user_cause(user.name), restarted)
        raise Answer(200, {"status": "ok", "data": {"success": "true", "message": "ok"}})

    def queue_url(self, request, number):
        # Built from the request's own Host header, not from the configured address: stapler's sendRedirect.
        return f"http://{request.headers['Host']}{self.context}/queue/item/{number}/"

    def leave_queue(self, number):
        """What Jenkins does by itself a moment later: the build begins."""
        item = self.queue[number]
        build = item["build"] = item["job"].start(item["values"], item["causes"])
        if item["job"].definition is not None:
            build.execution = Execution(self, build, item["restart"])
            build.execution.start()
        return build

    def pass_milestone(self, build, ordinal):
        """End older builds that have not come so far; the number of a newer one that has, or None."""
        build.milestone = ordinal
        self.supersede_older(build, ordinal)
        newer = (other for other in build.job.builds.values() if other.building and other.number > build.number)
        return next(
            (other.number for other in newer if other.milestone is not None and other.milestone >= ordinal), None
        )

    def supersede_older(self, build, ordinal):
        """End older builds that have not passed `ordinal`: MilestoneStepExecution.getBuildsToCancel."""
        for other in list(build.job.builds.values()):
            behind = other.milestone is None or other.milestone < ordinal
            if other.building and other.number < build.number and behind:
                other.execution.stop("NOT_BUILT", f"Superseded by build #{build.number}")

    def completed(self, build):
        """A build that has passed a milestone ends, by its end, the older ones that have come just as far."""
        if build.milestone is not None:
            last, build.milestone = build.milestone, None
            self.supersede_older(build, last + 1)
        self.maintain()

    def queue_item(self, request, user, number):
        item = self.queue.get(int(number))
        if item is None:
            raise not_found()
        about = {
            "_class": "hudson.model.Queue$WaitingItem",
            "id": item["id"],
            "why": "In the quiet period",
            "task": {"name": item["job"].name},
        }
        if item["cancelled"] or item["build"]:
            about |= {"_class": "hudson.model.Queue$LeftItem", "why": None, "cancelled": item["cancelled"]}
        if item["build"]:
            about["executable"] = {
                "_class": "org.jenkinsci.plugins.workflow.job.WorkflowRun",
                "number": item["build"].number,
                "url": self.build_url(item["build"]),
            }
        raise Answer(200, about)

    def cancel(self, request, user):
        self.act_only(request)
        item = self.queue.get(int(request.query.get("id", 0)))
        if item is None or item["build"]:
            raise not_found()
        item["cancelled"] = True
        raise Answer(204)

    def stop(self, request, user, job, number):
        self.act_only(request)
        build = self.build_at(user, job, number)
        self.require(user, "Job/Cancel")
        if build.building:
            build.interrupted = [
                {
                    "_class": "jenkins.model.CauseOfInterruption$UserInterruption",
                    "shortDescription": f"Aborted by {user.name}",
                    "user": {"id": user.name},
                }
            ]
            if build.execution:
                build.execution.stop("ABORTED", f"Aborted by {user.name}")
            else:
                build.finish("ABORTED")
        raise Answer(302, b"", Location=".")

    def progressive(self, request, user, job, number):
        build = self.build_at(user, job, number)
        more = {"X_More_Data": "true"} if build.building else {}
        log, start = build.log, int(request.query.get("start", 0))
        text = log[start if start <= len(log) else 0 :]
        raise Answer(200, text, Content_Type="text/plain;charset=UTF-8", X_Text_Size=str(len(log)), **more)

    def artifact(self, request, user, job, number, path):
        build = self.build_at(user, job, number)
        file = build.execution.work / "artifacts" / path if build.execution else None
        if file is None or ".." in path or not file.is_file():
            raise not_found()
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        raise Answer(200, file.read_bytes(), Content_Type=kind, Content_Security_Policy=CONTENT_SECURITY_POLICY)

    def describe(self, request, user, job, number):
        """Stages and their state, as far as the build has come."""
        build = self.build_at(user, job, number)
        if not self.has_wfapi:
            raise not_found()
        words = {
            "FAILURE": "FAILED",
            "NOT_BUILT": "ABORTED",
            "SKIPPED": "NOT_EXECUTED",
            "SKIPPED_FOR_FAILURE": "NOT_EXECUTED",
        }
        stages = [
            {"id": str(place), "name": name, "status": words.get(status, status)}
            for place, (name, status) in enumerate(build.stages.items())
        ]
        status = (
            "PAUSED_PENDING_INPUT"
            if build.pending
            else "IN_PROGRESS"
            if build.building
            else words.get(build.result, build.result)
        )
        raise Answer(200, {"id": str(build.number), "name": build.display_name, "status": status, "stages": stages})

    # --- inputs ---

    def wfapi(self, request, user, job, number):
        build = self.build_at(user, job, number)
        if not self.has_wfapi:
            raise not_found()
        base = urlsplit(self.build_url(build)).path
        listed = []
        for waiting in build.pending:
            inputs = [
                {
                    "type": parameter["type"],
                    "name": parameter["name"],
                    "description": parameter.get("description"),
                    "definition": {
                        "defaultVal": parameter.get("defaultParameterValue", {}).get("value"),
                        **({"choices": parameter["choices"]} if "choices" in parameter else {}),
                    },
                }
                for parameter in waiting.parameters
            ]
            listed.append(
                {
                    "id": waiting.id,
                    "proceedText": waiting.ok,
                    "message": waiting.message,
                    "inputs": inputs,
                    "proceedUrl": f"{base}wfapi/inputSubmit?inputId={waiting.id}",
                    "abortUrl": f"{base}input/{waiting.id}/abort",
                }
            )
        raise Answer(200, listed)

    def submit_wfapi(self, request, user, job, number):
        self.act_only(request)
        try:
            self.answer_input(request, user, job, number, request.query.get("inputId", ""), "proceed")
        except Answer as answer:
            raise (answer if answer.status == 200 else Answer(500, b"<html>Oops!</html>")) from None

    def answer_input(self, request, user, job, number, input_id, act):
        build = self.build_at(user, job, number)
        waiting = next((waiting for waiting in build.pending if waiting.id == input_id), None)
        if waiting is None:
            raise not_found()
        self.act_only(request)
        if act == "submit":
            self.settle(build, waiting, user, request, "proceed" if "proceed" in request.form else "abort")
            raise Answer(302, b"", Location=self.build_url(build) + "console")
        self.settle(build, waiting, user, request, act)
        raise Answer(200)

    def settle(self, build, waiting, user, request, act):
        if act == "abort":
            if not (user.may("Job/Cancel") or waiting.may_answer(user)):
                raise failure(f"You need to be '{waiting.submitter}' (or have Job/Cancel permissions) to cancel this.")
            build.interrupted = [
                {
                    "_class": INPUT + "Rejection",
                    "shortDescription": f"Rejected by {user.name}",
                    "user": {"id": user.name},
                    "timestamp": int(time.time() * 1000),
                }
            ]
            build.pending.remove(waiting)
            if build.execution:
                build.execution.answers.put({"act": "abort", "user": user.name})
            return
        if not waiting.may_answer(user):
            raise failure(
                f"You need to be {waiting.submitter} to submit this."
                if waiting.submitter
                else "You need to have Job/Build permissions to submit this."
            )
        answers = {parameter["name"]: None for parameter in waiting.parameters}
        if act == "proceed":
            answers |= self.submitted(waiting, request)
        if waiting.submitter_parameter:
            answers[waiting.submitter_parameter] = user.name
        build.answers = answers
        build.approved_by.append(user.name)
        build.pending.remove(waiting)
        if build.execution:
            build.execution.answers.put({"act": "proceed", "user": user.name, "parameters": answers})

    def time_out(self, build):
        """The limit of the stage that waits has come: TimeoutStepExecution."""
        with self.lock:
            build.pending.clear()
            build.interrupted = [EXCEEDED]
            build.execution.answers.put({"act": "timeout"})

    def submitted(self, waiting, request):
        if "json" not in request.form:
            raise failure("This page expects a form submission but had only {}")
        names = {parameter["name"]: parameter for parameter in waiting.parameters}
        given = {}
        for entry in json.loads(request.form["json"]).get("parameter") or []:
            if entry["name"] not in names or entry["value"] not in names[entry["name"]].get(
                "choices", [entry["value"]]
            ):
                raise Answer(500, b"<html>IllegalArgumentException</html>")
            given[entry["name"]] = entry["value"]
        return given


JOB = r"/job/(?P<job>.+?)"
BUILD = JOB + r"/(?P<number>\d+)"
ROUTES = [
    (r"/crumbIssuer/api/json", "crumb"),
    (r"/me/api/json", "me"),
    (r"/queue/item/(?P<number>\d+)/api/json", "queue_item"),
    (r"/queue/cancelItem", "cancel"),
    (r"/queue/api/json", "queue_json"),
    (r"/api/json", "folder_json"),
    (BUILD + r"/api/json", "build_json"),
    (r"/generic-webhook-trigger/invoke", "webhook"),
    (BUILD + r"/restart/restartPipeline", "restart"),
    (BUILD + r"/artifact/(?P<path>.+)", "artifact"),
    (BUILD + r"/wfapi/describe", "describe"),
    (BUILD + r"/stop", "stop"),
    (BUILD + r"/", "page"),
    (BUILD + r"/logText/progressiveText", "progressive"),
    (BUILD + r"/wfapi/pendingInputActions", "wfapi"),
    (BUILD + r"/wfapi/inputSubmit", "submit_wfapi"),
    (BUILD + r"/input/(?P<input_id>[^/]+)/(?P<act>proceed|proceedEmpty|abort|submit)", "answer_input"),
    (JOB + r"/(?P<how>build|buildWithParameters)", "start"),
    (JOB + r"/api/json", "job_json"),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    controller: Controller

    def log_message(self, *_):
        """Keeps the tests' output clean."""

    def do_GET(self):
        self.serve("GET")

    def do_POST(self):
        self.serve("POST")

    def serve(self, method):
        parts = urlsplit(self.path)
        self.method, self.path_only = method, parts.path
        self.query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.form = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
        self.controller.requests.append((method, self.path))
        verdict = self.controller.before(method, parts.path)
        if verdict is None:
            verdict = self.carried_out()
            if self.controller.after(method, parts.path) == "drop":
                verdict = "drop"
        if verdict == "drop":
            self.close_connection = True
            return
        half = verdict == "cut"
        if half:
            verdict = self.carried_out()
            self.close_connection = True
        self.send_response(verdict.status)
        for name, value in {"X-Jenkins": "2.577", **verdict.headers, "Content-Length": str(len(verdict.body))}.items():
            self.send_header(name, value)
        with contextlib.suppress(ConnectionError):  # the client may have given up
            self.end_headers()
            self.wfile.write(verdict.body[: len(verdict.body) // 2] if half else verdict.body)

    def carried_out(self):
        try:
            self.controller.handle(self)
        except Answer as answer:
            return answer
        raise AssertionError("every request is answered")
