"""The rows that every stage reads and writes: Question, Completion, Verdict.

Plain data classes with a check at construction, a dictionary form and two file forms (parquet and JSONL).
What is left out: reading published data sets (medvlt_lib.data) and grading (medvlt_lib.grading). No torch here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.files import atomic_write, read_jsonl

if TYPE_CHECKING:
    import pyarrow as pa

LETTERS = "ABCDEFGHIJ"
ROW_GROUP = 500


@dataclasses.dataclass
class Question:
    """One multiple-choice question, in the form every stage reads and writes.

    `options` maps letters A, B, ... (in order) to texts; `answer` is the text of `answer_label`. `images` holds
    file paths or encoded bytes; `image_ids` the SHA-256 of their RGB pixels (see `pixel_id`).
    """

    id: str
    dataset: str
    split: str
    modality: Literal["text", "image"]
    question: str
    options: dict[str, str]
    answer_label: str
    answer: str
    image_modality: str | None = None
    images: list[str | bytes] = dataclasses.field(default_factory=list)
    image_ids: list[str] = dataclasses.field(default_factory=list)
    reasoning: str | None = None
    family: str | None = None
    difficulty: int | None = None
    noise: dict[str, bool] | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.modality not in ("text", "image"):
            raise UserError(f"question {self.id}: modality is '{self.modality}'; it must be 'text' or 'image'.")
        if list(self.options) != list(LETTERS[: len(self.options)]) or len(self.options) < 2:
            raise UserError(
                f"question {self.id}: option letters are {list(self.options)}; "
                "give at least two, lettered A, B, C ... in order."
            )
        if self.options.get(self.answer_label) != self.answer:
            raise UserError(
                f"question {self.id}: answer_label '{self.answer_label}' does not name the option '{self.answer}'; "
                "correct one of them."
            )
        if (self.modality == "image") != bool(self.images):
            raise UserError(
                f"question {self.id}: modality is '{self.modality}' but it has {len(self.images)} images; "
                "correct one of them."
            )

    @property
    def group(self) -> str:
        """What accuracies are counted by: the family where there is one, else the data set."""
        return self.family or self.dataset

    @property
    def cluster(self) -> str:
        """What questions on one picture share: its pixel id; a text question is a cluster of its own."""
        return self.image_ids[0] if self.image_ids else self.id


@dataclasses.dataclass
class Completion:
    """One sampled answer to a question: text, token ids, the engine's log-probabilities where it has them, and the
    prompt's token ids as the model saw them (image tokens expanded; empty where not known). `tokens`: the number
    of the answer's tokens, also where their ids are not known. `cost`: US dollars that a server charges for it, where
    its prices are known. A `refused` answer is one that a server did not give for its content, an `error` one that did
    not come."""

    question_id: str
    sample: int
    text: str
    token_ids: list[int]
    logprobs: list[float] | None
    finish_reason: Literal["stop", "length", "refused", "error"]
    prompt_ids: list[int] = dataclasses.field(default_factory=list)
    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        if self.tokens is None:
            self.tokens = len(self.token_ids)


@dataclasses.dataclass(slots=True)
class Verdict:
    """What a grader says of one completion (see medvlt_lib.grading)."""

    letter: str | None
    correct: bool
    how: str
    well_formed: bool
    truncated: bool
    reward: float | None = None
    online: bool | None = None


def to_row(question: Question) -> dict[str, Any]:
    """A question as one flat row for parquet: the free-form fields become JSON strings."""
    row = dataclasses.asdict(question)
    row["images"] = image_cells(question)
    for field in ("options", "noise", "source", "extra"):
        row[field] = json.dumps(row[field], ensure_ascii=False)
    return row


def image_cells(question: Question) -> list[dict[str, Any]]:
    """A question's images as `datasets` stores images: {bytes, path}, of which one is None."""
    return [{"bytes": i, "path": None} if isinstance(i, bytes) else {"bytes": None, "path": i} for i in question.images]


def from_row(row: dict[str, Any]) -> Question:
    """The inverse of `to_row`. Raises UserError for a row that is not a question."""
    names = {f.name for f in dataclasses.fields(Question)}
    if unknown := set(row) - names:
        raise UserError(f"a question row has the unknown column '{sorted(unknown)[0]}'; remove or rename it.")
    try:
        values = dict(row)
        values["images"] = [i["bytes"] if i["bytes"] is not None else i["path"] for i in row.get("images") or []]
        values["image_ids"] = list(row.get("image_ids") or [])
        for field in ("options", "noise", "source", "extra"):
            if isinstance(values.get(field), str):
                values[field] = json.loads(values[field])
        return Question(**values)
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"row {row.get('id', '?')} is not a question: {error}; see Question in medvlt_lib/core/records.py."
        ) from error


def write_questions(questions: Iterable[Question], path: str | os.PathLike) -> None:
    """Write questions to a .parquet file with their images, or to a .jsonl file, which holds text and paths only."""
    path = Path(path)
    if path.suffix == ".parquet":
        atomic_write(path, lambda tmp: write_rows(map(to_row, questions), question_schema(), tmp))
    elif path.suffix == ".jsonl":
        atomic_write(path, lambda tmp: _write_jsonl(questions, tmp))
    else:
        raise UserError(f"cannot write {path}: the file name must end in .parquet or .jsonl.")


def read_questions(path: str | os.PathLike) -> list[Question]:
    """Read a file written by `write_questions`. Raises UserError for a missing, torn or foreign file."""
    return list(iterate_questions(path))


def iterate_questions(path: str | os.PathLike) -> Iterator[Question]:
    """The questions of a file, without holding them all. Raises UserError as `read_questions`."""
    path = Path(path)
    with readable(path):
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            for batch in pq.ParquetFile(path).iter_batches(batch_size=ROW_GROUP):
                yield from map(from_row, batch.to_pylist())
        else:
            yield from map(from_row, read_jsonl(path))


def count_questions(path: str | os.PathLike) -> int:
    """How many questions a file holds, without reading them. Raises UserError for a missing or torn file."""
    path = Path(path)
    with readable(path):
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.ParquetFile(path).metadata.num_rows
        with open(path, "rb") as file:
            return sum(1 for _ in file)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a question file is read into a UserError that names the file."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path.")
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # pyarrow raises a family of its own for torn files
        raise UserError(f"{path} cannot be read ({first_line(error)}); write it again.") from error


def write_rows(rows: Iterable[dict], schema: pa.Schema, path: str | os.PathLike) -> None:
    """Rows to a parquet file in groups of ROW_GROUP, so that only so many are held at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(rows, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _write_jsonl(questions: Iterable[Question], path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for question in questions:
            row = to_row(question)
            if any(isinstance(i, bytes) for i in question.images):
                raise UserError(f"question {question.id} holds image bytes, which JSONL cannot; write a .parquet file.")
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def question_schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    image = pa.struct([("bytes", pa.binary()), ("path", text)])
    kinds = {"images": pa.list_(image), "image_ids": pa.list_(text), "difficulty": pa.int64()}
    return pa.schema([(f.name, kinds.get(f.name, text)) for f in dataclasses.fields(Question)])
