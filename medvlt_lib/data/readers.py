"""How a row of each published data set becomes the fields of a question, and a question such a row again.

A reader takes a row, the tally of what is changed, and a chat client (or None) for options that a row lacks. It
returns dataset, question, options, label and images, and where the row has them id, reasoning, image_modality and
extra. It raises Refused for a row that cannot be used.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable

from medvlt_lib.core.records import Question, image_cells
from medvlt_lib.data.closed import closed_options
from medvlt_lib.data.rows import Refused, Tally, label_of, options_of
from medvlt_lib.rollout.openai_engine import ChatClient

Reader = Callable[[dict, Tally, ChatClient | None], dict]
# MedVLThinker's columns that a Question keeps in `extra`, so that they come back as they were.
KEPT_COLUMNS = ("dataset_name", "dataset_index", "hash", "misc", "text")


def unified(row: dict, tally: Tally, client: ChatClient | None) -> dict:
    """A row in MedVLThinker's columns (docs/data.md of its release)."""
    options = options_of(row["options"])
    label = label_of(row["answer_label"], options, "answer_label")
    if row.get("answer") is not None and str(row["answer"]).strip() != options[label].strip():
        raise Refused("answer", f"{str(row['answer'])[:60]!r} is not the text of option {label}")
    name = row.get("dataset_name") or "unnamed"
    return {
        "id": f"{name}-{row['dataset_index']}" if row.get("dataset_index") is not None else None,
        "dataset": name,
        "question": row["question"],
        "options": options,
        "label": label,
        "images": row.get("images") or [],
        "reasoning": row.get("reasoning") or None,
        "extra": {k: row[k] for k in KEPT_COLUMNS if k in row},
    }


def pmc_released(row: dict, tally: Tally, client: ChatClient | None) -> dict:
    """A row of PMC-VQA's train.csv, cleaned as MedVLThinker's prepare_pmc_vqa.py does."""
    options = {}
    for letter in "ABCD":
        head, colon, text = _strip(row[f"Choice {letter}"]).partition(":")
        if not colon or _strip(head) != letter:
            raise Refused(f"Choice {letter}", "the choice does not begin with its own letter and a colon")
        options[letter] = _strip(text)
    label, answer = _strip(row["Answer_label"]), _strip(row["Answer"])
    if label not in options:
        raise Refused("Answer_label", f"{label[:20]!r} is not A, B, C or D")
    if options[label] != answer:
        raise Refused("Answer", f"it is not the text of choice {label}")
    return {
        "dataset": "pmc_vqa",
        "question": _strip(row["Question"]),
        "options": options,
        "label": label,
        "images": [row["Figure_path"]],
    }


def _strip(text: object) -> str:
    """Blanks and quotes off both ends, as released: whitespace, ' and ", no-break and hair spaces."""
    return str(text or "").strip(" \t\r\n\f\v'\"\u00a0\u200a")


def adapt_pmc(row: dict, tally: Tally, client: ChatClient | None) -> dict:
    """A row of AdaptLLM's PMC-VQA: the question loses its "Question: " and the list of choices that follows it."""
    question = re.split(r"\s*The choices are:", re.sub(r"^\s*Question: ", "", row["input"]))[0].strip()
    tally.changed["question text"] += question != row["input"]
    options = options_of({k: row[k] for k in "ABCD"}, "A")
    return {
        "dataset": "pmc_vqa",
        "question": question,
        "options": options,
        "label": label_of(row["label"], options, "label"),
        "images": [row["image"]],
    }


def adapt_closed(name: str) -> Reader:
    """Rows of AdaptLLM's PathVQA, SLAKE and VQA-RAD: the closed ones, with options."""

    def read(row: dict, tally: Tally, client: ChatClient | None) -> dict:
        if row["answer_type"] != "CLOSED":
            raise Refused("answer_type", "an open question")
        options = closed_options(row["input"], row["label"], client)
        label = label_of(row["label"], options, "label")
        digest = hashlib.sha256(f"{row['input']}{row['label']}".encode()).hexdigest()[:16]
        return {
            "dataset": name,
            "question": row["input"],
            "options": options,
            "label": label,
            "images": [row["image"]],
            "extra": {"hash": digest},
        }

    return read


def mmmu(row: dict, tally: Tally, client: ChatClient | None) -> dict:
    """A row of MMMU: multiple choice only; image markers leave the question, images keep their order."""
    if row["question_type"] != "multiple-choice":
        raise Refused("question_type", "an open question")
    try:
        options = options_of([str(o) for o in ast.literal_eval(row["options"])])
    except (ValueError, SyntaxError):
        raise Refused("options", f"{row['options'][:60]!r} is not a list") from None
    question = re.sub(r"<image \d>", "", row["question"]).strip()
    tally.changed["image markers"] += question != row["question"]
    images = [row[f"image_{i}"] for i in range(1, 8) if row.get(f"image_{i}") is not None]
    extra = {"misc": json.dumps({"id": row["id"]})}
    return {
        "id": row["id"],
        "dataset": "MMMU-medical",
        "question": question,
        "options": options,
        "label": label_of(row["answer"], options, "answer"),
        "images": images,
        "extra": extra,
    }


def medxpert(row: dict, tally: Tally, client: ChatClient | None) -> dict:
    """A row of MedXpertQA-MM: the list of choices leaves the question; images are names in images.zip."""
    question = row["question"].split("Answer Choices:")[0].strip()
    tally.changed["question text"] += question != row["question"]
    options = row["options"]
    if isinstance(options, list):  # [{"letter": ..., "content": ...}]
        options = {option["letter"]: option["content"] for option in options}
    options = options_of(options)
    extra = {"misc": json.dumps({k: row.get(k) for k in ("id", "medical_task", "body_system", "question_type")})}
    return {
        "id": row["id"],
        "dataset": "MedXpertQA-MM",
        "question": question,
        "options": options,
        "label": label_of(row["label"], options, "label"),
        "images": list(row["images"]),
        "extra": extra,
    }


MODALITIES = {"MR (Mag-netic Resonance Imaging)": "MRI", "CT(Computed Tomography)": "CT", "X-Ray": "X-ray"}


def omni(modalities: tuple[str, ...]) -> Reader:
    """OmniMedVQA's rows of some modalities, as MedVLM-R1 reads them: options as a list, the answer as text, the images'
    paths."""

    def read(row: dict, tally: Tally, client: ChatClient | None) -> dict:
        modality = MODALITIES.get(row["subset"])
        if modality not in modalities:
            raise Refused("subset", "another modality")
        options = options_of(list(row["options"]))
        return {
            "dataset": f"omnimedvqa_{modality.lower().replace('-', '')}",
            "question": row["question"],
            "options": options,
            "label": label_of(row["answer"], options, "answer"),
            "images": list(row["image"]),
            "image_modality": modality,
        }

    return read


def to_published(question: Question, index: int) -> dict:
    """A question in MedVLThinker's columns; what was read from them comes back as it was."""
    return {
        "images": image_cells(question) or None,
        "question": question.question,
        "options": json.dumps(question.options, ensure_ascii=False),
        "answer_label": question.answer_label,
        "answer": question.answer,
        "reasoning": question.reasoning,
        "dataset_name": question.group,
        "dataset_index": index,
        "hash": hashlib.sha256(f"{question.question}{question.answer}".encode()).hexdigest()[:16],
        "misc": None,
        **{k: v for k, v in question.extra.items() if k in KEPT_COLUMNS},
    }
