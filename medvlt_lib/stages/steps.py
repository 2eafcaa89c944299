"""True steps by arm: how many answers state a working, and how much of it is true, by kind of step.

Only questions of the embedded world have facts to check steps against; others are left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Question
from medvlt_lib.core.results import percent_span
from medvlt_lib.core.runs import STAGES, Run
from medvlt_lib.core.stats import macro_interval, wilson_of_set
from medvlt_lib.core.tables import percent
from medvlt_lib.phantom.questions import FAMILIES
from medvlt_lib.phantom.true_steps import FIRST_ERRORS, TrueSteps, true_steps

SHARES = {  # of which answers: the head of the column
    "works": "states a working",
    "all_true": "all its steps true",
    "perception": "sees rightly",
    "rule": "right rules",
    "arithmetic": "right sums",
    "follows": "answer follows",
    "right_with_working": "right with a working",
    "right_without": "right without",
}
NOTES = (
    "In percent, with 95 % intervals. The first share is of all answers; all its steps true, answer follows and right "
    "with a working are of those that state one, and each kind of step of those that state such a step. Rules and sums "
    "are right if they follow from what was stated before. An answer may follow from steps that are false."
)


def step_rows(answers: Path, test: Path) -> list[dict]:
    """The rows of an answers.parquet, each with its `TrueSteps` as `steps`; answers without facts are left out.

    Raises UserError for a test file that cannot be read.
    """
    import pyarrow.parquet as pq

    questions = {}
    for row in QuestionFiles([test]).columns("id", "family", "options", "extra"):
        facts = json.loads(row["extra"]).get("facts")
        if row["family"] in FAMILIES and facts:
            questions[row["id"]] = (row["family"], facts, json.loads(row["options"]))
    return [
        {**row, "steps": asdict(true_steps(row["text"], row["letter"], row["well_formed"], *questions[row["id"]]))}
        for row in pq.read_table(answers).to_pylist()
        if row["id"] in questions
    ]


def steps_of(row: dict, question: Question) -> TrueSteps | None:
    """What a graded answer to a question states; None for a question without facts."""
    facts = question.extra.get("facts")
    if question.family not in FAMILIES or not facts:
        return None
    return true_steps(row["text"], row["letter"], row["well_formed"], question.family, facts, question.options)


def step_shares(rows: Sequence[dict]) -> dict:
    """The shares of SHARES over rows of `step_rows`, each with its number of answers and interval, None where there is
    none; and how often each first error of FIRST_ERRORS was made, among all answers."""
    errors = Counter(row["steps"]["first_error"] for row in rows)
    return {
        "answers": len(rows),
        **{name: _share([(value, row) for row in rows if (value := _value(name, row)) is not None]) for name in SHARES},
        "first_errors": {name: errors[name] for name in FIRST_ERRORS},
    }


def _value(name: str, row: dict) -> bool | None:
    """What an answer counts for in a share; None where it is not among those counted."""
    steps = row["steps"]
    if name.startswith("right_"):
        return row["correct"] if steps["works"] == (name == "right_with_working") else None
    return steps[name]


def _share(found: list[tuple[bool, dict]]) -> dict | None:
    """A share of answers, with Wilson's interval or that over pictures and questions with several answers."""
    if not found:
        return None
    values, clusters = [value for value, _ in found], [row["cluster"] for _, row in found]
    low, high, kind = wilson_of_set(values, clusters) or macro_interval(values, [0] * len(values), clusters)
    share = sum(values) / len(values)
    return {"answers": len(values), "share": share, "interval": (low, high), "interval_kind": kind}


def arm_steps(run_: Run, arms: list[str]) -> list[dict]:
    """`step_shares` of each arm: of all its answers, and of those to questions in words and on pictures."""
    test, found = run_.require("01") / "test.parquet", []
    for arm in arms:
        rows = step_rows(run_.folder / STAGES["05"] / arm / "answers.parquet", test)
        for modality in ("text", "image", "all"):
            own = [row for row in rows if modality in ("all", row["modality"])]
            if own:
                found.append({"arm": arm, "modality": modality, **step_shares(own)})
    return found


def table(rows: list[dict]) -> list[tuple[str, ...]]:
    """Rows of `arm_steps` as text cells, header first; shares in percent."""
    cells = [("arm", "questions", "answers", *SHARES.values())]
    for row in rows:
        shares = (f"{percent(s['share'])} ({percent_span(s['interval'])})" if (s := row[n]) else "" for n in SHARES)
        cells.append((row["arm"], row["modality"], str(row["answers"]), *shares))
    return cells


def error_table(rows: list[dict]) -> list[tuple[str, ...]]:
    """Where answers first went wrong, in percent of all answers, header first."""
    cells = [("arm", "questions", *FIRST_ERRORS.values())]
    for row in rows:
        cells.append(
            (row["arm"], row["modality"], *(percent(n / row["answers"]) for n in row["first_errors"].values()))
        )
    return cells
