"""Reconciliation: the ledger is right; every difference is found, and what agrees raises nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bootstrap.collect import references
from pipeline.domain.approval import Decision, Subject
from pipeline.domain.events import GENESIS, Draft, link
from pipeline.domain.reconciliation import Observed, compare, expected, expired_approvals, new_alarms

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
AT = "2026-11-24T11:00:00.000000Z"


def chain(drafts):
    rows, previous = [], GENESIS
    for seq, draft in enumerate(drafts, 1):
        rows.append(link(draft, seq=seq, at=AT, previous=previous))
        previous = rows[-1].hash
    return rows


def body(version):
    return {
        "model": "prod.flights",
        "version": version,
        "package": f"sha256:{version}",
        "uri": f"models:/m-{version}",
        "run": f"run-{version}",
    }


def moved(kind, version):
    return Draft(kind, "jenkins", body(version), f"run-{version}", "flights", "production")


def ledger(*drafts):
    return expected("flights", "production", "prod.flights", [row.event() for row in chain(drafts)])


def two_versions():
    return ledger(*(moved(kind, v) for v in "12" for kind in ("model.promoted", "rollout.requested")))


def agreeing(about):
    """The world as the ledger says it is."""
    state = about.state
    return Observed(
        alias=state.wanted.version if state.wanted else None,
        tags=state.wanted.tags if state.wanted else {},
        versions=frozenset(about.known),
        packages={f"models:/m-{version}": package for version, package in about.known.items()},
        server={
            "state": "serving",
            "package": state.rolled_out.package if state.rolled_out else None,
            "override": None,
            "failed": None,
            "control_plane": "reachable",
        },
    )


@given(st.lists(st.sampled_from(["promote", "roll out", "back"]), max_size=10))
def test_a_world_that_is_as_the_ledger_says_has_no_finding(moves):
    drafts, stack = [], []
    for number, move in enumerate(moves):
        if move == "promote":
            stack.append(str(number))
            drafts.append(moved("model.promoted", stack[-1]))
        elif move == "roll out" and stack:
            drafts.append(moved("rollout.requested", stack[-1]))
        elif move == "back" and len(stack) > 1:
            stack.pop()
            drafts.append(moved("model.rolled_back", stack[-1]))
    about = ledger(*drafts)
    assert compare(about, agreeing(about)) == []


def changed(**changes):
    about = two_versions()
    world = agreeing(about)
    server = changes.pop("server", {})
    if server is not None:
        server = {**world.server, **server}
    return compare(about, replace(world, server=server, **changes))


OVERRIDE = {"id": "x", "serial": 4, "actor": "otto", "reason": "nonsense", "at": AT}
FOUND = {
    "an alias moved by hand": ({"alias": "1"}, "alias", "repair"),
    "no alias": ({"alias": None}, "alias", "repair"),
    "other tags": ({"tags": {"gatehouse.package": "sha256:x"}}, "tags", "repair"),
    "bytes overwritten": ({"packages": {"models:/m-1": "sha256:1", "models:/m-2": "sha256:x"}}, "bytes", "wrong"),
    "bytes of what a rollback needs overwritten": (
        {"packages": {"models:/m-1": "sha256:x", "models:/m-2": "sha256:2"}},
        "bytes",
        "wrong",
    ),
    "bytes gone": ({"packages": {"models:/m-1": "sha256:1", "models:/m-2": None}}, "bytes", "wrong"),
    "a version deleted": ({"versions": frozenset("1")}, "version deleted", "repair"),
    "a version nobody promoted": ({"versions": frozenset("123")}, "version unknown", "alarm"),
    "a server with other bytes": ({"server": {"package": "sha256:x"}}, "server", "wrong"),
    "a server with nothing": ({"server": {"package": None}}, "server", "wrong"),
    "a server that refuses": (
        {"server": {"package": "sha256:1", "failed": {"digest": "sha256:2", "reason": "not signed"}}},
        "server refuses",
        "wrong",
    ),
    "a server that is away": ({"server": None}, "server silent", "alarm"),
    "a rollback on the spot": ({"server": {"package": "sha256:1", "override": OVERRIDE}}, "local rollback", "repair"),
    "an override to something else": (
        {"server": {"package": "sha256:x", "override": OVERRIDE}},
        "local rollback",
        "alarm",
    ),
}


@pytest.mark.parametrize(("changes", "kind", "how"), FOUND.values(), ids=FOUND)
def test_each_difference_is_found_once_and_by_its_name(changes, kind, how):
    (finding,) = changed(**changes)
    assert finding.kind == kind
    assert {"repair": finding.repair, "wrong": finding.wrong, "alarm": not finding.repair and not finding.wrong}[how]


@pytest.mark.parametrize(
    "server",
    [
        {"state": "fetching", "package": "sha256:1"},
        {"state": "loading", "package": None},
        {"package": "sha256:1", "control_plane": "unreachable since noon"},
    ],
    ids=["fetching", "loading", "cannot ask"],
)
def test_a_server_that_is_on_its_way_or_cut_off_is_no_alarm(server):
    assert changed(server=server) == []


def test_a_version_that_got_another_number_is_the_same_one():
    repair = {"what": "version", "was": "2", "now": "3", "package": "sha256:2"}
    drafts = [moved(kind, v) for v in "12" for kind in ("model.promoted", "rollout.requested")]
    about = ledger(*drafts, Draft("projection.repaired", "x", repair, None, "flights", "production"))
    assert about.state.wanted.version == about.state.rolled_out.version == "3"
    world = replace(agreeing(about), versions=frozenset("13"))
    assert compare(about, world) == []


def test_an_alarm_that_stands_is_not_raised_again_and_another_one_is():
    (finding,) = changed(server={"package": "sha256:x"})
    raised = {"finding": finding.kind, "what": finding.what}
    (known,) = [row.event() for row in chain([Draft("alarm.raised", "x", raised, None, "flights", "production")])]
    assert new_alarms([finding], [known]) == []
    assert new_alarms([finding], []) == [finding]
    assert new_alarms([replace(finding, what="another")], [known])
    assert new_alarms([replace(finding, repair=True)], []) == []


# --- approvals that ran out ---------------------------------------------------------------------------------

SUBJECT = Subject("flights", "3", "production", *(f"sha256:{n:064x}" for n in range(6)), champion=None)


def approved(hours):
    when = (NOW + timedelta(hours=hours)).isoformat()
    return Draft("approval.decided", "grace", decision_body(when), "run-3", "flights", "production")


def decision_body(expires):
    from dataclasses import asdict

    return asdict(Decision(SUBJECT, True, "grace", "good", "signed", AT, expires))


@pytest.mark.parametrize(
    ("drafts", "count"),
    [
        ([approved(-1)], 1),
        ([approved(1)], 0),
        ([approved(-1), approved(1)], 0),
        ([approved(-1), Draft("approval.expired", "x", {"subject": SUBJECT.digest})], 0),
        ([approved(-1), Draft("model.promoted", "x", body("3") | {"subject": SUBJECT.digest})], 0),
    ],
    ids=["ran out", "still good", "given again", "told already", "used in time"],
)
def test_an_approval_that_ran_out_unused_is_told_once(drafts, count):
    assert len(expired_approvals([row.event() for row in chain(drafts)], NOW)) == count


# --- what garbage collection must spare ---------------------------------------------------------------------


def test_what_promoted_and_recent_runs_refer_to_is_spared_and_the_rest_is_not():
    rows = chain(
        [
            Draft("data.ingested", "x", {"uri": "runs:/aaa1/data"}, "promoted"),
            moved("model.promoted", "1"),
            Draft("model.trained", "x", {"uri": "models:/m-beef/package"}, "run-1"),
            Draft("run.opened", "x", {}, "recent"),
            Draft("model.trained", "x", {"uri": "models:/m-cafe", "log": "runs:/bbb2/x"}, "recent"),
            Draft("model.trained", "x", {"uri": "models:/m-dead"}, "forgotten"),
        ]
    )
    found = references(rows, "2026-11-01")
    assert found.models == {"m-beef": "run-1", "m-1": "run-1", "m-cafe": "recent"}
    assert found.runs == {"bbb2": "recent"}
    assert references(rows, "2026-12-01").models == {"m-beef": "run-1", "m-1": "run-1"}
