"""Published tables as data, and measured accuracies beside them: never in one table without saying which is which.

The tables are medvlt_lib/assets/published/*.yaml, each with its source. A published figure has the error that its
number of questions implies, if every question is by itself: where several share a picture it is larger. Both models
answered the same questions, but the papers' verdicts on single questions are not public, so differences are taken as if
the questions were others. That error is too large rather than too small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import yaml

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.results import percent_span
from medvlt_lib.core.stats import accuracy_interval
from medvlt_lib.core.tables import percent
from medvlt_lib.tools.answer_files import read_answers
from medvlt_lib.tools.score_file import score_of

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parents[1] / "assets" / "published"
# Our data sets (medvlt_lib/data) and the columns of the tables.
SETS = {
    "pmc_vqa": "PMC-VQA", "MMMU-medical": "MMMU", "MedXpertQA-MM": "MedXpertQA-MM", "pathvqa_closed": "PathVQA",
    "slake_closed": "SLAKE", "vqa_rad_closed": "VQA-RAD",
}  # fmt: skip
AVERAGE = "Avg"
MARGIN = 0.03  # differences within three points count as agreement, if the error leaves no room for more
TWO_SIDED, ONE_SIDED = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(0.95)
AGREES, DIFFERS, CANNOT_TELL, NOT_COMPARABLE = "agrees", "differs", "cannot tell at this n", "not comparable"


@dataclass(frozen=True)
class Table:
    """One published table: shares in [0, 1] by row (`7B rl_text`) and column; `questions`: how many each column has,
    None where that is not said; `comparable`: with what `medvlt eval` measures on MedVLThinker's six sets."""

    name: str
    source: str
    protocol: str
    comparable: bool
    questions: dict[str, int] | None
    rows: dict[str, dict[str, float]]

    @property
    def sets(self) -> list[str]:
        """The columns without the average."""
        return [name for name in next(iter(self.rows.values())) if name != AVERAGE]


def load_tables() -> dict[str, Table]:
    """Every published table by its name, that of its file."""
    return {path.stem: _table(path) for path in sorted(FOLDER.glob("*.yaml"))}


def _table(path: Path) -> Table:
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    rows = {
        f"{group} {name}": {c: v / 100 for c, v in zip(read["columns"], values, strict=True) if v is not None}
        for group, own in read["rows"].items()
        for name, values in own.items()
    }
    return Table(path.stem, read["source"], read["protocol"], read["comparable"], read["questions"], rows)


def row_of(table: Table, name: str) -> dict[str, float]:
    """A row of a table. Raises UserError that lists the rows for a name that is none."""
    if name not in table.rows:
        raise UserError(f"{table.name} has no row '{name}'; its rows are {', '.join(table.rows)}.")
    return table.rows[name]


def error_of(table: Table, row: dict[str, float], column: str) -> float:
    """The standard error that the number of questions implies: binomial; of the average, that of a mean of the sets."""
    assert table.questions is not None, table.name
    if column == AVERAGE:
        return math.hypot(*(error_of(table, row, name) for name in table.sets)) / len(table.sets)
    return math.sqrt(row[column] * (1 - row[column]) / table.questions[column])


def interval_of(table: Table, row: dict[str, float], column: str) -> tuple[float, float]:
    """The 95 % interval of a published figure: Wilson's; of the average, by `error_of`."""
    if column == AVERAGE:
        reach = TWO_SIDED * error_of(table, row, column)
        return row[column] - reach, row[column] + reach
    assert table.questions is not None, table.name
    return accuracy_interval(round(row[column] * table.questions[column]), table.questions[column])


def verdict(difference: float, error: float) -> str:
    """What a difference with this standard error says: it differs where its 95 % interval leaves out 0; it agrees where
    two one-sided tests at 5 % place it within MARGIN of 0 (Schuirmann DJ. J Pharmacokinet Biopharm 1987;15:657-680).
    """
    if abs(difference) > TWO_SIDED * error:
        return DIFFERS
    return AGREES if abs(difference) + ONE_SIDED * error < MARGIN else CANNOT_TELL


def measured_sets(answers: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Accuracy, interval and number of questions by column of the tables, of answers as `read_answers` gives them; with
    all six also their average. Raises UserError where no data set is one of the six."""
    found = {SETS[n]: score_of(n, answers[answers["dataset"] == n]) for n in answers["dataset"].unique() if n in SETS}
    if not found:
        sets = ", ".join(map(str, answers["dataset"].unique()))
        raise UserError(
            f"these are answers to {sets}, which no published table has; published figures can only stand beside "
            f"{', '.join(SETS)} (hub:UCSC-VLAA/MedVLThinker-Eval)."
        )
    if len(found) == len(SETS):
        found[AVERAGE] = score_of(AVERAGE, answers[answers["dataset"].isin(SETS)])
    return found


def beside_file(answers: Path, table: str, row: str) -> dict[str, Any]:
    """A file of answers beside a row of a table: the table's source and protocol, and `cells` as `beside` gives them.

    Raises UserError as `read_answers`, `row_of` and `measured_sets`, and for a table that is none.
    """
    tables = load_tables()
    if table not in tables:
        raise UserError(f"there is no published table '{table}'; choose one of {', '.join(tables)}.")
    own = tables[table]
    row_of(own, row)
    cells = beside(measured_sets(read_answers(answers)[0]), own, row)
    return {"source": own.source, "protocol": own.protocol, "answers": str(answers), "row": row, "cells": cells}


def beside(measured: dict[str, dict[str, float]], table: Table, name: str) -> list[dict[str, Any]]:
    """A row of a published table beside what was measured: a cell for each column, with the verdict on both."""
    row, cells = row_of(table, name), []
    for column, share in row.items():
        cell: dict[str, Any] = {"set": column, "published": share}
        if table.questions is not None:
            cell |= {"published_interval": interval_of(table, row, column), "questions": table.questions.get(column)}
        if column in measured:
            own = measured[column]
            cell |= {"measured": own["accuracy"], "measured_interval": (own["low"], own["high"])}
            cell |= {"measured_questions": own["questions"], "verdict": NOT_COMPARABLE}
            if table.comparable:
                error = math.hypot((own["high"] - own["low"]) / 2 / TWO_SIDED, error_of(table, row, column))
                cell |= {"difference": own["accuracy"] - share, "error": error}
                cell["verdict"] = verdict(cell["difference"], error)
        cells.append(cell)
    return cells


def cells_table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """What `beside_file` returns as text cells, header first; percent, and questions of both."""
    head = ("measured, %", "95 % interval", "questions", "published, %", "95 % interval", "questions", "verdict")
    cells: list[tuple[str, ...]] = [("set", *head)]
    for cell in found["cells"]:
        own = [""] * 3
        if "measured" in cell:
            own = [percent(cell["measured"]), percent_span(cell["measured_interval"]), str(cell["measured_questions"])]
        span = percent_span(cell["published_interval"]) if "published_interval" in cell else "not known"
        number = str(cell.get("questions") or "")
        cells.append((cell["set"], *own, percent(cell["published"]), span, number, cell.get("verdict", "not measured")))
    return cells


def cells_notes(found: dict[str, Any]) -> str:
    """Where the published figures are from, and what the verdicts mean."""
    return (
        f"published: {found['source']} ({found['protocol']}); agrees: within {100 * MARGIN:.0f} points by two "
        "one-sided tests; differs: the 95 % interval of the difference leaves out 0; errors as of independent samples"
    )
