"""A bundle carries an approved version to another installation, which believes nothing that it cannot verify."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pipeline.domain.canonical import canonical, digest_tree, file_digests
from pipeline.errors import IntegrityViolated, UsageError
from tests.integration.conftest import FLIGHTS, started

pytestmark = pytest.mark.integration

GATE = """
risk_tier = "low"
approvers = ["olga"]

[policy]
metric = [{metric = "auc", min = 0.5}]
"""


@pytest.fixture(scope="module")
def bundle(stack, live, tmp_path_factory):
    file = tmp_path_factory.mktemp("usb stick") / "flights.gatehouse"
    stack.gatehouse("bundle", "export", "--version", live["body"]["version"], "--out", str(file))
    return file


@pytest.fixture(scope="module")
def other(tmp_path_factory, stack):
    """Another installation, with a ledger, an MLflow and keys of its own, that trusts the first one's bundles."""
    with started(tmp_path_factory.mktemp("other")) as other:
        settings = other.home / "settings.toml"
        trusted = stack.home / "keys" / "trusted" / "approval.pub.pem"
        text = settings.read_text()
        settings.write_text(text.replace("[signing]", f"[signing]\nsources = [{json.dumps(str(trusted))}]"))
        (other.home / "gate.toml").write_text(GATE)
        yield other


@pytest.fixture
def take(other):
    from pipeline.bootstrap.bundle_import import import_

    return lambda file, *anchors: import_(other.place(), file, other.home / "gate.toml", anchors)


@pytest.fixture
def unpacked(bundle, tmp_path):
    with tarfile.open(bundle) as archive:
        archive.extractall(tmp_path / "bundle", filter="data")
    return tmp_path / "bundle"


@pytest.fixture
def resigned(stack, unpacked, tmp_path):
    """What a source that lies would send: changed, listed anew and signed with its own, trusted key."""
    from pipeline.adapters import archive, signing

    def make(change):
        contents = unpacked / "contents"
        manifest = json.loads((contents / "manifest.json").read_bytes())
        change(contents, manifest)
        (contents / "manifest.json").unlink()
        if manifest["files"] is not None:
            manifest["files"] = dict(file_digests(contents))
        (contents / "manifest.json").write_bytes(canonical(manifest))
        (tmp_path / "work").mkdir()
        signer = signing.Signer(str(stack.home / "keys" / "approval.pem"))
        (unpacked / "signature.json").write_bytes(canonical(signing.sign(contents, signer, tmp_path / "work")))
        archive.pack(unpacked, tmp_path / "lie")
        return tmp_path / "lie"

    return make


def nothing_was_taken_in(other, live):
    place = other.place()
    return place.reader.head() is None or not place.reader.events(run=live["run"])


def test_an_export_holds_everything_and_anybody_can_verify_its_ledger(stack, bundle, unpacked, live, tmp_path):
    contents = unpacked / "contents"
    manifest = json.loads((contents / "manifest.json").read_bytes())
    assert digest_tree(contents / "package") == manifest["subject"]["package"] == live["body"]["package"]
    assert manifest["approved_by"] == ["grace"]
    (left,) = (row for row in stack.json("ledger", "show", "--run", live["run"]) if row["kind"] == "bundle.exported")
    assert left["body"]["bundle"] == digest_tree(contents)
    names = {path.relative_to(contents).as_posix() for path in contents.rglob("*") if path.is_file()}
    assert {"model/MLmodel", "model/requirements.txt", "evidence/evidence.html", "evidence/evidence.json"} <= names
    assert {"passport/passport.html", "data/train.parquet", "data/holdout.parquet", "data/reference.json"} <= names
    source = manifest["source"]
    after = ["--after", source["after"]] if source["after"] else []
    done = subprocess.run(
        [sys.executable, "-I", str(contents / "verify_ledger.py"), str(contents / "ledger.jsonl"), *after],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and source["head"] in done.stdout, done.stderr
    from pipeline.adapters import archive

    archive.pack(unpacked, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == bundle.read_bytes(), "the same content is the same file"


def test_what_nobody_approved_does_not_leave(stack, staged, tmp_path):
    promoted = next(e for e in stack.json("ledger", "show", "--run", staged) if e["kind"] == "model.promoted")
    version, out = promoted["body"]["version"], tmp_path / "out"
    done = stack.gatehouse(
        "bundle", "export", "--env", "staging", "--version", version, "--out", str(out), expected=(4,)
    )
    assert "nobody has let this run through" in done.stderr
    assert not out.exists()


def test_a_bundle_that_is_cut_off_compressed_or_reaches_outside_is_refused(bundle, other, live, take, tmp_path):
    data = bundle.read_bytes()
    bad = {"empty": b"", "cut": data[: len(data) // 2], "head": data[:700], "gzip": gzip.compress(data)}
    for name, change in {
        "climbing": {"name": "contents/../../escaped"},
        "absolute": {"name": str(tmp_path / "escaped")},
        "symlink": {"name": "contents/link", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        "hardlink": {"name": "contents/link", "type": tarfile.LNKTYPE, "linkname": "signature.json"},
        "device": {"name": "contents/null", "type": tarfile.CHRTYPE},
        "twice": {"name": "signature.json"},
        "surplus": {"name": "contents/package/more"},
        "beside": {"name": "more"},
    }.items():
        out = io.BytesIO()
        with tarfile.open(bundle) as old, tarfile.open(fileobj=out, mode="w") as new:
            for entry in old:
                new.addfile(entry, old.extractfile(entry))
            more = tarfile.TarInfo()
            for key, value in change.items():
                setattr(more, key, value)
            new.addfile(more)
        bad[name] = out.getvalue()
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(IntegrityViolated):
            take(tmp_path / name)
    assert not (tmp_path / "escaped").exists()
    assert nothing_was_taken_in(other, live)


def test_one_changed_byte_no_signature_or_an_unknown_key_is_refused(bundle, other, live, take, unpacked, tmp_path):
    from pipeline.adapters import archive, signing

    model = unpacked / "contents" / "package" / "model.onnx"
    good = model.read_bytes()
    model.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    archive.pack(unpacked, tmp_path / "changed")
    with pytest.raises(IntegrityViolated, match="signature does not hold"):
        take(tmp_path / "changed")

    model.write_bytes(good)
    signer = signing.Signer(str(other.home / "keys" / "approval.pem"))  # trusted there with packages, not with bundles
    (tmp_path / "work").mkdir()
    signature = signing.sign(unpacked / "contents", signer, tmp_path / "work")
    (unpacked / "signature.json").write_bytes(canonical(signature))
    archive.pack(unpacked, tmp_path / "stranger")
    with pytest.raises(IntegrityViolated, match="signature does not hold"):
        take(tmp_path / "stranger")

    (unpacked / "signature.json").unlink()
    archive.pack(unpacked, tmp_path / "unsigned")
    with pytest.raises(IntegrityViolated, match="not signed"):
        take(tmp_path / "unsigned")
    assert nothing_was_taken_in(other, live)


def _another_package(contents, manifest):
    (contents / "package" / "gatehouse.json").write_bytes(b"{}")


def _another_subject(contents, manifest):
    manifest["subject"]["package"] = "sha256:" + "0" * 64


def _fewer_approvers(contents, manifest):
    manifest["requirement"]["count"] = 0


def _row_removed(contents, manifest):
    lines = (contents / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (contents / "ledger.jsonl").write_bytes(b"".join(lines[:2] + lines[3:]))


def _end_cut_off(contents, manifest):
    lines = (contents / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (contents / "ledger.jsonl").write_bytes(b"".join(lines[:-1]))


def _another_holdout(contents, manifest):
    shutil.copyfile(contents / "data" / "train.parquet", contents / "data" / "holdout.parquet")


def _not_listed(contents, manifest):
    manifest["files"] = None


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (_another_package, "not what was recorded: package"),
        (_another_subject, "the version named is of another package"),
        (_fewer_approvers, "how many must approve"),
        (_row_removed, "row .* is missing"),
        (_end_cut_off, "the last rows were deleted"),
        (_another_holdout, "not what was recorded: holdout"),
        (_not_listed, "files"),
    ],
)
def test_a_trusted_source_that_lies_is_found_out(other, live, take, resigned, lie, words):
    with pytest.raises(IntegrityViolated, match=words):
        take(resigned(lie))
    assert nothing_was_taken_in(other, live)


def test_an_anchor_that_came_another_way_must_be_in_it(other, live, take, bundle, unpacked):
    head = json.loads((unpacked / "contents" / "manifest.json").read_bytes())["source"]["head"]
    seq = head.partition(":")[0]
    with pytest.raises(IntegrityViolated, match="anchored"):
        take(bundle, f"{seq}:sha256:{'0' * 64}")
    with pytest.raises(UsageError, match="is no anchor"):
        take(bundle, "57:3f2a")
    assert nothing_was_taken_in(other, live)


def test_it_does_not_come_back_to_where_it_was_made(stack, bundle, live, other):
    settings = stack.home / "settings.toml"
    trusted = stack.home / "keys" / "trusted" / "approval.pub.pem"
    loop = stack.home / "loop.toml"
    loop.write_text(settings.read_text().replace("[signing]", f"[signing]\nsources = [{json.dumps(str(trusted))}]"))
    gate = str(other.home / "gate.toml")
    done = stack.gatehouse("bundle", "import", str(bundle), "--gate", gate, settings=loop, expected=(2,))
    assert "here already" in done.stderr


def test_taken_in_it_is_measured_here_and_goes_through_this_sides_gate(other, bundle, live, unpacked):
    gate, run = str(other.home / "gate.toml"), live["run"]
    manifest = json.loads((unpacked / "contents" / "manifest.json").read_bytes())
    head = manifest["source"]["head"]
    other.gatehouse("bundle", "import", str(bundle), "--gate", gate, "--anchor", head)
    rows = {row["kind"]: row for row in other.json("ledger", "show", "--run", run)}
    came = rows["bundle.imported"]["body"]
    assert came["source"] == manifest["source"] and came["approved_by"] == ["grace"]
    assert rows["model.trained"]["body"]["package"] == rows["model.registered"]["body"]["package"]
    assert rows["model.evaluated"]["body"]["champion"] is None, "nothing serves here, whatever served at the source"

    done = other.gatehouse("bundle", "import", str(bundle), "--gate", gate)
    assert "taken in already" in done.stdout + done.stderr
    assert other.kinds(run).count("bundle.imported") == 1

    again = other.gatehouse("ingest", "--run", run, "--project", str(FLIGHTS))
    assert "done already" in again.stdout + again.stderr, "a Jenkins job that goes on with the run starts here"
    other.gatehouse("run", "--run", run, "--until", "verify staging")
    other.gatehouse("gate", "check", "--run", run, expected=(4,))
    assert "not among the approvers" in other.approve(run, "grace", expected=(4,)).stderr, "the source's approver"
    other.approve(run, "olga")
    other.gatehouse("promote", "--env", "production", "--run", run)
    placed = next(
        e
        for e in other.json("ledger", "show", "--run", run)
        if e["environment"] == "production" and e["kind"] == "model.promoted"
    )
    assert placed["body"]["package"] == live["body"]["package"], "the same bytes as at the source"
    passport = other.json("passport", "--version", placed["body"]["version"])
    assert any("approved at its source by" in row for section in passport["sections"] for row in section["rows"])


def test_the_next_bundle_of_a_source_must_agree_with_the_one_before(other, live, take, resigned):
    """Runs after the import: the receiving ledger has the source's head and holds the source to it."""

    def rewritten(contents, manifest):
        from pipeline.domain.events import Row, expected_hash

        lines, previous = [], None
        for line in (contents / "ledger.jsonl").read_bytes().splitlines():
            row = json.loads(line)
            text = canonical(row.pop("body")).decode()
            row.pop("hash")
            row["previous"] = previous or row["previous"]
            row["at"] = row["at"].replace("2026", "2027") if row["kind"] == "model.verified" else row["at"]
            made = Row(**row, text=text, hash="")
            previous = expected_hash(made)
            body = json.loads(text)
            lines.append(canonical({**row, "body": body})[:-1] + b',"hash":"%s"}\n' % previous.encode())
        (contents / "ledger.jsonl").write_bytes(b"".join(lines))
        manifest["source"]["head"] = f"{manifest['source']['head'].partition(':')[0]}:{previous}"

    with pytest.raises(IntegrityViolated, match="anchored"):
        take(resigned(rewritten))


def test_this_side_must_say_who_decides(other, bundle, tmp_path):
    from pipeline.bootstrap.bundle_import import import_

    (tmp_path / "gate.toml").write_text('risk_tier = "low"\n')
    with pytest.raises(UsageError, match="policy, approvers"):
        import_(other.place(), Path(bundle), tmp_path / "gate.toml")
