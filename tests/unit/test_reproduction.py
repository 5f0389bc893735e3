"""What is said of a model that was made anew."""

from __future__ import annotations

from pipeline.domain.reproduction import Reproduction, differences, packages, requirements

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
THEN = {
    "hardware": {"machine": "x86_64", "cores": 2},
    "python": "3.11.7",
    "packages": {"torch": "2.13.0+cpu", "numpy": "2.4.6", "pip": "23.2", "gatehouse": "0.1.0"},
    "gatehouse": A,
}


def test_an_environment_that_is_the_same_has_no_differences_and_its_tools_do_not_count():
    now = {**THEN, "packages": {**THEN["packages"], "pip": "26.0", "gatehouse": "0.2.0"}}
    assert differences(THEN, now) == ()


def test_each_difference_is_named_with_then_and_now():
    now = {
        "hardware": {"machine": "aarch64", "cores": 2},
        "python": "3.12.0",
        "packages": {"torch": "2.13.0+cpu", "scipy": "1.17"},
        "gatehouse": B,
    }
    found = differences(THEN, now)
    assert [(one.part, one.name, one.before, one.after) for one in found] == [
        ("code", "Gatehouse", A, B),
        ("library", "python", "3.11.7", "3.12.0"),
        ("library", "numpy", "2.4.6", None),
        ("library", "scipy", None, "1.17"),
        ("hardware", "machine", "x86_64", "aarch64"),
    ]
    said = Reproduction((A, B), (A, B), found).explanation
    assert "hardware machine: x86_64 then, aarch64 now" in said


def test_what_cannot_be_explained_is_not_explained_away():
    assert "not deterministic" in Reproduction((A, B), (A, B), ()).explanation
    assert "did not record" in Reproduction((A, B), (A, B), None).explanation
    assert differences(None, THEN) is None


def test_the_lock_asks_an_index_for_what_an_index_knows():
    assert requirements(THEN) == ("numpy==2.4.6", "torch==2.13.0")
    assert "gatehouse" not in packages(THEN)
