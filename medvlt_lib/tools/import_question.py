"""One row of somebody else's file as a question: where its fields stand, its options, its key, its pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medvlt_lib.core.records import LETTERS, Question
from medvlt_lib.data.closed import yes_no
from medvlt_lib.data.pictures import fit_image, image_bytes, picture_fields
from medvlt_lib.data.rows import Refused, label_of, letter_in, named_by_text, options_of, plain_text

# The columns that each field is looked for in, the first filled one of which counts. Beside plain names those of
# MedMCQA (opa, cop, exp), MedQA (answer_idx), PubMedQA (QUESTION, CONTEXTS, final_decision), MMMU-Pro (image_1, ...)
# and MedVLM-R1 (problem, solution).
COLUMNS = {
    "id": ("id", "question_id", "pubid"),
    "dataset": ("dataset", "dataset_name"),
    "question": ("question", "stem", "QUESTION", "problem"),
    "context": ("context", "CONTEXTS"),
    "options": ("options", "choices"),
    "answer": ("answer_label", "label", "answer_idx", "answer", "final_decision", "solution"),
    "answer_index": ("answer_index", "cop"),
    "images": ("images", "image"),
    "reasoning": ("reasoning", "explanation", "exp", "LONG_ANSWER", "long_answer"),
    "image_modality": ("image_modality",),
}
OPTION_COLUMNS = (
    list(LETTERS),
    [f"op{letter.lower()}" for letter in LETTERS],
    [f"option_{letter.lower()}" for letter in LETTERS],
    [f"ending{i}" for i in range(len(LETTERS))],
)
SUBJECTS = ("subject", "subject_name", "topic_name")  # kept in a question's `extra` as they are
DECISIONS = {"A": "yes", "B": "no", "C": "maybe"}
_ITEM = re.compile(r"(?:^|(?<=[\s,;]))\(?([A-J])[).:]\s+", re.MULTILINE)
_TAGGED = re.compile(r"\s*<answer>(.*)</answer>\s*", re.DOTALL)
_PICTURE = re.compile(r"<image (\d+)>")

# What a column of keys holds: numbers that count options from 0 or from 1, letters, or options' texts.
Kind = Literal[0, 1, "letter", "text"]


@dataclass(frozen=True)
class Reading:
    """How the rows of a file are read: fields to columns, what each column of keys holds, and more.

    A column of keys without a kind holds letters or texts, and none of its letters is another option's text.
    """

    columns: dict[str, list[str]]
    kinds: dict[str, Kind | None] = field(default_factory=dict)
    maybe: bool = False  # answers are yes, no or maybe
    options_in_question: bool = False


@dataclass(frozen=True)
class Cells:
    """One row of a file, read through the mapping of a question's fields to columns."""

    row: dict[str, Any]
    how: Reading

    def find(self, field: str) -> tuple[str, Any]:
        """(column, value) of the first column of a field that is filled; (its first column, None) where none is."""
        columns = self.how.columns[field]
        filled = ((column, self.row[column]) for column in columns if self.has(column))
        return next(filled, (columns[0] if columns else field, None))

    def key(self) -> tuple[str, Any]:
        """(column, value) of the row's key: a number that counts options comes before the other answers."""
        column, value = self.find("answer_index")
        return (column, value) if value is not None else self.find("answer")

    def has(self, column: str) -> bool:
        return self.row.get(column) not in (None, "")


def question_of(cells: Cells, file: Path, number: str, dataset: str | None, source: dict[str, Any]) -> Question:
    """A row as a question. Raises Refused with the column at fault."""
    text, options = text_and_options(cells)
    label = _label(cells, options)
    if file.suffix == ".csv" and any("\n" in option for option in options.values()):
        raise Refused(
            cells.how.columns["options"][0], "an option runs over lines; close the quotes of this or an earlier row"
        )
    images = _images(cells, " ".join((text, *options.values())))
    pictures = [fit_image(image_bytes(image, file.parent, column), column=column) for column, image in images]
    name = dataset or cells.find("dataset")[1] or file.name.split(".")[0]
    own_id = cells.find("id")[1]
    modality_column, modality = cells.find("image_modality")
    reasoning_column, reasoning = cells.find("reasoning")
    return Question(
        id=f"{name}-{number}" if own_id is None else str(own_id),
        dataset=str(name),
        split=str(cells.row.get("split") or "imported"),
        modality="image" if pictures else "text",
        question=text,
        options=options,
        answer_label=label,
        answer=options[label],
        image_modality=plain_text(modality, modality_column),
        reasoning=plain_text(reasoning, reasoning_column),
        source=source,
        **picture_fields(pictures, _subjects(cells)),
    )


def text_and_options(cells: Cells) -> tuple[str, dict[str, str]]:
    """A row's question, behind its context where it has one, and its options. Raises Refused."""
    column, text = cells.find("question")
    if not isinstance(text, str) or not text.strip():
        raise Refused(column, "there is no question; name its column with --map question=COLUMN")
    plain_text(text, column)
    text = text.strip()
    if cells.how.options_in_question:
        text, options = split_question(text, column)
    else:
        options = _options(cells)
    column, context = cells.find("context")
    if isinstance(context, dict):
        context = context.get("contexts")
    if isinstance(context, list):
        context = "\n".join(map(str, context))
    context = plain_text(context, column)
    return (f"{context.strip()}\n\n{text}" if context else text), options


def split_question(text: str, column: str) -> tuple[str, dict[str, str]]:
    """The question without the options that its text ends with ("A) heart, B) lung"), and those. Raises Refused."""
    items = list(_ITEM.finditer(text))
    first = max((i for i, item in enumerate(items) if item.group(1) == "A"), default=len(items))
    found = [item for item, letter in zip(items[first:], LETTERS, strict=False) if item.group(1) == letter]
    if len(found) < 2 or len(found) != len(items) - first:
        raise Refused(column, "its text holds no options A, B ... in order at its end")
    ends = [*(item.start() for item in found[1:]), len(text)]
    texts = [text[item.end() : end].strip(" ,;\n") for item, end in zip(found, ends, strict=True)]
    texts[-1], _, rest = texts[-1].partition("\n")
    asked = f"{text[: found[0].start()].strip()}\n{rest.strip()}".strip()
    if not asked:
        raise Refused(column, "there is no question before its options")
    return asked, options_of(texts, column)


def _options(cells: Cells) -> dict[str, str]:
    """A row's options: from columns of their own, from one column, from columns A, B, ..., or yes, no (and maybe)."""
    columns = cells.how.columns["options"]
    column, value = cells.find("options")
    own = next((names for names in OPTION_COLUMNS if sum(map(cells.has, names)) >= 2), None)
    if len(columns) > 1 and columns != list(COLUMNS["options"]):
        column, options = ",".join(columns), _column_options(cells, columns)
    elif value is not None:
        options = _without_letters(options_of(value, column))
    elif own:
        column, options = own[0], _column_options(cells, own)
    elif cells.how.maybe:
        options = dict(DECISIONS)
    elif closed := yes_no(cells.find("answer")[1]):
        options = closed
    else:
        raise Refused(columns[0], "there are no options; name their column with --map options=COLUMN")
    for text in options.values():
        plain_text(text, column)
    return options


def _column_options(cells: Cells, columns: list[str]) -> dict[str, str]:
    """Options with a column each; one that is empty may only be followed by empty ones, else letters would move."""
    filled = [cells.has(column) for column in columns]
    if False in filled and any(filled[filled.index(False) :]):
        empty = columns[filled.index(False)]
        raise Refused(empty, "it is empty, and a later option is not; the letters would move")
    return options_of([cells.row[column] for column in columns if cells.has(column)], ",".join(columns))


def _without_letters(options: dict[str, str]) -> dict[str, str]:
    """Options "A. heart", "B. lung" without the letters that they say again."""
    bare = {k: re.sub(rf"^\(?{k}[).:]\s+", "", text.strip()) for k, text in options.items()}
    again = all(bare[k] and bare[k] != text.strip() for k, text in options.items())
    return bare if again else options


def _images(cells: Cells, text: str) -> list[tuple[str, Any]]:
    """(column, picture) of a row: one column with one or more, or columns image_1, image_2, ...

    Raises Refused where `text` names <image N>, and N would not be the number of its picture.
    """
    column, images = cells.find("images")
    if images is not None:
        found = [(column, image) for image in (images if isinstance(images, list) else [images])]
        numbers = range(1, len(found) + 1)
    else:
        numbers = [i for i in range(1, 10) if cells.has(f"image_{i}")]
        found = [(f"image_{i}", cells.row[f"image_{i}"]) for i in numbers]
    last = max(map(int, _PICTURE.findall(text)), default=0)
    missing = next((i for i in range(1, last + 1) if i not in numbers), None)
    if missing is not None:
        where = column if images is not None else f"image_{missing}"
        raise Refused(where, f"the text names <image {last}>, and picture {missing} is missing")
    return found


def _subjects(cells: Cells) -> dict[str, Any]:
    """A row's subject and topic, where its file has them."""
    found = {column: cells.row.get(column) for column in SUBJECTS if cells.has(column)}
    return {column: plain_text(value, column) for column, value in found.items() if isinstance(value, str)}


def _label(cells: Cells, options: dict[str, str]) -> str:
    """The gold letter: from a counted key, a letter or an option's text, which must not contradict each other."""
    column, value = cells.key()
    kind = cells.how.kinds.get(column)
    if isinstance(kind, int):
        number, last = counted(value), kind + len(options) - 1
        if number is None or not kind <= number <= last:
            raise Refused(column, f"{value!r} is no number from {kind} to {last}")
        label = LETTERS[number - kind]
    else:
        label = label_of(untagged(value), options, column, kind)
    if denied(cells, options, column, label):
        text = str(cells.row["answer"])[:60]
        raise Refused("answer", f"{text!r} is not option {label}, which {column} names")
    return label


def denied(cells: Cells, options: dict[str, str], column: str, label: str) -> bool:
    """Whether the column answer, beside the `column` that names a key, is neither the key's letter nor its text."""
    if column == "answer" or "answer" not in cells.how.columns["answer"] or not cells.has("answer"):
        return False
    answer = untagged(cells.row["answer"])
    return letter_in(answer, options) != label and label not in named_by_text(answer, options)


def untagged(value: Any) -> Any:
    """An answer without the <answer> tag around it."""
    tagged = _TAGGED.fullmatch(value) if isinstance(value, str) else None
    return tagged.group(1) if tagged else value


def counted(value: Any) -> int | None:
    """A number that counts options, as people write it: 2, "2" or 2.0; None for anything else."""
    digits = str(value).strip().removesuffix(".0")
    return int(digits) if re.fullmatch(r"-?[0-9]{1,3}", digits) and not isinstance(value, bool) else None
