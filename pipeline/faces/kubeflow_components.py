"""What runs inside a Kubeflow task: the text of these functions is compiled into the pipeline.

Each stands alone, and imports what it uses itself: Kubeflow copies its source into the task, and that of `gatehouse`.
Annotations are real types here, because Kubeflow reads them.
"""

# mypy: disable-error-code="valid-type"
# Kubeflow copies each function alone: a return type with a name of its own would not be there.

from typing import NamedTuple


def gatehouse(*words: str) -> str:
    """Run a command of Gatehouse; answer what it prints; exit as it exits."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", "pipeline", *words], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)  # noqa: T201  # a task's log
    if done.returncode:
        print(f"gatehouse {' '.join(words)}: exit code {done.returncode}", flush=True)  # noqa: T201  # a task's log
        sys.exit(done.returncode)
    return done.stdout.strip()


def name_run(run: str, job: str) -> NamedTuple("Outputs", [("run", str)]):
    """The run id: the one that was given, else the name of this run of the pipeline."""
    return (run or job,)


def first_stage(stage: str, command: list[str], run: str, project: str, train: str, holdout: str) -> NamedTuple(
    "Outputs", [("digest", str)]
):
    """Open the run and do its first stage; answer the digest of its fact."""
    windows = {"--train": train, "--holdout": holdout}
    options = [word for option, window in windows.items() if window for word in (option, window)]
    gatehouse(*command, "--run", run, "--project", project, *options)
    return (gatehouse("ledger", "fact", "--run", run, "--stage", stage),)


def model_stage(stage: str, command: list[str], run: str, reads: str, digest: str) -> NamedTuple(
    "Outputs", [("digest", str)]
):
    """Do a stage, if what it reads is what the stage before (or a cache in its place) handed on."""
    gatehouse("ledger", "fact", "--run", run, "--stage", reads, "--is", digest)
    gatehouse(*command, "--run", run)
    return (gatehouse("ledger", "fact", "--run", run, "--stage", stage),)


def registered_stage(command: list[str], run: str, reads: str, digest: str) -> None:
    """Do the first stage that acts on an environment, if what it reads is what was handed on."""
    gatehouse("ledger", "fact", "--run", run, "--stage", reads, "--is", digest)
    gatehouse(*command, "--run", run)


def environment_stage(command: list[str], run: str) -> None:
    """Do a stage that acts on an environment; the ledger says whether its turn has come."""
    gatehouse(*command, "--run", run)


def gate_stage(command: list[str], run: str, seconds: int) -> None:
    """Wait until people have decided, then pass the gate."""
    gatehouse("gate", "wait", "--run", run, "--timeout", str(seconds))
    gatehouse(*command, "--run", run)
