"""The chain: whatever is changed, removed, inserted or reordered is found."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.canonical import canonical
from pipeline.domain.events import GENESIS, Draft, link, preimage, verify
from pipeline.errors import IntegrityViolated

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
drafts = st.builds(
    Draft,
    kind=st.sampled_from(["run.opened", "data.ingested", "model.promoted"]),
    actor=st.text(min_size=1, max_size=8),
    body=st.dictionaries(st.text(), json_values, max_size=4),
    run=st.none() | st.text(max_size=6),
)


def chain(some):
    events, previous = [], GENESIS
    for seq, draft in enumerate(some, 1):
        events.append(link(draft, seq=seq, at="2026-11-23T20:00:00.000000Z", previous=previous))
        previous = events[-1].hash
    return events


@given(st.lists(drafts, max_size=6))
def test_an_untouched_chain_verifies_and_passes_every_event_through(some):
    events = chain(some)
    assert list(verify(events)) == events


@given(drafts)
def test_what_is_hashed_is_the_canonical_form_of_the_whole_row(draft):
    (row,) = chain([draft])
    fields = row._asdict()
    del fields["hash"], fields["text"]
    assert preimage(row) == canonical({**fields, "body": draft.body})
    assert row.event().body == json.loads(canonical(draft.body))


@given(st.lists(drafts, min_size=1, max_size=6), st.data())
def test_a_changed_field_is_found_and_the_row_is_named(some, data):
    events = chain(some)
    at = data.draw(st.integers(0, len(events) - 1))
    field = data.draw(st.sampled_from(["kind", "actor", "run", "at", "environment", "text", "hash", "previous"]))
    events[at] = events[at]._replace(**{field: f"{getattr(events[at], field)}x"})
    with pytest.raises(IntegrityViolated, match=rf"row {at + 1} "):
        list(verify(events))
    if field not in ("hash", "previous"):
        with pytest.raises(IntegrityViolated, match=rf"row {at + 1} "):
            events[at].event()


@given(st.lists(drafts, min_size=2, max_size=6), st.data())
def test_a_removed_row_is_found_unless_it_is_the_last(some, data):
    events = chain(some)
    at = data.draw(st.integers(0, len(events) - 2))
    del events[at]
    with pytest.raises(IntegrityViolated, match=f"row {at + 1} is missing"):
        list(verify(events))


def test_a_rehashed_row_breaks_the_link_after_it():
    events = chain([Draft("a", "x", {"v": 1}), Draft("b", "x", {})])
    forged = link(Draft("a", "x", {"v": 2}), seq=1, at=events[0].at, previous=GENESIS)
    with pytest.raises(IntegrityViolated, match="row 2 "):
        list(verify([forged, events[1]]))
