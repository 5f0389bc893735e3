"""DVC against the real stack: a run's bytes in the company's own remote, `dvc repro` through the gate, collection."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import shlex
import shutil
import threading
from datetime import timedelta

import pytest

from pipeline.adapters.dvc_remote import DvcRemote
from pipeline.bootstrap import dvc as tracked
from pipeline.bootstrap.installation import Installation
from pipeline.config import load_settings
from pipeline.domain.canonical import digest_file, digest_tree
from pipeline.domain.tracked import objects
from pipeline.errors import IntegrityViolated, Unreachable, UsageError
from pipeline.graph import STAGES
from tests.faces.carriers import Machine
from tests.faces.late import write_project


def commit(machine, folder, words):
    machine("git", "add", "-A", cwd=folder)
    who = ("-c", "user.name=ada", "-c", "user.email=ada@example.com")
    machine("git", *who, "commit", "-q", "-m", words, cwd=folder)


def with_remote(stack, name, **dvc):
    """The stack's settings, and a DVC remote."""
    options = "".join(f"{key} = {json.dumps(value)}\n" for key, value in dvc.pop("options", {}).items())
    text = stack.settings_file.read_text(encoding="utf-8")
    file = stack.home / f"{name}.toml"
    file.write_text(f'{text}\n[dvc]\nremote = "{dvc["remote"]}"\n[dvc.options]\n{options}', encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def remote(stack):
    folder = stack.home.parent / "remote"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def machine(stack, remote, tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("machine"), with_remote(stack, "folder", remote=str(remote)))


@pytest.fixture(scope="module")
def project(machine, tmp_path_factory):
    """A git repository that uses DVC already, with a project in it."""
    folder = tmp_path_factory.mktemp("repository")
    machine("git", "init", "-q", cwd=folder)
    machine.init_dvc(folder)
    write_project(folder)
    commit(machine, folder, "the project")
    return folder


@pytest.fixture(scope="module")
def reproduced(stack, machine, project):
    """What `dvc repro` said before the gate's approval, after it, and when nothing had changed; and the run."""
    machine("gatehouse", "export", "dvc", cwd=project)
    before = machine("dvc", "repro", cwd=project, expected=(255,))
    run = re.search(r"^run (late-[0-9a-f]{12})$", before, re.MULTILINE)[1]
    commit(machine, project, "as it waits at the gate")
    stack.approve(run)
    after = machine("dvc", "repro", cwd=project)
    again = machine("dvc", "repro", cwd=project)
    return run, before, after, again


@pytest.fixture(scope="module")
def run(reproduced):
    return reproduced[0]


@pytest.fixture(scope="module")
def place(machine):
    return Installation(load_settings(machine.settings))


@pytest.fixture
def facts(project, reproduced):
    """The outputs, put back afterwards."""
    kept = {path: path.read_bytes() for path in (*(project / "facts").iterdir(), project / "dvc.lock")}
    yield project / "facts"
    for path, data in kept.items():
        path.unlink(missing_ok=True)
        path.write_bytes(data)


def other_machine(tmp_path, machine, run):
    """A machine with nothing but the run's pointers and the commands that `pointers` named."""
    other = Machine(tmp_path / "other", machine.settings)
    folder = tmp_path / "elsewhere"
    said = machine("gatehouse", "dvc", "pointers", "--run", run, "--out", str(folder), cwd=tmp_path)
    other.init_dvc(folder, "--no-scm")
    for command in re.findall(r"(dvc remote .*)$", said, re.MULTILINE):
        other(*shlex.split(command), cwd=folder)
    return other, folder


def same_bytes(stack, folder, run):
    state = stack.place().state(run)
    parts = state.fact("ingest")["parts"]
    digests = {part: digest_file(folder / f"{part}.parquet") for part in parts}
    assert digests == {part: fact["file"] for part, fact in parts.items()}
    assert digest_tree(folder / "package") == state.fact("train")["package"]


def test_repro_stops_at_the_gate_and_goes_on_when_somebody_has_decided(stack, reproduced):
    run, before, after, again = reproduced
    assert "exited with 4" in before
    assert "may be given by: grace, hedy" in before
    assert "deploy-production" not in before
    assert "Running stage 'verify-production'" in after
    assert f"as the ledger has run {run}" in after
    assert all(f"Stage '{stage.name.replace(' ', '-')}' didn't change" in again for stage in STAGES)
    assert {stage.writes for stage in STAGES} <= set(stack.kinds(run))


def test_another_machine_pulls_the_same_bytes(stack, machine, run, tmp_path):
    other, folder = other_machine(tmp_path, machine, run)
    other("dvc", "pull", "-q", cwd=folder)
    same_bytes(stack, folder, run)


def test_dvc_shows_metrics_parameters_and_plots(machine, project, reproduced, tmp_path, stack):
    run = reproduced[0]
    shown = json.loads(machine("dvc", "metrics", "diff", "HEAD~1", "--json", cwd=project))
    auc = stack.place().state(run).fact("evaluate")["metrics"]["auc"]
    assert shown["facts/metrics.json"]["auc"]["new"] == auc
    text = (project / "project.toml").read_text(encoding="utf-8")
    (project / "project.toml").write_text(text.replace("epochs = 2", "epochs = 3"), encoding="utf-8")
    shown = json.loads(machine("dvc", "params", "diff", "--json", cwd=project))
    (project / "project.toml").write_text(text, encoding="utf-8")
    assert shown["project.toml"]["training.parameters.epochs"] == {"old": 2, "new": 3, "diff": 1}
    machine("dvc", "plots", "show", "-o", str(tmp_path), cwd=project)
    assert "false_positive_rate" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_push_again_changes_nothing(place, remote, run):
    head = place.ledger.head()
    there = sorted(path.name for path in remote.rglob("*"))
    assert tracked.push(place, run)["added"] == 0
    assert place.ledger.head() == head
    assert sorted(path.name for path in remote.rglob("*")) == there


# --- what is not as it should be --------------------------------------------------------------------------


def test_an_output_that_lies_stops_the_next_stage(machine, project, facts):
    lie = json.loads((facts / "train.json").read_text(encoding="utf-8"))
    lie["package"] = "sha256:" + 64 * "0"
    (facts / "train.json").unlink()
    (facts / "train.json").write_text(json.dumps(lie), encoding="utf-8")
    said = machine("gatehouse", "dvc", "stage", "evaluate", cwd=project, expected=(5,))
    assert "not what the ledger says" in said
    assert "train.json" in said


def test_a_lie_that_dvc_itself_believes_is_found_by_repro(machine, project, facts):
    (facts / "verify-production.json").unlink()
    (facts / "verify-production.json").write_text("{}", encoding="utf-8")
    machine("dvc", "commit", "-f", "-q", "verify-production", cwd=project)
    said = machine("dvc", "repro", cwd=project, expected=(255,))
    assert "Stage 'verify-production' didn't change" in said
    assert "exited with 5" in said


def test_dvc_yaml_edited_by_hand_is_shown_and_stops_every_stage(machine, project, reproduced):
    file = project / "dvc.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("gatehouse dvc stage gate-production", "true"), encoding="utf-8")
    try:
        for words in (("export", "dvc", "--check"), ("dvc", "stage", "promote-production")):
            said = machine("gatehouse", *words, cwd=project, expected=(5,))
            assert "-    cmd: true\n" in said
            assert "+    cmd: gatehouse dvc stage gate-production\n" in said
    finally:
        file.write_text(text, encoding="utf-8")


def test_a_repositorys_own_name_for_the_remote_is_used(machine, remote, run, tmp_path):
    machine("dvc", "init", "-q", "--no-scm", cwd=tmp_path)
    machine("dvc", "remote", "add", "ours", str(remote), cwd=tmp_path)
    config = (tmp_path / ".dvc" / "config").read_bytes()
    said = machine("gatehouse", "dvc", "pointers", "--run", run, "--out", "data", cwd=tmp_path)
    assert "remote: ours" in (tmp_path / "data" / "package.dvc").read_text(encoding="utf-8")
    assert "dvc remote" not in said
    assert (tmp_path / ".dvc" / "config").read_bytes() == config


def test_a_corrupt_object_is_refused_by_the_push_and_by_the_pull(place, machine, remote, run, tmp_path):
    other, folder = other_machine(tmp_path, machine, run)
    md5 = re.search(r"md5: (\w+)", (folder / "train.parquet.dvc").read_text(encoding="utf-8"))[1]
    file = remote / "files" / "md5" / md5[:2] / md5[2:]
    data = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"other rows")
    try:
        with pytest.raises(IntegrityViolated, match=md5):
            tracked.push(place, run)
        other("dvc", "pull", "-q", cwd=folder, expected=(1, 255))
        assert not (folder / "train.parquet").exists()
    finally:
        file.unlink(missing_ok=True)
        file.write_bytes(data)


def test_a_remote_that_is_not_there_full_or_no_folder(stack, machine, place, remote, run):
    away = remote.with_name("away")
    remote.rename(away)
    little = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))}
    try:
        with pytest.raises(Unreachable, match="is not there"):
            tracked.push(place, run)
        remote.write_text("a file", encoding="utf-8")
        with pytest.raises(UsageError, match="no folder"):
            tracked.push(place, run)
        remote.unlink()
        remote.mkdir()
        said = machine("gatehouse", "dvc", "push", "--run", run, cwd=stack.home, expected=(1,), **little)
        assert "remote full" in said
        assert "make room there" in said
    finally:
        shutil.rmtree(remote)
        away.rename(remote)


# --- collection -------------------------------------------------------------------------------------------


def test_collection_keeps_what_the_ledger_needs_and_what_is_anothers(
    machine, place, remote, project, run, tmp_path, monkeypatch
):
    for name in ("late.py", "project.toml"):
        shutil.copyfile(project / name, tmp_path / name)
    text = (tmp_path / "project.toml").read_text(encoding="utf-8")
    (tmp_path / "project.toml").write_text(text.replace('"2013-01..2013-06"', '"2013-02..2013-06"'), encoding="utf-8")
    machine("gatehouse", "export", "dvc", cwd=tmp_path)
    old = re.search(r"late-[0-9a-f]{12}", machine("gatehouse", "dvc", "stage", "ingest", cwd=tmp_path))[0]
    foreign = remote / "files" / "md5" / "ab" / ("c" * 30)
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("another's", encoding="utf-8")
    assert "is needed" in machine("gatehouse", "dvc", "gc", "--yes", cwd=tmp_path)  # it was opened a minute ago

    monkeypatch.setattr(tracked, "RECENT", timedelta(0))
    found = tracked.collect(place, yes=False)
    assert {row["run"] for row in found} == {old}
    place_of = {row["object"]: remote / "files" / "md5" / row["object"][:2] / row["object"][2:] for row in found}
    assert all(path.exists() for path in place_of.values())
    assert tracked.collect(place, yes=True) == found
    assert not any(path.exists() for path in place_of.values())
    assert tracked.collect(place, yes=True) == []
    assert foreign.exists()
    assert tracked.push(place, run)["added"] == 0

    with pytest.raises(UsageError) as refused:
        tracked.pointers(place, old, tmp_path)
    assert refused.value.fix == f"gatehouse dvc push --run {old}"
    assert tracked.push(place, old)["added"] == len(found)
    assert set(place_of) <= objects(tracked.push(place, old))


# --- other storage ----------------------------------------------------------------------------------------


def test_s3_compatible_storage(stack, machine, run, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    import boto3
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    settings = with_remote(stack, "s3", remote="s3://bucket/models", options={"endpointurl": url})
    s3 = Machine(tmp_path / "s3", settings)
    push = ("gatehouse", "dvc", "push", "--run", run)
    try:
        client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
        )
        client.create_bucket(Bucket="bucket")
        s3(*push, cwd=stack.home, env=keys)
        other, folder = other_machine(tmp_path, s3, run)
        other("dvc", "pull", "-q", cwd=folder, env=keys)
        same_bytes(stack, folder, run)
        name = client.list_objects_v2(Bucket="bucket")["Contents"][0]["Key"]
        client.put_object(Bucket="bucket", Key=name, Body=b"others")
        client.close()
        assert "other bytes" in s3(*push, cwd=stack.home, env=keys, expected=(5,))
    finally:
        server.stop()
    assert "does not answer" in s3(*push, cwd=stack.home, env=keys, expected=(6,))


@pytest.fixture
def ssh(tmp_path):
    """An SSH server with one user's key and SFTP: its port, its host key, the user's key file."""
    import asyncssh

    user, host = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    file = tmp_path / "id"
    user.write_private_key(str(file))
    file.chmod(0o600)
    authorized = asyncssh.import_authorized_keys(user.export_public_key().decode())
    loop, connections = asyncio.new_event_loop(), []

    class Server(asyncssh.SSHServer):
        def connection_made(self, connection):
            connections.append(connection)

    server = loop.run_until_complete(
        asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Server,
            server_host_keys=[host],
            authorized_client_keys=authorized,
            sftp_factory=asyncssh.SFTPServer,
        )
    )
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    port = server.sockets[0].getsockname()[1]
    yield port, host.export_public_key().decode(), file

    async def end():
        server.close()
        for connection in connections:
            connection.abort()
            await connection.wait_closed()
        await server.wait_closed()

    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_ssh_knows_whom_it_talks_to(ssh, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    port, host_key, file = ssh
    known, store, thing = tmp_path / ".ssh" / "known_hosts", tmp_path / "store", tmp_path / "thing"
    known.parent.mkdir()
    store.mkdir()
    thing.write_bytes(b"rows")
    remote = DvcRemote(f"ssh://ada@127.0.0.1:{port}{store}", {"keyfile": str(file)})
    with pytest.raises(UsageError, match="host key is not known"):
        remote.push([thing])
    assert not any(store.iterdir())
    known.write_text(f"[127.0.0.1]:{port} {host_key}", encoding="utf-8")
    (output,), added = remote.push([thing])
    assert added == [output.md5]
    place = store / "files" / "md5" / output.md5[:2] / output.md5[2:]
    assert place.read_bytes() == b"rows"
    place.write_bytes(b"others")
    with pytest.raises(IntegrityViolated):
        remote.push([thing])
    with pytest.raises(Unreachable):
        DvcRemote("ssh://ada@127.0.0.1:1/store", {"keyfile": str(file)}).push([thing])
