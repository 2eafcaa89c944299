"""`medvlt compare` and `medvlt scores`: what files of graded answers say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvlt_lib.core.files import write_json
from medvlt_lib.core.terminal import show_table

JsonFile = Annotated[Path | None, typer.Option("--json", help="also write everything to this file")]


def compare(
    before: Annotated[Path, typer.Argument(help="answers of one model (.parquet, .jsonl, .csv)")],
    after: Annotated[Path, typer.Argument(help="answers of another model to the same questions")],
    json: JsonFile = None,
) -> None:
    """Compare two models on the same questions: difference, interval, tests.

    Files are those of `medvlt eval` (answers.parquet) or any with the columns id and correct (true or false), and
    perhaps dataset, cluster (what questions share, such as a picture) and sample. They are joined on the id. Overall is
    the unweighted mean over data sets; p-values of the data sets are adjusted by Holm; the exact test is McNemar's.
    Example: medvlt compare runs/tiny/05_eval/sft_text/answers.parquet runs/tiny/05_eval/rl_text/answers.parquet
    """
    from medvlt_lib.tools import compare as work

    found = work.compare(before, after)
    show_table(f"{after} against {before}", work.compare_table(found), caption=work.compare_notes(found))
    if json:
        write_json(json, found)


def scores(
    file: Annotated[Path, typer.Argument(help="answers of one model (.parquet, .jsonl, .csv)")],
    json: JsonFile = None,
) -> None:
    """Accuracy with interval of a file of answers; pass@k and majority where questions were answered several times.

    Takes files as `medvlt compare` does; the majority needs a column letter, and of equal votes the first given counts.
    Example: medvlt scores runs/tiny/05_eval/base/answers.parquet
    """
    from medvlt_lib.tools import compare as work

    found = work.scores(file)
    blank = f"{found['blank']} blank answers, counted as wrong" if found["blank"] else None
    show_table(str(file), work.scores_table(found), caption=blank)
    if json:
        write_json(json, found)
