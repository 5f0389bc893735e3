"""What a model relies on: what it reads is found, what it does not read is not, whatever the order of columns."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.domain.importance import ROWS, importance


@pytest.fixture
def rows():
    random = np.random.default_rng(3)
    columns = {
        "strong": random.normal(size=2_000),
        "weak": random.normal(size=2_000),
        "name": random.choice(np.array(["AA", "B6", None], dtype=object), 2_000),
        "unread": random.normal(size=2_000),
        "late": random.integers(0, 2, 2_000),
    }
    y = (3 * columns["strong"] + columns["weak"] + random.logistic(size=2_000) > 0).astype(np.float64)
    return columns, y


def predict(columns):
    bonus = np.array([0.0 if name is None else 0.01 for name in columns["name"]])
    return 1 / (1 + np.exp(-(3 * columns["strong"] + columns["weak"] + bonus)))


def test_it_finds_what_the_model_reads_the_strongest_first(rows):
    columns, y = rows
    found = importance(y, columns, predict, leave=("late",), seed=7)
    assert [name for name, _ in found] == ["strong", "weak", "name"]
    lost = dict(found)
    assert lost["strong"] > 0.2 > lost["weak"] > 0.005 > abs(lost["name"])


def test_it_is_the_same_again_in_whatever_order_the_columns_come(rows):
    columns, y = rows
    backwards = dict(reversed(columns.items()))
    first, again = (importance(y, some, predict, leave=(), seed=7) for some in (columns, backwards))
    assert first == again
    assert first != importance(y, columns, predict, leave=(), seed=8)


def test_a_long_hold_out_is_looked_at_in_a_sample_and_rows_are_left_as_they_were(rows):
    columns, y = rows
    many = {name: np.tile(values, 4) for name, values in columns.items()}
    before, seen = {name: values.copy() for name, values in many.items()}, []

    def watched(some):
        seen.append(len(some["strong"]))
        return predict(some)

    importance(np.tile(y, 4), many, watched, leave=(), seed=7)
    assert set(seen) == {ROWS}
    assert all(np.array_equal(many[name], before[name]) for name in many)


def test_of_one_class_nothing_can_be_said(rows):
    assert importance(np.ones(2_000), rows[0], predict, leave=(), seed=7) == []
