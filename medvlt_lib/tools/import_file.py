"""`medvlt import`: questions from JSONL, CSV or parquet, with a column mapping and a report of refused rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import file_hash, write_json, write_jsonl
from medvlt_lib.core.records import LETTERS, Question, write_questions
from medvlt_lib.data.closed import yes_no
from medvlt_lib.data.pictures import fit_image, image_bytes, picture_fields
from medvlt_lib.data.rows import Refused, label_of, options_of, plain_text, read_rows

COLUMNS = {
    "id": ("id", "question_id"),
    "dataset": ("dataset", "dataset_name"),
    "question": ("question", "stem"),
    "options": ("options", "choices"),
    "answer": ("answer_label", "label", "answer"),
    "answer_index": ("answer_index",),
    "images": ("images", "image"),
    "reasoning": ("reasoning", "explanation"),
    "image_modality": ("image_modality",),
}


@dataclass(frozen=True)
class Cells:
    """One row of a file, read through the mapping of a question's fields to columns."""

    row: dict[str, Any]
    columns: dict[str, list[str]]

    def find(self, field: str) -> tuple[str, Any]:
        """(column, value) of the first column of a field that is filled; (its first column, None) where none is."""
        filled = ((column, self.row[column]) for column in self.columns[field] if self.has(column))
        return next(filled, (self.columns[field][0], None))

    def has(self, column: str) -> bool:
        return self.row.get(column) not in (None, "")


def import_files(
    files: list[Path], out: Path, maps: list[str], dataset: str | None, licence: str | None
) -> dict[str, int]:
    """Writes questions.parquet, import.json and, where rows were refused, refused.jsonl to `out`; returns the counts.

    Raises UserError for a bad mapping, a file that cannot be read, a column that no row has, or an `out` in use.
    """
    columns = _columns(maps)
    if (out / "questions.parquet").exists():
        raise UserError(f"{out}/questions.parquet exists; choose another --out.")
    refused: list[dict] = []
    counts = {"read": 0, "kept": 0, "refused": 0}
    questions = _questions(files, columns, dataset, licence, refused, counts)
    first = next(questions, None)
    if first is None:
        example = f"; the first: {_sentence(refused[0])}" if refused else ""
        raise UserError(
            f"no row of {', '.join(map(str, files))} could be imported{example}; "
            "see `medvlt import --help` for the columns."
        )
    every = tqdm(itertools.chain([first], questions), desc="questions", unit="question")
    write_questions(every, out / "questions.parquet")
    if refused:
        write_jsonl(out / "refused.jsonl", refused)
    write_json(
        out / "import.json", {"files": [str(f) for f in files], "columns": columns, "licence": licence, **counts}
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


def _questions(
    files: list[Path],
    columns: dict[str, list[str]],
    dataset: str | None,
    licence: str | None,
    refused: list[dict],
    counts: dict[str, int],
) -> Iterator[Question]:
    """The questions of all files; `refused` collects the other rows, and `counts` counts both."""
    places: dict[str, str] = {}  # where each id was given
    for file_number, file in enumerate(files, 1):
        revision = file_hash(file)[:16] if file.is_file() else None
        for number, row in read_rows(file):
            counts["read"] += 1
            # Rows of several files keep apart.
            name = f"{file_number}-{number}" if len(files) > 1 else str(number)
            try:
                if isinstance(row, Refused):
                    raise row
                source = {"name": file.name, "row": number, "revision": revision, "licence": licence}
                question = _question(Cells(row, columns), file, name, dataset, source)
                if question.id in places:
                    raise Refused("id", f"{question.id} was given before, in {places[question.id]}")
            except Refused as error:
                counts["refused"] += 1
                refused.append({"file": str(file), "row": number, "column": error.column, "why": error.why})
                continue
            places[question.id] = f"{file}, row {number}"
            counts["kept"] += 1
            yield question


def _question(cells: Cells, file: Path, number: str, dataset: str | None, source: dict[str, Any]) -> Question:
    column, text = cells.find("question")
    if not isinstance(text, str) or not text.strip():
        raise Refused(column, "there is no question; name its column with --map question=COLUMN")
    plain_text(text, column)
    options = _options(cells)
    label = _label(cells, options)
    if file.suffix == ".csv" and any("\n" in option for option in options.values()):
        raise Refused(
            cells.columns["options"][0], "an option runs over lines; close the quotes of this or an earlier row"
        )
    column, images = cells.find("images")
    images = images if isinstance(images, list) else [] if images is None else [images]
    pictures = [fit_image(image_bytes(image, file.parent, column), column=column) for image in images]
    name = dataset or cells.find("dataset")[1] or file.name.split(".")[0]
    own_id = cells.find("id")[1]
    modality_column, modality = cells.find("image_modality")
    reasoning_column, reasoning = cells.find("reasoning")
    return Question(
        id=f"{name}-{number}" if own_id is None else str(own_id),
        dataset=str(name),
        split=str(cells.row.get("split") or "imported"),
        modality="image" if pictures else "text",
        question=text.strip(),
        options=options,
        answer_label=label,
        answer=options[label],
        image_modality=plain_text(modality, modality_column),
        reasoning=plain_text(reasoning, reasoning_column),
        source=source,
        **picture_fields(pictures, {}),
    )


def _options(cells: Cells) -> dict[str, str]:
    """A row's options: from columns of their own, from one column, from columns A, B, ..., or Yes and No."""
    columns = cells.columns["options"]
    column, value = cells.find("options")
    lettered = [letter for letter in LETTERS if cells.has(letter)]
    if len(columns) > 1 and columns != list(COLUMNS["options"]):
        options = options_of([cells.row[c] for c in columns if cells.has(c)], ",".join(columns))
    elif value is not None:
        options = options_of(value, column)
    elif len(lettered) >= 2:
        options = options_of({letter: cells.row[letter] for letter in lettered})
    elif closed := yes_no(cells.find("answer")[1]):
        options = closed
    else:
        raise Refused(columns[0], "there are no options; name their column with --map options=COLUMN")
    for text in options.values():
        plain_text(text, columns[0])
    return options


def _label(cells: Cells, options: dict[str, str]) -> str:
    """The gold letter: from an index, or from a letter or an option's text, which must not contradict each other."""
    column, index = cells.find("answer_index")
    if index is not None:
        digits = str(index).removesuffix(".0")
        if not digits.isdecimal() or int(digits) >= len(options):
            raise Refused(column, f"{index!r} is no number from 0 to {len(options) - 1}")
        return LETTERS[int(digits)]
    column, value = cells.find("answer")
    label = label_of(value, options, column)
    second = column != "answer" and "answer" in cells.columns["answer"] and cells.has("answer")
    if second and label_of(cells.row["answer"], options, "answer") != label:
        text = str(cells.row["answer"])[:60]
        raise Refused("answer", f"{text!r} is not option {label}, which {column} names")
    return label
