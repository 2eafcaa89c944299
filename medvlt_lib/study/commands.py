"""`medvlt study` and `medvlt findings`: the paper's experiments as lists of runs, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvlt_lib.core.terminal import Settings, show_table

Results = Annotated[Path, typer.Option(help="folder of the results, one JSON and one Parquet file a run")]
OWN = Path("runs") / "studies" / "results"


def study(
    names: Annotated[list[str], typer.Argument(help="recipes, noise, habit, ..., or all")],
    profile: Annotated[str, typer.Option(help="profile whose studies are run")] = "tiny",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="seeds, 0 and up (default: as many as the claims file says)")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="only say what would be run, and how long it takes")] = False,
    results: Results = OWN,
    set_: Settings = None,
    ray: Annotated[
        str | None, typer.Option(help="spread the runs over a Ray cluster: HOST:PORT, auto or local:N")
    ] = None,
) -> None:
    """Run the paper's experiments: lists of arms and seeds over settings of the embedded world.

    Every finished run is written at once, to --results; what has a result is not run again, also when two studies
    share it. Stopped, the same command continues; a changed setting makes new runs. `medvlt findings` judges them.
    Example: medvlt study recipes --plan && medvlt study recipes --seeds 3
    """
    from medvlt_lib.core.config import parse_settings
    from medvlt_lib.study.cells import cells_of
    from medvlt_lib.study.cells import study as study_of
    from medvlt_lib.study.findings import claims_file
    from medvlt_lib.study.planning import plan_table
    from medvlt_lib.study.running import run_cells, unfinished

    every = claims_file()["claims"]
    laid_out = [name for name in every if study_of(name)["profile"] == profile] or list(every)
    chosen = laid_out if names == ["all"] else names
    needed = claims_file()["seeds"]
    cells = cells_of(chosen, range(seeds or needed), profile, parse_settings(set_ or []))
    if seeds and seeds < needed:
        print(f"with fewer than {needed} seeds no claim is judged; `medvlt findings` will say not run.")
    if plan:
        rows, caption = plan_table(cells, unfinished(cells, results), results)
        show_table(", ".join(chosen), rows, caption=caption)
        return
    run_cells(cells, results, ray=ray)


def findings(
    names: Annotated[list[str] | None, typer.Argument(help="studies (default: all)")] = None,
    results: Annotated[
        Path | None, typer.Option(help="folder of the results (default: those that were shipped)")
    ] = None,
) -> None:
    """What follows from the results of studies: every claim, stated before the runs, with its test and its verdict.

    Writes findings.md and findings.json beside results of your own (--results).
    Example: medvlt findings recipes --results runs/studies/results
    """
    from medvlt_lib.study.findings import judged, results_of_studies
    from medvlt_lib.study.results import SHIPPED
    from medvlt_lib.study.tables import BESIDE, beside_table, cautions, findings_table, write_findings

    folder = results or SHIPPED
    every = judged(names, folder)
    runs = results_of_studies(every, folder)
    for name, verdicts in every.items():
        rows, caption = findings_table(name, verdicts)
        show_table(name, rows, caption=caption)
        for caution in cautions(name, verdicts, runs[name], folder):
            print(f"read with care: {caution}")
        if shared := beside_table(name, verdicts, folder):
            show_table(f"{name}, beside the tiny model", shared, caption=BESIDE)
    if results:
        print(write_findings(results))
