"""What a data check found, as plain data: for the ledger, the evidence page and the error message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """One rule that the data breaks.

    Args:
        column: the column; names joined with ``, `` when the rule is about several; empty for the whole table.
        rule: what should have held, in words: ``not null``, ``in_range(1, 12)``, ``rows in 2013-03``.
        count: rows that break it.
        share: `count` over the table's rows, 0 for an empty table.
        examples: up to five offending rows: the key, the time and the column, as JSON values.
    """

    column: str
    rule: str
    count: int
    share: float
    examples: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "column": self.column,
            "rule": self.rule,
            "count": self.count,
            "share": self.share,
            "examples": [dict(example) for example in self.examples],
        }
