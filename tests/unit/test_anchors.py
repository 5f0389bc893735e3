"""Anchors: what a chain by itself cannot show, a hash kept elsewhere does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bootstrap.anchors import held, known, parse, remember
from pipeline.domain.events import GENESIS, Draft, link, verify
from pipeline.errors import IntegrityViolated, UsageError


def chain(bodies):
    rows, previous = [], GENESIS
    for seq, body in enumerate(bodies, 1):
        rows.append(link(Draft("n", "x", {"n": body}), seq=seq, at="2026-11-24T00:00:00.000000Z", previous=previous))
        previous = rows[-1].hash
    return rows


bodies = st.lists(st.integers(-9, 9), min_size=1, max_size=8)


@given(bodies, st.data())
def test_a_chain_holds_to_its_own_anchors_and_passes_every_row_through(some, data):
    rows = chain(some)
    kept = data.draw(st.sets(st.sampled_from(rows)))
    assert list(held(verify(rows), {row.seq: row.hash for row in kept})) == rows


@given(bodies, st.data())
def test_rows_cut_off_at_the_end_are_found_though_the_chain_holds(some, data):
    rows = chain(some)
    left = data.draw(st.integers(0, len(rows) - 1))
    short = list(verify(rows[:left]))
    with pytest.raises(IntegrityViolated, match="last rows were deleted"):
        list(held(short, {rows[-1].seq: rows[-1].hash}))


@given(bodies, st.data())
def test_a_history_made_anew_is_found_though_the_chain_holds(some, data):
    rows = chain(some)
    at = data.draw(st.integers(0, len(rows) - 1))
    other = list(verify(chain([*some[:at], "another", *some[at + 1 :]])))
    with pytest.raises(IntegrityViolated, match="history was rewritten"):
        list(held(other, {rows[-1].seq: rows[-1].hash}))


@pytest.mark.parametrize(
    "word", ["57", "x:sha256:ab", "57:md5:ab", ":", "57:sha256:ab", "0:" + GENESIS, "²:" + GENESIS]
)
def test_what_is_no_anchor_is_bad_input(word):
    with pytest.raises(UsageError, match="no anchor"):
        parse([word], "--anchor")


def test_rows_cut_off_are_found_even_when_others_took_their_place_and_were_anchored_in_turn():
    rows, others = chain([1, 2, 3]), chain([1, 2, "another"])
    said = [f"{row.seq}:{row.hash}" for row in (rows[-1], others[-1])]
    with pytest.raises(IntegrityViolated, match="history was rewritten: row 3 was anchored twice"):
        parse(said, "anchors")
    assert parse([said[0], said[0]], "anchors") == {3: rows[-1].hash}


def test_a_line_torn_by_a_crash_blocks_nobody_and_is_gone_with_the_next(tmp_path):
    place = SimpleNamespace(settings=SimpleNamespace(home=tmp_path), reporter=SimpleNamespace(note=print))
    rows = chain([1, 2, 3])
    remember(place, rows[0].event())
    with (tmp_path / "anchors").open("a") as stream:
        stream.write("2:sha256:ab")
    assert known(place) == {1: rows[0].hash}
    remember(place, rows[2].event())
    assert known(place) == {1: rows[0].hash, 3: rows[2].hash}
