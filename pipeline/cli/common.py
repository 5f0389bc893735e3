"""What the commands share: the application, its options, and how answers are printed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.bootstrap.installation import Installation

app = typer.Typer(
    name="gatehouse",
    help="Takes a model from data to production; lets nothing through that was not measured, approved and proven.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Run = Annotated[str, typer.Option("--run", envvar="GATEHOUSE_RUN", help="The run id, the only thing handed on.")]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, for machines.")]
Env = Annotated[str, typer.Option("--env", help="staging or production.")]
ProjectFile = Annotated[
    Path, typer.Option("--project", help="The project's folder or project.toml.", show_default=False)
]

SETTINGS_VARIABLE = "GATEHOUSE_SETTINGS"
HOME = ".gatehouse"
LOG_WIDTH = 180


def home() -> Path:
    """Folder of the embedded stack: that of the named settings, or ``.gatehouse`` here or in a folder above."""
    if SETTINGS_VARIABLE in os.environ:
        return Path(os.environ[SETTINGS_VARIABLE]).parent
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / HOME / "settings.toml").is_file():
            return folder / HOME
    return here / HOME


def installation() -> Installation:
    """The installation that the environment or the working directory names."""
    from pipeline.bootstrap.installation import Installation
    from pipeline.config import load_settings

    return Installation(load_settings(Path(os.environ.get(SETTINGS_VARIABLE) or home() / "settings.toml")))


def answer(value: Any) -> None:
    """Print a JSON answer."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as a table people can read; the same on a terminal and in a log."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=LOG_WIDTH)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(grid)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
