"""`medvlt compare`, `medvlt scores` and `medvlt published`: what graded answers say, ours and those in papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvlt_lib.core.errors import UserError
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
    files: Annotated[list[Path], typer.Argument(help="answers of one model (.parquet, .jsonl, .csv)")],
    json: JsonFile = None,
) -> None:
    """Accuracy with interval of a file of answers; pass@k, votes and calibration where there are several to a question.

    Takes files as `medvlt compare` does. Votes need a column letter (of equal numbers of votes the answer given first
    counts); what guessing alone gives for pass@k needs a column options, their number or the options themselves.
    Several files are one recipe trained with several seeds: how far the seed moves the score is told apart from the
    luck of questions and of sampling.
    Example: medvlt scores runs/tiny/05_eval/base/answers.parquet
    """
    from medvlt_lib.tools import score_file as work

    found = work.scores(files)
    show_table(" ".join(map(str, files)), work.scores_table(found), caption=work.scores_notes(found))
    if pass_at := work.at_k_table(found):
        show_table("one right answer among k", pass_at, caption="guessing: one of the options, each as likely")
    if votes := work.calibration_table(found):
        show_table("votes by agreement", votes, caption="a calibrated vote is right as often as answers agree")
    if json:
        write_json(json, found)


def published(
    scores: Annotated[
        Path | None, typer.Option(help="answers of one model to the six test sets, to stand beside a published row")
    ] = None,
    row: Annotated[str | None, typer.Option(help="the row, such as '7B rl_text'; needs --scores")] = None,
    table: Annotated[str, typer.Option(help="the table, a file of assets/published")] = "medvlthinker_table1",
    json: JsonFile = None,
) -> None:
    """Published tables with the errors that their numbers of questions imply, and your own answers beside them.

    Without --scores: what the papers' differences can claim (results/published-reanalysis.json holds it). With
    --scores: measured and published side by side, each with its interval; a cell agrees (within 3 points), differs, or
    its number of questions cannot tell. Tables of another protocol are shown and not compared.
    Example: medvlt published --scores runs/lora-7b/05_eval/rl_text/answers.parquet --row '7B rl_text'
    """
    from medvlt_lib.tools import published_analysis as analysis
    from medvlt_lib.tools import published_tables as tables

    if (scores is None) != (row is None):
        raise UserError("--scores and --row go together: which answers, and beside which published row.")
    if scores is None or row is None:
        found = analysis.reanalysis()
        show_table("published differences of averages, points", analysis.claims_table(found), caption=found["note"])
        for question, answer in found["answers"].items():
            print(f"{question}\n  {answer}")
    else:
        found = tables.beside_file(scores, table, row)
        show_table(f"{scores} beside {row}", tables.cells_table(found), caption=tables.cells_notes(found))
    if json:
        write_json(json, found)
