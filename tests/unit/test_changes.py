"""What changed: exactly what differs, counted right, in words."""

from __future__ import annotations

import difflib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load_project, project_from_files
from pipeline.domain import changes

FLIGHTS = Path(__file__).parents[2] / "pipeline" / "examples" / "flights"
lines = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=8)
files = st.dictionaries(st.sampled_from(["x.py", "y.sql", "z.toml"]), lines.map("\n".join), max_size=3)


@given(files, files)
def test_a_file_is_listed_when_it_differs_and_its_lines_are_counted_as_difflib_counts_them(before, after):
    found = {change.name: change.after for change in changes.of_code(before, after)}
    assert set(found) == {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    for name in found.keys() & before.keys() & after.keys():
        ops = list(difflib.ndiff(before[name].splitlines(), after[name].splitlines()))
        added, removed = (int(word[1:]) for word in found[name].split())
        assert added - removed == sum(op[0] == "+" for op in ops) - sum(op[0] == "-" for op in ops)
    assert changes.of_code(after, after) == ()
    assert bool(changes.diff(before, after)) <= bool(found)


def test_a_long_diff_is_cut_and_says_how_much_is_missing():
    found = changes.diff({"x": ""}, {"x": "\n".join(str(n) for n in range(500))})
    assert len(found) == changes.DIFF_LINES + 1
    assert "lines more" in found[-1]


@given(st.dictionaries(st.text(), st.integers()), st.dictionaries(st.text(), st.integers()))
def test_entries_that_are_the_same_are_no_change(before, after):
    found = changes.between("parameter", before, after)
    assert {c.name for c in found} == {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}


def test_a_policy_change_names_the_rule_and_its_bounds():
    old = load_project(FLIGHTS)
    text = old.files["project.toml"]
    text = text.replace('{ metric = "auc", min = 0.68 }', '{ metric = "auc", min = 0.5 }')
    text = text.replace('approvers = ["grace", "hedy", "katherine"]', 'approvers = ["mallory"]')
    new = project_from_files({**old.files, "project.toml": text})
    found = {
        change.name: (change.before, change.after) for change in changes.of_policy(old.settings.gate, new.settings.gate)
    }
    assert found == {
        "approvers": ("grace, hedy, katherine", "mallory"),
        "metric auc": ("min 0.68", "min 0.5"),
    }
