"""The command line: each command parses, then calls one function of bootstrap."""

from __future__ import annotations

from pipeline.cli import bundle, dvc, export, gate, jenkins, line, records, stack, upkeep  # noqa: F401  # importing them adds their commands
from pipeline.cli.common import app

__all__ = ("app",)
