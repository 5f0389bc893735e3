"""A model card: everything a reader needs in the 5,000 characters that a version's description takes."""

from __future__ import annotations

from pipeline.domain.canonical import digest_json
from pipeline.reports.card import LONGEST, card, purpose_in
from tests.unit.test_evidence_page import HOSTILE, evidence

APPROVAL = {"actor": "grace", "at": "2026-11-23T20:15:00+00:00", "assurance": "jenkins", "reason": "better on JFK"}


def made(value="JFK", approvals=(), purpose="Will it be late?"):
    return card(evidence(slice_value=value), purpose=purpose, approvals=approvals, commit="abc")


def test_it_says_what_for_how_good_where_weak_and_by_whose_leave():
    known = evidence()
    text = made(approvals=[APPROVAL])
    auc = known["candidate"]["intervals"]["auc"]
    assert f"| auc | {auc['value']:.4f} | {auc['low']:.4f} to {auc['high']:.4f} |" in text
    assert "Will it be late?" in text and "2013-01..2013-06" in text and "2013-07" in text
    assert "| grace | 2026-11-23T20:15 | jenkins | better on JFK |" in text
    assert digest_json(known).removeprefix("sha256:") in text
    assert "None yet" in made() and "None yet" not in text


def test_nothing_in_the_data_becomes_markup_or_another_row():
    text = made(HOSTILE + "\n| evil | row |", approvals=[{**APPROVAL, "reason": HOSTILE}], purpose=HOSTILE)
    assert "<img" not in text.replace("\\<img", "")
    assert "| evil" not in text.replace("\\| evil", "")


def test_however_much_there_is_to_say_it_fits_a_description():
    assert len(made(approvals=[{**APPROVAL, "reason": "x" * 2000}] * 60, purpose="y" * 9000)) <= LONGEST


def test_the_purpose_is_the_first_thing_that_the_readme_says():
    assert purpose_in({"README.md": "# Flights\n\nWill it\nbe late?\n\nMore."}) == "Will it be late?"
    assert purpose_in({"project.toml": ""}) is None
