"""A version's passport: says what an auditor must not miss, and nothing that belongs to another version."""

from __future__ import annotations

import json

import pytest

from pipeline.domain.events import GENESIS, Draft, link
from pipeline.domain.passport import passport, promotion_of
from pipeline.errors import UsageError
from pipeline.reports.passport import render, write

HOSTILE = '<img src=x onerror="alert(1)">'
EVIDENCE = {
    "windows": {"holdout": "2013-07"},
    "confidence": 0.95,
    "candidate": {"intervals": {"auc": {"value": 0.77, "low": 0.76, "high": 0.78}}},
    "champion": {"version": "41", "run": "run-41", "metrics": {"auc": 0.75}},
    "differences": {"auc": {"value": 0.02, "low": -0.01, "high": 0.03}},
}
OPENED = {
    "requester": "ada",
    "code": {"digest": "sha256:code", "commit": "c0ffee", "author": "lin@example.org", "dirty": True},
    "files": {"project.toml": "", "flights.py": ""},
    "changes": {"training.parameters.refit": False},
    "windows": {"train": "2013-01..2013-06", "holdout": "2013-07"},
}
TRAINED = {
    "weights": "sha256:weights",
    "parameters": {"epochs": 7},
    "training": {"framework": "torch", "seed": 5, "epochs": 7, "libraries": {"torch": "2.13.0"}},
}
LINE = {
    "run.opened": OPENED,
    "data.ingested": {"digest": "sha256:data", "parts": {"train": {"rows": 15100, "digest": "sha256:train"}}},
    "model.trained": TRAINED,
    "model.evaluated": {"metrics": {"auc": 0.77}},
}


class Story:
    """Events one after another, an hour apart."""

    def __init__(self):
        self.events, self.previous = [], GENESIS

    def add(self, kind, body, run=None, actor="jenkins", environment="production"):
        seq = len(self.events) + 1
        at = f"2026-11-{1 + seq // 24:02}T{seq % 24:02}:00:00.123456Z"
        row = link(Draft(kind, actor, body, run, "flights", environment), seq=seq, at=at, previous=self.previous)
        self.previous = row.hash
        self.events.append(row.event())
        return self

    def promote(self, version, *, judged=True, **more):
        run, package = f"run-{version}", f"sha256:{version}"
        for kind, body in LINE.items():
            self.add(kind, body, run, environment=None)
        self.judge(run, passed=judged)
        body = {"model": "prod.flights", "version": version, "package": package, "uri": "models:/m", "run": run}
        return self.add("model.promoted", {**body, "subject": f"sha256:subject-{version}", **more}, run)

    def judge(self, run, *, passed):
        rule = {"rule": "age", "value": 12345.6, "threshold": "<= 168 h", "passed": passed, "reason": "too old"}
        return self.add("policy.judged", {"passed": passed, "policy_digest": "sha256:policy", "rules": [rule]}, run)

    def decide(self, run, actor, **more):
        body = {"actor": actor, "approved": True, "reason": "good", "assurance": "jenkins", "on_behalf_of": None}
        times = {"at": "2026-11-01T00:00:00Z", "expires": "2026-11-09T10:00:00Z"}
        return self.add("approval.decided", {**body, **times, "proof": {}, **more}, run, actor)

    def roll_back(self, version, away, **more):
        body = {"model": "prod.flights", "version": version, "package": f"sha256:{version}", "uri": "models:/m"}
        body |= {"from": f"sha256:{away}", "reason": "wrong at night", **more}
        return self.add("model.rolled_back", {**body, "run": f"run-{version}"}, f"run-{version}", "otto")

    def alarm(self, what, package=None):
        return self.add("alarm.raised", {"what": what, "package": package})

    def passport(self, version, evidence=EVIDENCE):
        about = [event for event in self.events if event.environment == "production"]
        promotion = promotion_of(version, about)
        return passport(version, promotion, [e for e in self.events if e.run == promotion.run], about, evidence)


def section(found, title):
    (one,) = (section for section in found.sections if section.title.startswith(title))
    return one


def words(found, title):
    return "\n".join(" | ".join(row) for row in section(found, title).rows)


def test_it_says_who_asked_the_code_the_data_and_how_it_was_trained():
    found = Story().promote("1").passport("1")
    assert "ada" in words(found, "Where")
    assert "c0ffee, the work tree differed from the commit" in words(found, "Where")
    assert "training.parameters.refit = false" in words(found, "Where")
    assert "train | 2013-01..2013-06 | 15,100 | sha256:train" in words(found, "Data")
    assert "parameter epochs | 7" in words(found, "Training")
    assert "library torch | 2.13.0" in words(found, "Training")


def test_metrics_stand_beside_those_of_the_champion_they_were_compared_with():
    found = Story().promote("1").passport("1")
    assert "against version 41 of run run-41 (95% intervals)" in section(found, "Measured").title
    assert words(found, "Measured") == "auc | 0.77 | 0.7600 to 0.7800 | 0.75 | +0.0200 (-0.0100 to 0.0300)"


def test_the_first_version_had_no_champion_to_be_measured_against():
    found = Story().promote("1").passport("1", {**EVIDENCE, "champion": None, "differences": None})
    assert "against" not in section(found, "Measured").title
    assert words(found, "Measured") == "auc | 0.77 | 0.7600 to 0.7800 | – | –"
    assert "in place of | nothing: it was the first" in words(found, "What it is")


def test_evidence_that_cannot_be_had_is_loud_says_why_and_the_rest_still_stands():
    found = Story().promote("1").passport("1", "the bytes are not those that the ledger names")
    assert section(found, "Measured").loud
    assert "the bytes are not those that the ledger names" in section(found, "Measured").title
    assert "auc | 0.77" in words(found, "Measured")
    assert "library torch" in words(found, "Training")


def test_the_verdict_is_the_one_before_the_promotion_whatever_was_judged_later():
    found = Story().promote("1").judge("run-1", passed=False).passport("1")
    assert not section(found, "Policy").loud
    assert "age | 12,346 | <= 168 h | pass" in words(found, "Policy")
    refused = Story().promote("1", judged=False).passport("1")
    assert section(refused, "Policy").loud
    assert "REFUSE: too old" in words(refused, "Policy")


def test_each_decision_has_name_assurance_proof_expiry_and_reason():
    story = Story().decide("run-1", "grace", on_behalf_of="katherine", proof={"build": "https://ci/job/gate/7/"})
    found = words(story.promote("1").passport("1"), "Who decided")
    known = "jenkins, build https://ci/job/gate/7/"
    assert f"grace | approved for katherine | {known} | 2026-11-09 10:00:00Z | good" in found


def test_rejection_refusal_revocation_and_expiry_are_told_in_order():
    story = Story().decide("run-1", "grace").promote("1").decide("run-1", "alan", approved=False)
    story.add("approval.refused", {"what": "ada asked for this"}, "run-1")
    story.add("approval.revoked", {"actor": "grace", "reason": "sorry", "assurance": "jenkins"}, "run-1", "grace")
    for subject in ("sha256:subject-1", "sha256:subject-2"):
        story.add("approval.expired", {"subject": subject, "version": "1", "expired": "2026-11-09T10:00:00Z"})
    told = [row[2] for row in section(story.passport("1"), "Who decided").rows]
    assert told == ["approved", "REJECTED", "REFUSED: ada asked for this", "took it back", "the approval expired"]


def test_of_all_delegations_only_those_that_an_approval_rests_on_are_told():
    story = Story()
    for to in ("Grace", "mallory"):
        body = {"by": "katherine", "to": to, "starts": "2026-11-01T02:00:00+02:00", "ends": "2026-11-08T00:00:00Z"}
        story.add("approval.delegated", {**body, "reason": "on leave", "assurance": "jenkins"}, actor="katherine")
    story.decide("run-1", "grace", on_behalf_of="katherine").promote("1")
    found = words(story.passport("1"), "Who decided")
    first = found.splitlines()[0]
    assert "katherine | delegated to Grace from 2026-11-01 00:00:00Z | jenkins | 2026-11-08 00:00:00Z" in first
    assert "mallory" not in found


def test_broken_glass_comes_first_and_loud():
    glass = {"operators": ["otto", "olga"], "incident": "INC-7", "reason": "fire"}
    half = {"reason": "fire", "incident": "INC-7", "assurance": "oidc", "expires": "2026-11-01T04:00:00Z"}
    story = Story()
    for actor in glass["operators"]:
        story.add("glass.broken", {"actor": actor, **half}, "run-1", actor)
    found = story.promote("1", glass=glass).passport("1")
    assert found.sections[0].loud
    assert ("operators", "otto and olga") in found.sections[0].rows
    assert words(found, "Who decided").count("BROKE THE GLASS for INC-7") == 2


def test_a_version_that_was_rolled_back_says_so_and_so_does_the_one_that_came_back():
    story = Story().promote("1").promote("2", previous="sha256:1")
    story.roll_back("1", "2", local={"actor": "olga", "at": "2026-11-01T09:00:00Z"})
    bad, good = (words(story.passport(version), "In production") for version in "21")
    assert "olga | ROLLED BACK to version 1: wrong at night (on the server's machine" in bad
    assert "replaced by version 2 of run run-2" in good
    assert "wanted again: its successor was rolled back: wrong at night" in good


def test_signature_roll_out_and_verification_are_part_of_its_life():
    story = Story().add("package.signed", {"package": "sha256:1", "key": "sha256:key", "bundle": {}}, "run-1")
    story.add("package.signed", {"package": "sha256:0", "key": "sha256:another", "bundle": {}}, "run-0").promote("1")
    story.add("model.deployed", {"package": "sha256:1", "server": "http://prod", "seconds": 1.9172}, "run-1")
    story.add("model.verified", {"package": "sha256:1", "rows": 1000, "single_row_p95_ms": 2.2}, "run-1")
    found = words(story.passport("1"), "In production")
    assert "signed by sha256:key" in found
    assert "another" not in found
    assert "served by http://prod after 1.917 s" in found
    assert "verified: 1,000 rows, single row p95 2.2 ms" in found


def test_incidents_are_its_own_or_happened_while_it_was_wanted():
    story = Story().alarm("before").promote("1").alarm("in its time").promote("2").alarm("in another's time")
    story.alarm("its bytes were overwritten", "sha256:1").alarm("another's bytes", "sha256:2")
    drift = {"window": "2013-09", "package": "sha256:1", "drifted": True, "reasons": ["temp: PSI 0.4"]}
    story.add("drift.measured", drift, "run-1")
    story.add("stage.failed", {"stage": "deploy", "what": "no answer"}, "run-1", environment=None)
    found = words(story.passport("1"), "Incidents")
    for word in ("in its time", "its bytes were overwritten", "2013-09: drifted; temp: PSI 0.4", "deploy: no answer"):
        assert word in found
    for word in ("another", "before"):
        assert word not in found


def test_a_version_is_found_under_each_number_it_had():
    story = Story().promote("2")
    for was, now in (("2", "3"), ("3", "4")):
        story.add("projection.repaired", {"what": "version", "was": was, "now": now, "package": "sha256:2"})
    assert all(promotion_of(version, story.events).body["version"] == "2" for version in "234")
    assert "repaired: version 3 → 4" in words(story.passport("4"), "In production")
    with pytest.raises(UsageError, match="no promotion made version 5") as error:
        promotion_of("5", story.events)
    assert error.value.fix == "versions: 2"


def test_the_rows_that_prove_it_come_last_each_once_with_their_hashes():
    story = Story().promote("1").alarm("in its time")
    found = story.passport("1").sections[-1]
    assert [row[0] for row in found.rows] == [str(event.seq) for event in story.events]
    assert [row[4] for row in found.rows] == [event.hash for event in story.events]


def test_what_people_wrote_cannot_become_part_of_the_page():
    found = Story().decide("run-1", "grace", reason=HOSTILE).promote("1").passport("1")
    page = render(found)["passport.html"].decode()
    assert HOSTILE not in page
    assert "&lt;img" in page
    assert "<script" not in page


def test_page_and_json_are_the_same_bytes_every_time_and_say_how_to_check(tmp_path):
    story = Story().promote("1")
    found = story.passport("1")
    assert render(found) == render(story.passport("1"))
    assert json.loads(render(found)["passport.json"])["sections"][-1]["rows"][0][4] == story.events[0].hash
    page = write(found, tmp_path / "a" / "b").read_text(encoding="utf-8")
    assert f"--anchor {len(story.events)}:{story.events[-1].hash}" in page


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        write(Story().promote("1").passport("1"), tmp_path / "file")
