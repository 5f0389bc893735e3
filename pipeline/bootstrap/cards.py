"""Model cards: put together from the ledger and the verified evidence."""

from __future__ import annotations

from dataclasses import asdict

from pipeline.bootstrap.gatekeeping import evidence_of
from pipeline.bootstrap.installation import Installation
from pipeline.config import Project
from pipeline.domain.gate import ENVIRONMENT
from pipeline.domain.state import RunState, subject_of
from pipeline.reports import card as cards


def card_of(place: Installation, state: RunState, project: Project) -> str:
    """The card of a run's model, with the approvals that were recorded of exactly this so far."""
    subject = subject_of(state, ENVIRONMENT) if state.done("register") else None
    decided = [asdict(one) for one in state.record.decisions if one.approved and one.subject == subject]
    return cards.card(
        evidence_of(place, state),
        purpose=cards.purpose_in(project.files),
        approvals=decided,
        commit=(state.opened or {})["code"].get("commit"),
    )


def tags_of(project: Project) -> dict[str, str]:
    """What a registered model says of all its versions."""
    settings = project.settings
    return {"gatehouse.project": settings.name, "gatehouse.risk_tier": settings.risk_tier}
