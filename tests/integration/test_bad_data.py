"""Bad data is refused with what is wrong, and nothing recorded is lost."""

from __future__ import annotations

import shutil

import pytest
import sqlalchemy as sa

from .conftest import FLIGHTS

pytestmark = pytest.mark.integration


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(FLIGHTS, folder, ignore=shutil.ignore_patterns("__*"))
    return folder


def wrapped(folder, select):
    """Replace the source query by one around it."""
    file = folder / "flights.sql"
    inner = file.read_text().rstrip().rstrip(";")
    file.write_text(f"with original as (\n{inner}\n)\n{select}\n")


@pytest.mark.parametrize(
    ("case", "select", "says"),
    [
        ("missing column", "select flight_id, scheduled, late, carrier from original", "origin"),
        ("wrong dtype", None, ""),
        ("one class", None, ""),
        ("duplicated keys", "select * from original union all select * from original", "flight_id"),
    ],
)
def test_data_that_fails_its_checks_stops_at_validate(stack, project, case, select, says):
    columns = query_columns(stack, project)
    if select is None:
        changed = {"wrong dtype": {"carrier": "length(carrier)"}, "one class": {"late": "0::smallint"}}[case]
        select = (
            "select " + ", ".join(f"{changed[c]} as {c}" if c in changed else c for c in columns) + " from original"
        )
        says = next(iter(changed))
    wrapped(project, select)
    run = "bad-" + case.replace(" ", "-")
    stack.open(run, project=project)
    done = stack.gatehouse("validate", "--run", run, expected=(3,))
    assert says in done.stderr
    assert stack.kinds(run)[-2:] == ["data.refused", "stage.failed"]


def test_forty_percent_nulls_and_non_finite_values_are_refused(stack, project):
    columns = query_columns(stack, project)
    number = next(name for name in columns if name.startswith("temp"))
    rest = ", ".join(name for name in columns if name != number)
    wrapped(
        project,
        f"select {rest}, case when mod(flight_id, 10) < 4 then null when mod(flight_id, 10) = 5 then 'Infinity' else {number} end as {number} from original",
    )
    stack.open("bad-nulls", project=project)
    done = stack.gatehouse("validate", "--run", "bad-nulls", expected=(3,))
    assert "null" in done.stderr
    assert number in done.stderr


def test_an_empty_window_names_the_window(stack, project):
    done = stack.open("bad-window", "--holdout", "2014-07", expected=(2,))
    assert "no rows in 2014-07" in done.stderr


def test_a_source_query_that_fails_is_explained(stack, project):
    (project / "flights.sql").write_text(
        "select no_such_column from flights where time_hour >= %(start)s and time_hour < %(end)s"
    )
    done = stack.open("bad-query", project=project, expected=(2,))
    assert "no_such_column" in done.stderr


def query_columns(stack, project):
    place = stack.place()
    engine = sa.create_engine(place.settings.sources["warehouse"], poolclass=sa.NullPool)
    query = (project / "flights.sql").read_text().rstrip().rstrip(";")
    with engine.connect() as connection:
        raw = connection.connection.cursor()
        raw.execute(f"select * from ({query}) q limit 0", {"start": "2013-01-01", "end": "2013-01-02"})
        return [column.name for column in raw.description]
