"""`medvlt controls` (image questions asked otherwise) and `medvlt compare-app` (arms beside one another)."""

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


def compare_app(
    profile: ProfileName = None,
    run: RunName = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="may be repeated (default: base, the first SFT and the first GRPO arm)")
    ] = None,
    saved: Annotated[bool, typer.Option("--saved", help="show the run's answers; do not ask the models")] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="of the page, on this machine; 0 takes a free one")
    ] = 8765,
) -> None:
    """A page, for this machine alone, that shows a question beside the answers of a run's arms.

    The picture can be taken away, swapped, or drawn with another value: does the answer follow? Steps are marked true
    or false, several samples are counted as votes. Models of the shipped sizes answer live; of larger ones the answers
    of 05 and 05b are shown.
    Example: medvlt compare-app --run tiny
    """
    from medvlt_lib.stages.compare_app import serve
    from medvlt_lib.stages.comparing import open_comparison

    opened = open_named(profile, run, None, make=False)
    serve(open_comparison(opened, arm or None, False if saved else None), port)
