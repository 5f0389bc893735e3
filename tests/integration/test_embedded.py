"""The embedded stack: real passwords, only this machine, and a start after whatever ended it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import psutil
import psycopg2
import pytest
import sqlalchemy as sa

from pipeline.embedded import postgres, processes, warehouse
from pipeline.embedded import stack as embedded_stack
from pipeline.errors import Unreachable, UsageError

pytestmark = pytest.mark.integration

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="how root runs Postgres; this is an ordinary user")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    place = tmp_path_factory.mktemp("a home with spaces") / ".gatehouse"
    cluster = postgres.start(place)
    for role in ("gatehouse", "warehouse"):
        cluster.ensure_role(role)
        cluster.ensure_database(role, role)
    yield place
    postgres.stop(place)


@pytest.fixture
def cluster(home):
    return postgres.start(home)


def postmaster(home):
    return postgres._postmaster(home / "postgres")


def connect(cluster, database="gatehouse", role="gatehouse", **more):
    place = {"host": processes.HOST, "port": cluster.port, "dbname": database, "user": role}
    return closing(psycopg2.connect(**{**place, "passfile": str(cluster.passfile), **more}))


def answer(cluster, statement):
    with connect(cluster) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None


def kill(home):
    process = postmaster(home)
    process.send_signal(signal.SIGKILL)
    assert processes.wait_ended([process], 10)


# --- who gets in ------------------------------------------------------------------------------------------


def test_the_address_opens_the_database_and_holds_no_secret(cluster):
    address = cluster.uri("gatehouse", "gatehouse")
    with sa.create_engine(address).connect() as connection:
        assert connection.execute(sa.text("select current_user")).scalar_one() == "gatehouse"
    secrets = [line.split(":")[4] for line in cluster.passfile.read_text().splitlines()]
    assert len(set(secrets)) >= 3
    assert not any(secret in address for secret in secrets)


@pytest.mark.parametrize("more", [{"password": "wrong"}, {"passfile": "/dev/null"}])
def test_a_wrong_password_or_none_is_refused(cluster, more):
    with pytest.raises(psycopg2.OperationalError, match=r"password authentication failed|no password supplied"):
        connect(cluster, **more).__enter__()


def test_a_role_does_not_enter_a_database_of_another(cluster):
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        connect(cluster, database="warehouse").__enter__()


def test_it_listens_on_this_machine_only_and_on_no_socket_file(home, cluster):
    listening = [c.laddr for c in postmaster(home).net_connections("all") if c.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", cluster.port)]
    assert not [c for c in postmaster(home).net_connections("unix") if c.laddr]


def test_passwords_are_readable_by_their_owner_only(home):
    assert stat.S_IMODE((home / "pgpass").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "postgres").stat().st_mode) == 0o700
    assert not (home / "initial-password").exists()


def test_what_is_committed_is_on_disk(cluster):
    assert answer(cluster, "select current_setting('fsync'), current_setting('synchronous_commit')") == [("on", "on")]


# --- starting again ---------------------------------------------------------------------------------------


def test_starting_twice_is_the_same_as_once(home, cluster):
    first = postmaster(home)
    assert postgres.start(home) == cluster
    assert postmaster(home) == first


def test_it_comes_back_on_the_same_port_with_what_was_committed_after_kill_9(home, cluster):
    answer(cluster, "create table if not exists kept (what text)")
    answer(cluster, "insert into kept values ('committed')")
    kill(home)
    assert postgres.start(home) == cluster
    assert answer(cluster, "select what from kept") == [("committed",)]


def test_it_comes_back_when_the_number_of_the_killed_server_is_another_programs(home, cluster):
    kill(home)
    file = home / "postgres" / "postmaster.pid"
    file.write_text("\n".join([str(os.getpid()), *file.read_text().splitlines()[1:]]) + "\n")
    assert postgres.start(home) == cluster
    assert answer(cluster, "select 1") == [(1,)]


def test_the_server_of_another_folder_is_never_taken_for_ours(home, cluster, tmp_path):
    other = tmp_path / ".gatehouse"
    (other / "postgres").mkdir(parents=True)
    (other / "postgres" / "postmaster.pid").write_text((home / "postgres" / "postmaster.pid").read_text())
    postgres.stop(other)
    assert answer(cluster, "select 1") == [(1,)]


def test_it_moves_to_another_port_when_somebody_took_its_own(home, cluster):
    postgres.stop(home)
    with socket.create_server((processes.HOST, cluster.port)):
        moved = postgres.start(home)
        assert moved.port != cluster.port
        assert answer(moved, "select 1") == [(1,)]


def test_a_first_start_that_was_killed_half_way_is_begun_again(tmp_path):
    place = tmp_path / ".gatehouse"
    (place / "postgres.part" / "base").mkdir(parents=True)
    (place / "postgres.part" / "PG_VERSION").write_text("18\n")
    try:
        assert postgres.start(place).port > 0
    finally:
        postgres.stop(place)
        postgres.stop(place)
    assert postmaster(place) is None


def test_a_lost_password_file_is_named(home, cluster):
    hidden = cluster.passfile.rename(home / "elsewhere")
    try:
        with pytest.raises(Unreachable) as caught:
            cluster.ensure_role("somebody")
    finally:
        hidden.rename(cluster.passfile)
    assert caught.value.where == str(cluster.passfile)


# --- as root, as an ordinary user -------------------------------------------------------------------------


def forbid(programs, tmp_path, monkeypatch):
    for program in programs:
        fake = tmp_path / "bin" / program
        fake.parent.mkdir(exist_ok=True)
        fake.write_text("#!/bin/sh\nexit 1\n")
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@as_root
def test_root_without_namespaces_runs_it_as_nobody_below_a_folder_that_only_root_may_enter(tmp_path, monkeypatch):
    forbid(["unshare"], tmp_path, monkeypatch)
    place = tmp_path / "closed" / ".gatehouse"
    place.mkdir(parents=True)
    place.parent.chmod(0o700)
    try:
        for _ in range(2):
            cluster = postgres.start(place)
            assert postmaster(place).uids().real == 65534
            cluster.ensure_role("gatehouse")
            kill(place)
        monkeypatch.undo()  # data of nobody's stays nobody's, where namespaces are allowed too
        postgres.start(place).ensure_role("gatehouse_reader")
    finally:
        postgres.stop(place)


@as_root
def test_root_that_may_neither_is_told_to_be_an_ordinary_user(tmp_path, monkeypatch):
    forbid(["unshare", "setpriv"], tmp_path, monkeypatch)
    with pytest.raises(UsageError) as caught:
        postgres.start(tmp_path / ".gatehouse")
    assert "ordinary user" in caught.value.fix


@as_root
def test_an_ordinary_user_needs_none_of_this(tmp_path):
    place = tmp_path / "home of another" / ".gatehouse"
    place.mkdir(parents=True)
    os.chown(place, 65534, 65534)
    code = (
        "import sys; from pathlib import Path; from pipeline.embedded import postgres; home = Path(sys.argv[1]); "
        "postgres.start(home).ensure_role('gatehouse'); print(postgres._postmaster(home / 'postgres').uids().real); "
        "postgres.stop(home)"
    )
    # May read where root keeps this Python, and nothing more.
    right = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    who = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *right)
    repository = Path(__file__).parents[2]
    done = subprocess.run(
        [*who, sys.executable, "-B", "-c", code, str(place)], cwd=repository, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "65534\n"), done.stderr


# --- the flights ------------------------------------------------------------------------------------------


class Silent:
    """A reporter that says nothing."""

    def note(self, text):
        pass

    def track(self, what, total=None):
        from contextlib import nullcontext

        return nullcontext(self)

    def advance(self, amount=1.0):
        pass

    def say(self, text):
        pass


def test_months_are_loaded_once_and_the_same_sample_every_time(home, cluster):
    uri = cluster.uri("warehouse", "warehouse")
    first = warehouse.load(uri, "2013-01", "2013-02", Silent(), sample=0.1)
    assert 4_000 < first < 7_000
    assert warehouse.load(uri, "2013-01", "2013-02", Silent(), sample=0.1) == 0
    assert warehouse.load(uri, "2013-02", "2013-03", Silent(), sample=0.1) > 0
    with sa.create_engine(uri).connect() as connection:
        by_month = connection.execute(sa.text("select month, count(*) from flights group by 1 order by 1")).all()
        weather = connection.execute(sa.text("select count(*), count(distinct (origin, time_hour)) from weather")).one()
        types = connection.execute(sa.text("select pg_typeof(time_hour)::text, pg_typeof(dep_time)::text from flights"))
        assert types.first() == ("timestamp with time zone", "integer")
    assert [month for month, _ in by_month] == [1, 2, 3]
    assert sum(count for month, count in by_month if month < 3) == first
    assert weather[0] > 6_000


@pytest.mark.parametrize(("first", "last"), [("2014-01", "2014-02"), ("2013-01", "2013-13"), ("January", "2013-02")])
def test_months_that_nobody_has_flights_of_are_refused(cluster, first, last):
    with pytest.raises(UsageError, match="flights are of 2013"):
        warehouse.load(cluster.uri("warehouse", "warehouse"), first, last, Silent())


def test_a_warehouse_that_does_not_answer_is_named(cluster):
    nobody = f"postgresql+psycopg2://warehouse@{processes.HOST}:9/warehouse"
    with pytest.raises(Unreachable) as caught:
        warehouse.load(nobody, "2013-01", "2013-01", Silent())
    assert caught.value.where == "sources.warehouse"


# --- all together -----------------------------------------------------------------------------------------


def test_the_settings_name_every_service_and_only_their_owner_reads_them(stack):
    file = stack.home / "settings.toml"
    settings = tomllib.loads(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    named = {"embedded", "home", "ledger", "mlflow", "sources", "environments", "approval", "signing"}
    assert set(settings) == named
    assert set(settings["environments"]) == {"staging", "production"}
    roles = {key: sa.make_url(uri).username for key, uri in settings["ledger"].items()}
    assert roles == {
        "uri": "gatehouse",
        "approval_uri": "gatehouse_approval",
        "promotion_uri": "gatehouse_promotion",
        "owner_uri": "gatehouse_owner",
        "reader_uri": "gatehouse_reader",
    }


def test_mlflow_comes_back_at_the_same_address_after_kill_9(stack):
    url = tomllib.loads((stack.home / "settings.toml").read_text())["mlflow"]["uri"]
    leader = processes.find("mlflow", stack.home)
    leader.send_signal(signal.SIGKILL)
    assert processes.wait_ended([leader], 10)
    embedded_stack.up(stack.home, Silent())
    assert tomllib.loads((stack.home / "settings.toml").read_text())["mlflow"]["uri"] == url
    with urlopen(f"{url}/health", timeout=10) as reply:
        assert reply.read() == b"OK"
