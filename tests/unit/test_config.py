"""A wrong project is answered with file, key, what was expected and the nearest valid name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.bootstrap.scaffold import scaffold
from pipeline.config import PROJECT_FILE, load_project, load_settings, project_from_files
from pipeline.errors import UsageError

FLIGHTS = Path(__file__).parents[2] / "pipeline" / "examples" / "flights"


def broken(tmp_path, change):
    folder = tmp_path / "project"
    folder.mkdir()
    for path in FLIGHTS.iterdir():
        if path.is_file() and not path.name.startswith("__"):
            (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    file = folder / PROJECT_FILE
    text = file.read_text(encoding="utf-8")
    changed = change(text)
    assert changed != text, "the test must change something"
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        load_project(folder)
    return refused.value


def test_the_flights_example_is_a_valid_project():
    project = load_project(FLIGHTS)
    assert project.settings.name == "flights"
    assert set(project.files) >= {"project.toml", "flights.py", "flights.sql"}


def test_an_unknown_key_names_the_file_the_key_and_the_nearest_one(tmp_path):
    error = broken(tmp_path, lambda text: text.replace("holdout =", "hold_out ="))
    assert "project.toml: window.hold_out" in error.where
    assert "did you mean 'holdout'?" in error.fix


def test_an_unknown_key_inside_a_rule_is_found_too(tmp_path):
    error = broken(tmp_path, lambda text: text.replace("min_rows = 1000", "minrows = 1000"))
    assert "policy.slice" in error.where
    assert "did you mean 'min_rows'?" in error.fix


def test_a_wrong_type_says_what_was_expected_and_what_was_given(tmp_path):
    error = broken(tmp_path, lambda text: text.replace("seed = 20130101", 'seed = "soon"'))
    assert "integer" in error.what
    assert "'soon'" in error.what
    assert "training.seed" in error.where


def test_a_missing_module_names_the_nearest_one(tmp_path):
    error = broken(tmp_path, lambda text: text.replace('module = "flights"', 'module = "flight"'))
    assert "flight.py" in error.what
    assert "did you mean 'flights.py'?" in error.fix


def test_a_missing_query_file_is_named(tmp_path):
    error = broken(tmp_path, lambda text: text.replace('"flights.sql"', '"fligths.sql"'))
    assert "did you mean 'flights.sql'?" in error.fix


def test_a_hold_out_that_was_trained_on_is_refused(tmp_path):
    error = broken(tmp_path, lambda text: text.replace('holdout = "2013-07"', 'holdout = "2013-06"'))
    assert "overlaps" in error.what


def test_a_rule_on_an_unknown_metric_lists_the_known_ones(tmp_path):
    error = broken(tmp_path, lambda text: text.replace('metric = "auc", by', 'metric = "acc", by'))
    assert "'auc'" in error.what


def test_broken_toml_names_the_file_and_the_line(tmp_path):
    error = broken(tmp_path, lambda text: text + "\n[window\n")
    assert "line" in error.what
    assert PROJECT_FILE in error.where


def test_a_function_that_is_not_in_the_module_is_answered_with_the_nearest_one():
    with pytest.raises(UsageError) as refused:
        load_project(FLIGHTS).function("feature")
    assert "did you mean 'features'?" in refused.value.fix


def test_a_module_that_fails_names_its_own_line():
    project = load_project(FLIGHTS)
    project.files["flights.py"] = "x = 1\ny = x / 0\n"
    with pytest.raises(UsageError) as refused:
        project.function("features")
    assert refused.value.where == "flights.py line 2"


def test_no_installation_says_how_to_get_one(tmp_path):
    with pytest.raises(UsageError) as refused:
        load_settings(tmp_path / "settings.toml")
    assert "gatehouse up" in refused.value.fix


def test_init_makes_a_project_that_loads_under_its_own_name(tmp_path):
    scaffold(tmp_path, "late-trains")
    project = load_project(tmp_path / "late-trains")
    assert project.settings.name == "late-trains"
    assert "late_trains.py" in project.files


@pytest.mark.parametrize("name", ["Bad Name", "../up", "9lives", ""])
def test_init_refuses_what_is_no_project_name(tmp_path, name):
    with pytest.raises(UsageError):
        scaffold(tmp_path, name)


def test_init_never_touches_a_folder_that_is_there(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError):
        scaffold(tmp_path, "mine")
    assert not list((tmp_path / "mine").iterdir())


def with_policy_in_a_file(name):
    """The example's project, its policy moved into a file of its own."""
    text = (FLIGHTS / PROJECT_FILE).read_text(encoding="utf-8")
    before, policy = text.split("[policy]")
    policy, after = policy.split("[monitor]")
    files = dict(load_project(FLIGHTS).files)
    head, tables = before.split("[source]")
    files[PROJECT_FILE] = f'{head}policy = "{name}"\n\n[source]{tables}[monitor]{after}'
    return {**files, "policy.toml": policy}


def test_a_policy_in_a_file_of_its_own_is_the_same_policy():
    moved = project_from_files(with_policy_in_a_file("policy.toml"))
    assert moved.settings.policy_digest == load_project(FLIGHTS).settings.policy_digest


def test_a_policy_file_that_is_not_there_is_answered_with_the_nearest_one():
    with pytest.raises(UsageError, match="is not there") as refused:
        project_from_files(with_policy_in_a_file("polici.toml"))
    assert "did you mean 'policy.toml'?" in refused.value.fix


def test_a_mistake_in_a_policy_file_names_its_key(tmp_path):
    files = with_policy_in_a_file("policy.toml")
    files["policy.toml"] = files["policy.toml"].replace("min_rows", "minrows")
    with pytest.raises(UsageError) as refused:
        project_from_files(files)
    assert "did you mean 'min_rows'?" in refused.value.fix


def test_high_risk_needs_independent_validation(tmp_path):
    error = broken(tmp_path, lambda text: text.replace('risk_tier = "low"', 'risk_tier = "high"'))
    assert "reviews" in error.what
    files = dict(load_project(FLIGHTS).files)
    high = 'risk_tier = "high"\nreviews = { validation = 1 }'
    files[PROJECT_FILE] = files[PROJECT_FILE].replace('risk_tier = "low"', high)
    assert project_from_files(files).settings.reviews == {"validation": 1}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('[oidc]\nissuer = "https://id.corp.example"\naudience = "gatehouse"', "keys_file"),
        ('[notifications.channels]\nops = "/etc/ops"\n[notifications.events]\nopps = ["alarm"]', "opps"),
        ('[ledgre]\nuri = "x"', "did you mean 'ledger'?"),
    ],
)
def test_wrong_settings_of_an_installation_name_what_is_wrong(tmp_path, lines, says):
    file = tmp_path / "settings.toml"
    file.write_text(
        f'home = "{tmp_path}"\n[ledger]\nuri = "postgresql://x"\n[mlflow]\nuri = "http://x"\n'
        f'[environments.production]\nserver = "http://x"\n{lines}\n'
    )
    with pytest.raises(UsageError) as refused:
        load_settings(file)
    assert says in f"{refused.value.what} {refused.value.fix}"
