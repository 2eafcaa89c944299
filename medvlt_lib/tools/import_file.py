"""`medvlt import`: questions from JSONL, JSON, CSV or parquet, with a look at whole columns before a key is believed.

Files are read twice: first to see what their columns of keys hold (medvlt_lib.tools.import_columns) and whether answers
may be "maybe", then for the questions. Nothing is written before the first of them were shown.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import file_hash, write_json, write_jsonl
from medvlt_lib.core.records import Question, write_questions
from medvlt_lib.data.rows import Refused, read_rows
from medvlt_lib.tools.import_columns import look
from medvlt_lib.tools.import_question import COLUMNS, Cells, Kind, Reading, question_of

PREVIEW = 3  # questions that are shown before anything is written
# What --map names beside the fields: an answer whose kind is said, and is not looked for in the file.
KINDS: dict[str, Kind] = {"answer_letter": "letter", "answer_text": "text"}


@dataclass
class Outcome:
    """What became of the rows: how many were read, kept and refused, the refused ones, and what changed in pictures."""

    counts: dict[str, int] = field(default_factory=lambda: {"read": 0, "kept": 0, "refused": 0})
    refused: list[dict] = field(default_factory=list)
    picture_changes: Counter = field(default_factory=Counter)


def import_files(
    files: list[Path],
    out: Path,
    maps: list[str],
    dataset: str | None,
    licence: str | None,
    index_from: int | None = None,
    options_in_question: bool = False,
    names: list[str] | None = None,
    approve: Callable[[list[Question]], None] = lambda questions: None,
) -> dict[str, int]:
    """Writes questions.parquet, import.json and, where rows were refused, refused.jsonl to `out`; returns the counts.

    `index_from`: what a column of keys counts from, None where it is to be seen from the column; `names`: the columns
    of CSV files without a header; `approve` is shown the first questions and raises to stop.
    Raises UserError for a bad mapping, a file that cannot be read, a column that no row has, keys that can be read in
    two ways, or an `out` in use.
    """
    asked = replace(_mapped(maps), options_in_question=options_in_question)
    if (out / "questions.parquet").exists():
        raise UserError(f"{out}/questions.parquet exists; choose another --out.")
    for file in files:
        _check_header(file, asked.columns, names)
    readings = [look(file, asked, index_from, names, alone=len(files) == 1) for file in files]
    maybe = any(how.maybe for how in readings)
    readings = [replace(how, maybe=maybe) for how in readings]
    outcome = Outcome()
    questions = _questions(files, readings, dataset, licence, names, outcome)
    first = list(itertools.islice(questions, PREVIEW))
    if not first:
        example = f"; the first: {_sentence(outcome.refused[0])}" if outcome.refused else ""
        raise UserError(
            f"no row of {', '.join(map(str, files))} could be imported{example}; "
            "see `medvlt import --help` for the columns."
        )
    approve(first)
    every = tqdm(itertools.chain(first, questions), desc="questions", unit="question")
    write_questions(every, out / "questions.parquet")
    if outcome.refused:
        write_jsonl(out / "refused.jsonl", outcome.refused)
    write_json(out / "import.json", _record(files, readings, licence, outcome))
    return outcome.counts


def _record(files: list[Path], readings: list[Reading], licence: str | None, outcome: Outcome) -> dict:
    """What import.json says: how each file was read, and what became of its rows."""
    firsts = {(column, kind) for how in readings for column, kind in how.kinds.items() if isinstance(kind, int)}
    shared = dict(zip(("index_column", "index_from"), next(iter(firsts)), strict=True)) if len(firsts) == 1 else {}
    return {
        "files": [str(file) for file in files],
        "columns": readings[0].columns,
        "keys": [{column: _said(kind) for column, kind in how.kinds.items()} for how in readings],
        "maybe": readings[0].maybe,
        "licence": licence,
        **shared,
        **outcome.counts,
        "picture_changes": dict(outcome.picture_changes),
    }


def _said(kind: Kind | None) -> str:
    if isinstance(kind, int):
        return f"numbers of options, counted from {kind}"
    return {"letter": "letters", "text": "texts of options"}.get(str(kind), "letters or texts of options")


def _sentence(row: dict) -> str:
    return f"{row['file']}, row {row['row']}, column {row['column']}: {row['why']}"


def _mapped(maps: list[str]) -> Reading:
    """The reading that --map asks for. Raises UserError for a field that there is not."""
    columns = {field: list(names) for field, names in COLUMNS.items()}
    kinds: dict[str, Kind | None] = {}
    given = set()
    for pair in maps:
        name, sign, column = pair.partition("=")
        if not sign or name not in (*COLUMNS, *KINDS) or not column:
            raise UserError(f"--map {pair}: write it as FIELD=COLUMN, with a FIELD of {', '.join((*COLUMNS, *KINDS))}.")
        given.add(name)
        if name in KINDS:
            columns["answer"] = column.split(",")
            kinds |= dict.fromkeys(columns["answer"], KINDS[name])
        else:
            columns[name] = column.split(",")
    if kinds and "answer_index" not in given:
        columns["answer_index"] = []  # not even a column of a known name counts before what was named
    return Reading(columns, kinds)


def _check_header(file: Path, columns: dict[str, list[str]], names: list[str] | None) -> None:
    """Raises UserError for a CSV file whose first row names no question, as where it has no header."""
    if file.suffix != ".csv" or names or not file.is_file():
        return
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as rows:
        try:
            header = next(csv.reader(rows), [])
        except csv.Error:
            return  # reading the rows says what is wrong
    if not set(header) & set(columns["question"]):
        shown = ", ".join(header)[:120]
        raise UserError(
            f"{file} has no column {' or '.join(columns['question'])}; its first row is: {shown}. "
            "If that is a question already, the file has no header: name its columns, as in "
            "--columns question,A,B,C,D,answer. If it is the header, name the column with --map question=COLUMN."
        )


def _questions(
    files: list[Path],
    readings: list[Reading],
    dataset: str | None,
    licence: str | None,
    names: list[str] | None,
    outcome: Outcome,
) -> Iterator[Question]:
    """The questions of all files, each file by its reading; `outcome` counts them and collects the other rows."""
    places: dict[str, str] = {}  # where each id was given
    for file_number, (file, how) in enumerate(zip(files, readings, strict=True), 1):
        revision = file_hash(file)[:16] if file.is_file() else None
        for number, row in read_rows(file, names):
            outcome.counts["read"] += 1
            # Rows of several files keep apart.
            name = f"{file_number}-{number}" if len(files) > 1 else str(number)
            try:
                if isinstance(row, Refused):
                    raise row
                source = {"name": file.name, "row": number, "revision": revision, "licence": licence}
                question = question_of(Cells(row, how), file, name, dataset, source)
                if question.id in places:
                    raise Refused("id", f"{question.id} was given before, in {places[question.id]}")
            except Refused as error:
                outcome.counts["refused"] += 1
                outcome.refused.append({"file": str(file), "row": number, "column": error.column, "why": error.why})
                continue
            places[question.id] = f"{file}, row {number}"
            outcome.counts["kept"] += 1
            outcome.picture_changes.update(itertools.chain(*question.extra.get("picture_changes", [])))
            yield question
