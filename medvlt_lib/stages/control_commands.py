"""`medvlt controls`: image questions asked otherwise."""

from __future__ import annotations

from typing import Annotated

import typer

from medvlt_lib.core.terminal import Inputs, ProfileName, Ray, Redo, RunName, Settings, open_named, show_table


def controls(
    profile: ProfileName = None,
    run: RunName = None,
    arm: Annotated[str | None, typer.Option(help="one arm (default: base and every finished arm)")] = None,
    all_: Annotated[bool, typer.Option("--all", help="ask all image questions of the test set, not 100")] = False,
    set_: Settings = None,
    redo: Redo = None,
    inputs: Inputs = None,
    ray: Ray = None,
) -> None:
    """05b: ask image questions otherwise, to see what an arm's accuracy rests on.

    Without the picture, with a grey one, with another question's, with the options in another order, without thinking,
    and with a quarter of the tokens. Needs 01 and the arms' checkpoints; arms that are not evaluated are (05). Writes
    answers.parquet and controls.json to runs/RUN/05b_controls/ARM. Interrupted, it continues.
    Example: medvlt controls --run tiny --arm rl_text --all
    """
    from medvlt_lib.core.control_rows import notes, table
    from medvlt_lib.stages import controls as stage

    opened = open_named(profile, run, set_, redo, inputs)
    for name, rows in stage.run(opened, arm, all_, ray).items():
        show_table(f"{opened.folder}/05b_controls/{name}", table(rows), caption=notes(rows))
