"""What the commands of `medvlt` share: the options that several of them have, and tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medvlt_lib.core.runs import Run

ProfileName = Annotated[
    str | None, typer.Option(help="tiny, tiny-qlora, qlora-3b, ...; may be left out once the run exists")
]
RunName = Annotated[str | None, typer.Option(help="folder under runs/ (default: the profile's name)")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="change a setting: grpo.learning_rate=1e-5")]
Redo = Annotated[list[str] | None, typer.Option(help="throw a stage (01, 02, 02b ... 05b, 06) away and do it again")]
Inputs = Annotated[list[str] | None, typer.Option(help="take a stage from another run: 02=runs/qlora-3b")]
Ray = Annotated[
    str | None,
    typer.Option(
        help="spread the rollouts over a Ray cluster: HOST:PORT, auto, or local:4 for 4 engines on this machine"
    ),
]
TrainingFile = Annotated[Path | None, typer.Option("--data", help="question file to train on instead of the arm's own")]
Start = Annotated[Path | None, typer.Option("--init", help="checkpoint to start from instead of the base model")]


def open_named(
    profile: str | None,
    run: str | None,
    settings: list[str] | None,
    redo: list[str] | None = None,
    inputs: list[str] | None = None,
    make: bool = True,
) -> Run:
    """The run that a command's options name. Raises UserError as `open_run`."""
    from medvlt_lib.core.config import parse_settings
    from medvlt_lib.core.runs import open_run

    return open_run(profile, run, parse_settings(settings or []), redo, inputs, make=make)


def show_table(title: str, rows: Sequence[Sequence[str]], caption: str | None = None) -> None:
    """Print a table whose first row is its head; of several processes only the first one prints."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from medvlt_lib.core.stage import first_process

    if not first_process():
        return
    table = Table(*rows[0], title=title, caption=caption)
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    console = Console()
    console.width = max(console.width, 100)  # where nothing tells the width, 80 would cut tables
    console.print(table)
