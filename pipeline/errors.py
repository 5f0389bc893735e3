"""The error families. Each is named by what the operator must do, and carries the documented exit code.

An error says what happened, where, and what to do about it; the driver's own exception stays its cause.
"""

from __future__ import annotations

from typing import ClassVar


class GatehouseError(Exception):
    """Base of every expected failure.

    Args:
        what: what happened, in one sentence.
        where: the file, stage, column, event or address concerned; empty when there is none.
        fix: what the reader can do now; empty when nothing can be done by them.
    """

    exit_code: ClassVar[int] = 1
    family: ClassVar[str] = "error"

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix


class UsageError(GatehouseError):
    """Bad command line, configuration, project or data: the input must be mended."""

    exit_code = 2
    family = "bad input"


class PolicyRefused(GatehouseError):
    """The evidence does not meet the policy: a better model, or other data, is needed."""

    exit_code = 3
    family = "policy refused"


class ApprovalInvalid(GatehouseError):
    """An approval is missing, expired or void: somebody entitled must decide."""

    exit_code = 4
    family = "approval"


class IntegrityViolated(GatehouseError):
    """A digest, a signature or the ledger's chain does not match: stop, and call security."""

    exit_code = 5
    family = "integrity"


class Unreachable(GatehouseError):
    """A service did not answer after retries: try again when it is back."""

    exit_code = 6
    family = "unreachable"
