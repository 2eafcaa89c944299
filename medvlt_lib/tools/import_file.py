"""`medvlt import`: questions from JSONL, JSON, CSV or parquet, with a look at whole columns before a key is believed.

Files are read twice: first to see what a column of keys counts from and whether answers may be "maybe", then for the
questions. Nothing is written before the first of them were shown.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import file_hash, write_json, write_jsonl
from medvlt_lib.core.records import Question, write_questions
from medvlt_lib.data.rows import Refused, read_rows
from medvlt_lib.tools.import_question import COLUMNS, Cells, Reading, counted, question_of, text_and_options

PREVIEW = 3  # questions that are shown before anything is written


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
    Raises UserError for a bad mapping, a file that cannot be read, a column that no row has, keys that may be counted
    from another number, or an `out` in use.
    """
    columns = _columns(maps)
    if (out / "questions.parquet").exists():
        raise UserError(f"{out}/questions.parquet exists; choose another --out.")
    for file in files:
        _check_header(file, columns, names)
    how = _look(files, Reading(columns, options_in_question=options_in_question), index_from, names)
    refused: list[dict] = []
    counts = {"read": 0, "kept": 0, "refused": 0}
    questions = _questions(files, how, dataset, licence, names, refused, counts)
    first = list(itertools.islice(questions, PREVIEW))
    if not first:
        example = f"; the first: {_sentence(refused[0])}" if refused else ""
        raise UserError(
            f"no row of {', '.join(map(str, files))} could be imported{example}; "
            "see `medvlt import --help` for the columns."
        )
    approve(first)
    every = tqdm(itertools.chain(first, questions), desc="questions", unit="question")
    write_questions(every, out / "questions.parquet")
    if refused:
        write_jsonl(out / "refused.jsonl", refused)
    keys = {"index_column": how.index_column, "index_from": how.index_from} if how.index_column else {}
    write_json(
        out / "import.json",
        {"files": [str(f) for f in files], "columns": columns, "licence": licence, **keys, **counts},
    )
    return counts


def _sentence(row: dict) -> str:
    return f"{row['file']}, row {row['row']}, column {row['column']}: {row['why']}"


def _columns(maps: list[str]) -> dict[str, list[str]]:
    columns = {field: list(names) for field, names in COLUMNS.items()}
    for pair in maps:
        field, sign, names = pair.partition("=")
        if not sign or field not in COLUMNS or not names:
            raise UserError(f"--map {pair}: write it as FIELD=COLUMN, with a FIELD of {', '.join(COLUMNS)}.")
        columns[field] = names.split(",")
    return columns


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


@dataclass
class _Keys:
    """What the answers of all rows look like, as numbers that count options."""

    rows: int = 0  # rows with an answer
    numbers: int = 0  # of which it is a number
    texts: int = 0  # of which it is also an option's text
    whole: int = 0  # of which it is a number and no text in quotes
    smallest: int = 999
    zeros: int = 0
    at_end: int = 0  # rows whose number is the number of options, which counting from 0 does not reach
    decisions: int = 0  # rows that answer "maybe"

    def see(self, value: object, options: dict[str, str]) -> None:
        number, text = counted(value), str(value).strip().casefold()
        self.rows += 1
        self.decisions += text == "maybe"
        if number is None:
            return
        self.numbers += 1
        self.whole += not isinstance(value, str)
        self.texts += text in (option.strip().casefold() for option in options.values())
        if number >= 0:
            self.smallest = min(self.smallest, number)
            self.zeros += number == 0
            self.at_end += number == len(options)


def _look(files: list[Path], how: Reading, index_from: int | None, names: list[str] | None) -> Reading:
    """The reading with what whole columns say: which one counts options, from what, and whether there is a "maybe".

    Raises UserError where a column may be counted from another number than it would be read from.
    """
    seen: dict[str, _Keys] = {}
    for file in files:
        for _, row in read_rows(file, names):
            cells = Cells({} if isinstance(row, Refused) else row, how)
            for field in ("answer_index", "answer"):
                column, value = cells.find(field)
                if value is not None:
                    seen.setdefault(column, _Keys()).see(value, _options_or_none(cells))
    answers = [seen[column] for column in how.columns["answer"] if column in seen]
    maybe = any(keys.decisions for keys in answers)
    column = next((column for column in how.columns["answer_index"] if column in seen), None)
    column = column or next((c for c in how.columns["answer"] if c in seen and _counts(c, seen[c])), None)
    if column is None:
        return replace(how, maybe=maybe)
    return replace(how, maybe=maybe, index_column=column, index_from=_first_number(column, seen[column], index_from))


def _options_or_none(cells: Cells) -> dict[str, str]:
    try:
        return text_and_options(cells)[1]
    except Refused:
        return {}


def _counts(column: str, keys: _Keys) -> bool:
    """Whether a column of answers counts options. Raises UserError where its numbers are options' texts as well."""
    if keys.numbers < keys.rows or keys.numbers == 0:
        return False
    if keys.texts and keys.whole:
        raise UserError(
            f"the numbers in column {column} could count options or be their texts; say which, with "
            f"--map answer_index={column} or, as texts, with --map answer={column} after writing them in quotes."
        )
    return keys.texts < keys.rows


def _first_number(column: str, keys: _Keys, index_from: int | None) -> int:
    """What a column of keys counts from. Raises UserError where rows would be refused at one end only."""
    if index_from in (None, 0) and keys.at_end and not keys.zeros:
        raise UserError(
            f"column {column} runs from {keys.smallest} to the number of options in {keys.at_end} rows, and is "
            "never 0: it seems to be counted from 1, and counted from 0 every key would be wrong; add --index-from 1."
        )
    if index_from == 1 and keys.zeros and not keys.at_end:
        raise UserError(
            f"column {column} is 0 in {keys.zeros} rows and never the number of options: it seems to be counted from "
            "0, and counted from 1 every key would be wrong; leave --index-from 1 out."
        )
    return index_from or 0


def _questions(
    files: list[Path],
    how: Reading,
    dataset: str | None,
    licence: str | None,
    names: list[str] | None,
    refused: list[dict],
    counts: dict[str, int],
) -> Iterator[Question]:
    """The questions of all files; `refused` collects the other rows, and `counts` counts both."""
    places: dict[str, str] = {}  # where each id was given
    for file_number, file in enumerate(files, 1):
        revision = file_hash(file)[:16] if file.is_file() else None
        for number, row in read_rows(file, names):
            counts["read"] += 1
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
                counts["refused"] += 1
                refused.append({"file": str(file), "row": number, "column": error.column, "why": error.why})
                continue
            places[question.id] = f"{file}, row {number}"
            counts["kept"] += 1
            yield question
