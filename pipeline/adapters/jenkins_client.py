"""A client of Jenkins: builds, the inputs that wait in them, and who decided.

Reads are tried again; a decision is never sent twice: after each, whatever the answer was, the build is read to see
what became of it. Ids, parameters and identities come from the server. Only API tokens are used: a request that
carries one needs no crumb.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jenkins
import requests
import stamina

from pipeline.adapters.jenkins_answers import (
    BUILD_TREE,
    Build,
    Decision,
    Outcome,
    Parameter,
    PendingInput,
    approvers,
    complete,
    decision,
    ended,
    exported_inputs,
    meaning,
    started_by,
    wfapi_input,
)
from pipeline.errors import ApprovalInvalid, GatehouseError, Unreachable, UsageError

__all__ = ("Decision", "Jenkins", "Parameter", "PendingInput")

# After a restart of the controller, reading inputs blocks for up to 60 s while executions load.
TIMEOUT_SECONDS = 75.0
ATTEMPTS = 4


class Jenkins:
    """One controller, as the user whose token this is may see it."""

    def __init__(
        self, url: str, user: str, token: str, *, timeout: float = TIMEOUT_SECONDS, ca_file: Path | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self.user = user
        self._server = _Server(self.url, user, token, timeout=timeout)
        if ca_file is not None:
            self._server._session.verify = str(ca_file)  # noqa: SLF001  # python-jenkins has no argument for it

    # --- reading ---

    def build(self, build_url: str) -> Build:
        """A build with its actions, as ``api/json`` gives it.

        Raises:
            UsageError: it is not of this controller, not there, or this user may not see it.
            Unreachable: Jenkins does not answer.
        """
        build: Build = self.read(self._inside(build_url) + "api/json", {"tree": BUILD_TREE})
        return build

    def pending_inputs(self, build_url: str) -> list[PendingInput]:
        """The inputs that wait in a build; none in a finished one."""
        return self._pending(build_url, self.build(build_url))

    def approvers(self, build_url: str) -> list[str]:
        """Ids of the users who answered inputs of this build, in order, each as often as they did."""
        return approvers(self.build(build_url))

    def started_by(self, build_url: str) -> str | None:
        """Id of the user who started the build; None when a schedule or a push did."""
        return started_by(self.build(build_url))

    def who_decided(self, build_url: str, input_id: str) -> Decision:
        """How `input_id` of a build was answered, and by whom.

        Raises:
            ApprovalInvalid: different people answered inputs of this build.
        """
        build = self.build(build_url)
        return self._decision(build_url, input_id, build)

    def submitter(self, build_url: str, input_id: str, *, approved: bool, run: str | None = None) -> str:
        """Id of the user who answered `input_id`, to be believed as the author of a decision.

        An approval is believed only while the build that was answered is running and, if `run` is given, carries
        that run in its name: an answer in an older build, or for something else, is worth nothing. A rejection may
        also be an abort, and may be recorded afterwards: it only ever holds back.

        Raises:
            ApprovalInvalid: nobody answered, it was answered otherwise, or this build cannot speak for the run.
        """
        build = self.build(build_url)
        answer = self._decision(build_url, input_id, build)
        accepted = {"approved"} if approved else {"approved", "rejected"}
        if answer.outcome not in accepted or answer.user is None:
            raise ApprovalInvalid(
                f"Jenkins knows no answer to '{input_id}' to go by: {answer.outcome}",
                where=build_url,
                fix="answer the input in Jenkins, as one of the approvers' group",
            )
        if approved and not build.get("building"):
            raise ApprovalInvalid("the build that was answered is over", where=build_url, fix="run the gate again")
        name = str(build.get("displayName", ""))
        if run is not None and run not in name.split():
            raise ApprovalInvalid(f"this build is not of run {run}", where=f"{build_url} ({name})")
        return answer.user

    def verify_submitter(self, build_url: str, input_id: str, claimed: str) -> str:
        """The user who approved, if it is the one whom ``submitterParameter`` claims.

        Raises:
            ApprovalInvalid: Jenkins names somebody else, or nobody.
        """
        actual = self.submitter(build_url, input_id, approved=True)
        if actual.casefold() != claimed.casefold():
            raise ApprovalInvalid(f"{claimed} is claimed, but Jenkins names {actual}", where=build_url)
        return actual

    # --- deciding ---

    def proceed(self, build_url: str, input_id: str, answers: Mapping[str, Any]) -> Decision:
        """Answer an input: every declared parameter is sent, with its default where `answers` has none.

        Raises:
            UsageError: no such input waits, an answer to nothing asked, or a choice that is not offered.
            ApprovalInvalid: this user may not, or somebody else was quicker.
            Unreachable: the outcome is not known; the message says whether trying again is safe.
        """
        build, waiting = self._waiting(build_url, input_id)
        values = [{"name": name, "value": value} for name, value in complete(waiting, answers, build_url).items()]
        form = {"json": json.dumps({"parameter": values})}
        return self._decide(build_url, waiting.id, "proceed", form, "approved", before=len(approvers(build)))

    def abort(self, build_url: str, input_id: str) -> Decision:
        """Reject an input: the build ends as aborted. Raises as `proceed` does."""
        build, waiting = self._waiting(build_url, input_id)
        return self._decide(build_url, waiting.id, "abort", {}, "rejected", before=len(approvers(build)))

    def _waiting(self, build_url: str, input_id: str) -> tuple[Build, PendingInput]:
        build = self.build(build_url)
        pending = self._pending(build_url, build)
        for waiting in pending:
            if waiting.id == input_id:
                return build, waiting
        listed = ", ".join(waiting.id for waiting in pending) or "nothing"
        state = "is running" if build.get("building") else f"has ended: {build.get('result')}"
        raise UsageError(f"no input '{input_id}' waits; the build {state}", where=build_url, fix=f"waiting: {listed}")

    def _decide(
        self, build_url: str, input_id: str, act: str, form: Mapping[str, str], wanted: Outcome, *, before: int
    ) -> Decision:
        lost: GatehouseError | None = None
        try:
            self.send("POST", f"{self._inside(build_url)}input/{quote(input_id, safe='')}/{act}", data=form)
        except (Unreachable, UsageError) as error:
            # Lost on the way, broken in the middle, or decided already: only the build itself can tell.
            lost = error
        build = self.build(build_url)
        if any(waiting.id == input_id for waiting in self._pending(build_url, build)):
            raise lost or Unreachable(
                "Jenkins took the answer, and the input waits still",
                where=build_url,
                fix="trying again is safe; see whether a proxy answers in Jenkins' place",
            )
        return self._outcome(build_url, build, wanted, before, lost)

    def _outcome(
        self, build_url: str, build: Build, wanted: Outcome, before: int, lost: GatehouseError | None
    ) -> Decision:
        """What became of an input that does not wait any more, after `before` earlier approvals."""
        new = approvers(build)[before:]
        answer = Decision("approved", new[0]) if new else ended(build)
        # Refused in clear words, ours did not count, even if it was the same user who said something else meanwhile.
        mine = (answer.user or "").casefold() == self.user.casefold() and not isinstance(lost, UsageError)
        if answer.outcome == wanted and mine:
            return answer
        if answer.outcome == "not asked" and wanted == "rejected" and lost is None:
            return Decision(wanted, self.user)  # Jenkins writes a rejection down only when the build is over
        if answer.outcome == "not asked":
            raise Unreachable(
                "the input is answered, but Jenkins does not say yet by whom and how",
                where=build_url,
                fix="look at the build when it has ended; do not decide again",
            ) from lost
        raise ApprovalInvalid(
            f"this input was answered meanwhile: {answer.outcome} by {answer.user or 'nobody'}", where=build_url
        ) from lost

    # --- the wire ---

    def _decision(self, build_url: str, input_id: str, build: Build) -> Decision:
        if any(waiting.id == input_id for waiting in self._pending(build_url, build)):
            return Decision("pending")
        return decision(build, build_url)

    def _pending(self, build_url: str, build: Build) -> list[PendingInput]:
        found = exported_inputs(build)
        if found is None:
            found = [wfapi_input(about) for about in self.read(self._inside(build_url) + "wfapi/pendingInputActions")]
        return found

    def _inside(self, build_url: str) -> str:
        if not build_url.startswith(self.url + "/"):
            raise UsageError("this build is not of the configured Jenkins", where=build_url, fix=f"it is {self.url}")
        return build_url.rstrip("/") + "/"

    def read(self, url: str, query: Mapping[str, str] | None = None) -> Any:
        """A JSON answer, asked for again when the controller does not answer.

        Raises:
            UsageError: not there, not for this user, or no JSON.
            Unreachable: Jenkins does not answer.
        """
        for attempt in stamina.retry_context(on=Unreachable, attempts=ATTEMPTS, wait_initial=0.2, wait_max=5.0):
            with attempt:
                answer = self.send("GET", url, params=query)
        try:
            return answer.json()
        except requests.JSONDecodeError as error:
            raise UsageError(
                "something else than JSON came back, probably a login page or a proxy's",
                where=url,
                fix="check the address, and that the proxy lets API tokens through",
            ) from error

    @contextmanager
    def stream(self, url: str, query: Mapping[str, str]) -> Iterator[requests.Response]:
        """An answer whose body is read piece by piece. Raises as `read` does, also when it breaks off in the middle."""
        for attempt in stamina.retry_context(on=Unreachable, attempts=ATTEMPTS, wait_initial=0.2, wait_max=5.0):
            with attempt:
                answer = self.send("GET", url, params=query, stream=True)
        try:
            with answer:
                yield answer
        except requests.RequestException as error:
            raise _silent(error, url) from error

    def send(self, method: str, url: str, *, stream: bool = False, **content: Any) -> requests.Response:
        """One request, never repeated here. Raises as `read` does."""
        try:
            # No crumb: an API token needs none, and the library would fetch one first and keep it for ever.
            answer: requests.Response = self._server.jenkins_request(
                requests.Request(method, url, **content), add_crumb=False, stream=stream
            )
        except (jenkins.TimeoutException, requests.RequestException) as error:
            raise _silent(error, url) from error
        refused = meaning(answer.status_code, answer.headers, url)
        if refused is not None:
            answer.close()
            raise refused
        return answer


def _silent(error: Exception, url: str) -> Unreachable:
    return Unreachable(
        f"Jenkins does not answer: {type(error).__name__}",
        where=url,
        fix="see whether the controller runs and whether this machine reaches it",
    )


class _Server(jenkins.Jenkins):  # type: ignore[misc]  # python-jenkins has no types
    """python-jenkins, which knows addresses and credentials; statuses are judged by us, with their headers."""

    def _response_handler(self, response: requests.Response) -> requests.Response:
        return response
