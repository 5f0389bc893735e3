"""Commands of the production gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.common import Json, Run, answer, app, installation, table
from pipeline.errors import UsageError

gate = typer.Typer(help="The production gate: what waits, why, and the decision.", no_args_is_help=True)
app.add_typer(gate, name="gate")

Reason = Annotated[str | None, typer.Option("--reason", help="Why; recorded with it. A signed statement has its own.")]
Build = Annotated[str | None, typer.Option("--build", help="URL of the Jenkins build whose input was answered.")]
Input = Annotated[str | None, typer.Option("--input", help="Id of that input.")]
Token = Annotated[Path | None, typer.Option("--token-file", help="File with the identity provider's token for you.")]
Signed = Annotated[Path | None, typer.Option("--signed", help="Statement that you signed; FILE.sig lies beside it.")]
Demo = Annotated[str | None, typer.Option("--demo-identity", help="A name, believed by an embedded stack only.")]
Incident = Annotated[str, typer.Option("--incident", help="Number of the incident that does not wait.")]
To = Annotated[str, typer.Option("--to", help="Who decides in your place.")]
Until = Annotated[str, typer.Option("--until", help="Last day, or time, of the delegation (UTC).")]
From = Annotated[str | None, typer.Option("--from", help="First day, or time; now if not given.")]
Model = Annotated[str, typer.Option("--model", help="Which model.")]


@gate.command()
def show(
    run: Run,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Judge by this policy instead; nothing is recorded.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", help="Just 'line' (for a build's description) or 'gate' (open, closed).")
    ] = None,
    json: Json = False,
) -> None:
    """Show verdict, subject and approvals; exit code 3 when the policy refuses, except with --only."""
    from pipeline.bootstrap.gatekeeping import show, try_policy

    view = show(installation(), run) if policy is None else try_policy(installation(), run, policy)
    if only is not None:
        if only not in ("line", "gate"):
            raise UsageError(f"nothing is called '{only}' here", where="--only", fix="line or gate")
        typer.echo(view[only])
        return
    if json:
        answer(view)
    else:
        typer.echo(f"{run}: {view['headline']}")
        table(view["verdict"]["rules"], ("passed", "rule", "value", "threshold", "reason"))
        for more in view["lines"]:
            typer.echo(more)
    if not view["verdict"]["passed"]:
        raise typer.Exit(3)


def _about_a_run(verb: str, words: str) -> None:
    """A command that records something about a run: the same words for each."""

    @gate.command(verb, help=words)
    def command(
        run: Run,
        reason: Reason = None,
        build: Build = None,
        input_: Input = None,
        token_file: Token = None,
        signed: Signed = None,
        demo_identity: Demo = None,
    ) -> None:
        from pipeline.bootstrap import decisions

        record = decisions.revoke if verb == "revoke" else decisions.decide
        record(installation(), run, _answer(verb, reason, build, input_, token_file, signed, demo_identity))


_about_a_run("approve", "Record an approval of exactly what the evidence was measured on.")
_about_a_run("reject", "Record a rejection: final for this subject.")
_about_a_run("revoke", "Take back your approval, as long as the model is not rolled out.")


@gate.command()
def decide(
    build: Annotated[str, typer.Option("--build", envvar="BUILD_URL", help="URL of that build, or of that run.")],
    run: Annotated[str | None, typer.Option("--run", envvar="GATEHOUSE_RUN", help="Of which run; in GitHub.")] = None,
) -> None:
    """Record what an approval job's build in Jenkins, or the reviews of a run in GitHub, say, as whoever said it."""
    from pipeline.bootstrap import decisions, reviews

    if not reviews.is_workflow_run(build):
        decisions.decide_as_started(installation(), build)
    elif run is None:
        raise UsageError(
            "of which run are the reviews?", where="--run", fix="gatehouse gate decide --build URL --run RUN"
        )
    else:
        decisions.decide_as_reviewed(installation(), build, run)


@gate.command()
def delegate(
    model: Model,
    to: To,
    until: Until,
    from_: From = None,
    reason: Reason = None,
    build: Build = None,
    input_: Input = None,
    token_file: Token = None,
    signed: Signed = None,
    demo_identity: Demo = None,
) -> None:
    """Let somebody else decide in your place for a while."""
    from pipeline.bootstrap.decisions import delegate

    how = _answer("delegate", reason, build, input_, token_file, signed, demo_identity)
    delegate(installation(), model, to, from_, until, how)


@gate.command("break-glass")
def break_glass(
    run: Run,
    incident: Incident,
    reason: Reason = None,
    build: Build = None,
    input_: Input = None,
    token_file: Token = None,
    signed: Signed = None,
    demo_identity: Demo = None,
) -> None:
    """An emergency: two operators answer for a promotion that policy or quorum would hold back. Loud, for hours."""
    from pipeline.bootstrap.decisions import break_glass

    how = _answer("break-glass", reason, build, input_, token_file, signed, demo_identity)
    break_glass(installation(), run, incident, how)


@gate.command()
def statement(
    verb: Annotated[str, typer.Argument(help="approve, reject, revoke, delegate or break-glass.")],
    actor: Annotated[str, typer.Option("--actor", help="Your name in the allowed-signers file.")],
    reason: Annotated[str, typer.Option("--reason", help="Why.")],
    run: Annotated[str | None, typer.Option("--run", envvar="GATEHOUSE_RUN", help="The run it is about.")] = None,
    incident: Annotated[str | None, typer.Option("--incident", help="For break-glass.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="For delegate.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="For delegate.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="For delegate.")] = None,
    from_: From = None,
) -> None:
    """Write a statement to be signed: ssh-keygen -Y sign -n gatehouse-decision -f KEY FILE."""
    from pipeline.bootstrap.decisions import write_statement

    about = {"model": model, "to": to, "starts": from_, "ends": until} if verb == "delegate" else None
    typer.echo(write_statement(installation(), verb, actor, reason, run, incident, about), nl=False)


@gate.command()
def sign(model: Annotated[str | None, typer.Option("--model", help="Which model.")] = None) -> None:
    """Sign anew what production uses, with the key that the settings name now: for when keys are rotated."""
    from pipeline.bootstrap.signatures import sign_wanted

    sign_wanted(installation(), model)


@gate.command()
def check(run: Run) -> None:
    """The gate itself: passes when policy and approvals hold, else exit code 3 or 4."""
    from pipeline.bootstrap.runner import execute

    execute(installation(), "gate production", run)


@gate.command()
def wait(
    run: Run,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait at most.", min=0)],
) -> None:
    """Wait until the gate is open; exit code 3 when the policy refuses, 4 when it is rejected or the time is over."""
    from pipeline.bootstrap.waiting import wait

    wait(installation(), run, timeout)


def _answer(
    verb: Any,
    reason: str | None,
    build: str | None,
    input_id: str | None,
    token_file: Path | None,
    signed: Path | None,
    demo: str | None,
) -> Any:
    from pipeline.bootstrap.identity import Answer

    return Answer(verb, reason, build, input_id, token_file, signed, demo)
