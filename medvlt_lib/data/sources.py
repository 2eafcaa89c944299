"""Where questions come from, by the prefix of a source's name in the profile.

`phantom:FAMILIES` is the embedded world; `hub:NAME` a data set in MedVLThinker's published columns, read through
`datasets`; `split:train_text` (or `split:train_image`) holds rows out of that training set; anything else is a file
written by `write_questions`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random

from medvlt_lib.config import Data
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.records import Question, UserError, pixel_id, read_questions

SETS = ("train_text", "train_image", "traces_image", "validation", "test")
SPLITS = {"train_text": "train", "train_image": "train", "traces_image": "train", "validation": "validation", "test": "test"}


def load_set(name: str, data: Data) -> list[Question]:
    """The questions of one set ('train_text', ...) that a profile's data section names.

    Raises UserError for a file that is missing or torn, a Hub that cannot be reached, or a set that cannot be split.
    """
    source, size = getattr(data, name), getattr(data, f"{name}_size")
    kind, _, rest = source.partition(":")
    if kind == "phantom":
        noisy = name == "train_image"  # machine-written image data is the noisy kind in the papers
        noise = {"label_noise": data.label_noise, "trace_noise": data.trace_noise} if noisy else {}
        return make_questions(rest, SPLITS[name], size, data.seed, **noise)
    if kind == "split":
        if name != "validation" or rest not in ("train_text", "train_image") or getattr(data, rest).startswith("phantom:"):
            raise UserError(
                f"data.{name} = {source}: only data.validation can be split:train_text or split:train_image, of a hub: set or a file."
            )
        return _held_out(_rows(rest, data), data)
    questions = _rows(name, data)
    if data.validation == f"split:{name}":
        held = {q.id for q in _held_out(questions, data)}
        questions = [q for q in questions if q.id not in held]
    return questions


def _rows(name: str, data: Data) -> list[Question]:
    """The first rows of a set's hub: source or file, before anything is held out."""
    source, size = getattr(data, name), getattr(data, f"{name}_size")
    if source.startswith("hub:"):
        return from_hub(source.removeprefix("hub:"), "test" if name == "test" else "train", size)
    return read_questions(Path(source))[:size]


def _held_out(questions: list[Question], data: Data) -> list[Question]:
    """`validation_size` random rows of a training set, which that set then leaves out. Raises UserError if it has no more."""
    if len(questions) <= data.validation_size:
        raise UserError(
            f"data.validation_size {data.validation_size} would leave nothing of {len(questions)} training questions; lower it."
        )
    return Random(data.seed).sample(questions, data.validation_size)


def from_hub(name: str, split: str, size: int) -> list[Question]:
    """The first `size` rows of a data set in MedVLThinker's columns, streamed. Raises UserError without a network."""
    from datasets import load_dataset

    try:
        rows = load_dataset(name, split=split, streaming=True).take(size)
        return [from_published(row, name, split, i) for i, row in enumerate(rows)]
    except KeyError as error:
        raise UserError(f"{name} has no column {error}; data.sources reads MedVLThinker's published columns.") from error
    except (OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"cannot read {name} from the Hub ({reason}); check the name and the network, or name a local file.") from error


def from_published(row: dict, name: str, split: str, index: int) -> Question:
    """A row in MedVLThinker's columns (options as a JSON string, `dataset_index`, ...) as a Question."""
    images = [_png(i) for i in row.get("images") or []]
    kept = {k: row[k] for k in ("dataset_name", "dataset_index", "hash", "misc", "text") if k in row}
    return Question(
        id=f"{row.get('dataset_name', name)}-{row.get('dataset_index', index)}",
        dataset=row.get("dataset_name") or name,
        split=split,
        modality="image" if images else "text",
        images=[png for png, _ in images],
        image_ids=[pixels for _, pixels in images],
        question=row["question"],
        options=json.loads(row["options"]) if isinstance(row["options"], str) else row["options"],
        answer_label=row["answer_label"],
        answer=row["answer"],
        reasoning=row.get("reasoning"),
        source={"name": name, "revision": None, "row": index, "licence": None},
        extra=kept,
    )


def _png(image) -> tuple[bytes, str]:
    rgb, buffer = image.convert("RGB"), io.BytesIO()
    rgb.save(buffer, "PNG")
    return buffer.getvalue(), pixel_id(rgb)
