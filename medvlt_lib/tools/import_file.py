"""`medvlt import`: questions from anybody's JSONL, CSV or parquet, with a column mapping and a report of refused rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import write_json, write_jsonl
from medvlt_lib.core.records import LETTERS, Question, write_questions
from medvlt_lib.data.closed import yes_no
from medvlt_lib.data.rows import Refused, fit_image, image_bytes, label_of, options_of, plain_text, read_rows

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
            f"no row of {', '.join(map(str, files))} could be imported{example}; see `medvlt import --help` for the columns."
        )
    write_questions(tqdm(_chain(first, questions), desc="questions", unit="question"), out / "questions.parquet")
    if refused:
        write_jsonl(out / "refused.jsonl", refused)
    write_json(
        out / "import.json", {"files": [str(f) for f in files], "columns": columns, "licence": licence, **counts}
    )
    return counts


def _chain(first: Question, rest: Iterator[Question]) -> Iterator[Question]:
    yield first
    yield from rest


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


def _questions(files, columns, dataset, licence, refused, counts) -> Iterator[Question]:
    seen: dict[str, str] = {}
    for place, file in enumerate(files, 1):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else None
        for number, row in read_rows(file):
            counts["read"] += 1
            try:
                if isinstance(row, Refused):
                    raise row
                name = f"{place}-{number}" if len(files) > 1 else str(number)  # rows of several files keep apart
                question = _question(
                    row, columns, file, name, dataset, {"row": number, "revision": digest, "licence": licence}
                )
                if question.id in seen:
                    raise Refused("id", f"{question.id} was given before, in {seen[question.id]}")
                seen[question.id] = f"{file}, row {number}"
            except Refused as error:
                counts["refused"] += 1
                refused.append({"file": str(file), "row": number, "column": error.column, "why": error.why})
                continue
            counts["kept"] += 1
            yield question


def _question(row: dict, columns: dict, file: Path, number: str, dataset: str | None, source: dict) -> Question:
    get = lambda field: next(
        ((n, row[n]) for n in columns[field] if row.get(n) not in (None, "")), (columns[field][0], None)
    )
    column, text = get("question")
    if not isinstance(text, str) or not text.strip():
        raise Refused(column, "there is no question; name its column with --map question=COLUMN")
    plain_text(text, column)
    options, label = _answer(row, columns, get)
    if file.suffix == ".csv" and any("\n" in option for option in options.values()):
        raise Refused(columns["options"][0], "an option runs over lines; close the quotes of this or an earlier row")
    pictures = [fit_image(image_bytes(v, file.parent, c), column=c)[:2] for c, v in _images(get("images"))]
    name = dataset or get("dataset")[1] or file.name.split(".")[0]
    return Question(
        id=str(get("id")[1] if get("id")[1] is not None else f"{name}-{number}"),
        dataset=str(name),
        split=str(row.get("split") or "imported"),
        modality="image" if pictures else "text",
        question=text.strip(),
        options=options,
        answer_label=label,
        answer=options[label],
        image_modality=plain_text(get("image_modality")[1], get("image_modality")[0]),
        images=[encoded for encoded, _ in pictures],
        image_ids=[pixels for _, pixels in pictures],
        reasoning=plain_text(get("reasoning")[1], get("reasoning")[0]),
        source={"name": file.name, **source},
    )


def _answer(row: dict, columns: dict, get) -> tuple[dict[str, str], str]:
    answer_column, answer = get("answer")
    lettered = [letter for letter in LETTERS if row.get(letter) not in (None, "")]
    if len(columns["options"]) > 1 and columns["options"] != list(COLUMNS["options"]):
        options = options_of(
            [row[n] for n in columns["options"] if row.get(n) not in (None, "")], ",".join(columns["options"])
        )
    elif get("options")[1] is not None:
        options = options_of(get("options")[1], get("options")[0])
    elif len(lettered) >= 2:
        options = options_of({letter: row[letter] for letter in lettered})
    elif closed := yes_no(answer):
        options = closed
    else:
        raise Refused(columns["options"][0], "there are no options; name their column with --map options=COLUMN")
    for text in options.values():
        plain_text(text, columns["options"][0])
    index_column, index = get("answer_index")
    if index is not None:
        digits = str(index).removesuffix(".0")
        if not digits.isdecimal() or int(digits) >= len(options):
            raise Refused(index_column, f"{index!r} is no number from 0 to {len(options) - 1}")
        return options, LETTERS[int(digits)]
    label = label_of(answer, options, answer_column)
    text = row.get("answer")
    if (
        answer_column != "answer"
        and "answer" in columns["answer"]
        and text not in (None, "")
        and label_of(text, options, "answer") != label
    ):
        raise Refused("answer", f"{str(text)[:60]!r} is not option {label}, which {answer_column} names")
    return options, label


def _images(named: tuple[str, Any]) -> list[tuple[str, Any]]:
    column, value = named
    if value is None:
        return []
    return [(column, v) for v in value] if isinstance(value, list) else [(column, value)]
