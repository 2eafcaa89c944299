"""The published data sets: where each lives, and how its rows become questions.

MedVLThinker's four sets (arXiv 2508.02669), the six benchmarks from their own homes, PMC-VQA as released, and what
MedVLM-R1 (arXiv 2502.19634) trained and tested on. A set is read through `datasets` from the Hub, or, in the same
columns, from a folder DIR/NAME on this machine (parquet, JSONL or CSV), where data.mirror = DIR. Of a large set only the
rows of a part are fetched (and up to a thousand more, among which they are shuffled); a zip of images is fetched whole.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from medvlt_lib.core.records import LETTERS, Question
from medvlt_lib.data.closed import closed_options
from medvlt_lib.data.rows import Refused, Tally, label_of, options_of

Reader = Callable[[dict, "Tally", object], dict]
NAMED = ("dataset_name", "dataset_index", "hash", "misc", "text")
COLUMNS = ("images", "question", "options", "answer_label", "answer", "reasoning", "dataset_name", "dataset_index")


@dataclass(frozen=True)
class Source:
    """One data set. `revision`: the commit that is read (None: the newest, whose commit the data card then names).

    `whole`: small enough to read to the end, so that a part of it is an even sample; otherwise a part is drawn from a
    shuffled stream and no more is fetched. `by`: the column over which a part is spread evenly.
    `archive`: a zip beside the rows that holds the images. `rows`: the published counts.
    """

    repo: str
    reader: Reader
    columns: tuple[str, ...]
    splits: tuple[str, ...] = ("test",)
    configs: tuple[str | None, ...] = (None,)
    revision: str | None = None
    licence: str | None = None
    whole: bool = True
    by: str | None = None
    archive: str | None = None
    files: str | None = None
    rows: dict = field(default_factory=dict)


def unified(row: dict, tally: Tally, client) -> dict:
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
        "extra": {k: row[k] for k in NAMED if k in row},
    }


def pmc_released(row: dict, tally: Tally, client) -> dict:
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


def _strip(text) -> str:
    """Blanks and quotes off both ends, as released: whitespace, ' and ", no-break and hair spaces."""
    return str(text or "").strip(" \t\r\n\f\v'\"\u00a0\u200a")


def adapt_pmc(row: dict, tally: Tally, client) -> dict:
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

    def read(row: dict, tally: Tally, client) -> dict:
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


def mmmu(row: dict, tally: Tally, client) -> dict:
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
    return {"dataset": "MMMU-medical", "id": row["id"], "question": question, "options": options,
            "label": label_of(row["answer"], options, "answer"), "images": images, "extra": extra}  # fmt: skip


def medxpert(row: dict, tally: Tally, client) -> dict:
    """A row of MedXpertQA-MM: the list of choices leaves the question; images are names in images.zip."""
    question = row["question"].split("Answer Choices:")[0].strip()
    tally.changed["question text"] += question != row["question"]
    given = row["options"]
    if isinstance(given, list):  # [{"letter": ..., "content": ...}]
        given = {o["letter"]: o["content"] for o in given}
    options = options_of(given)
    extra = {"misc": json.dumps({k: row.get(k) for k in ("id", "medical_task", "body_system", "question_type")})}
    return {"dataset": "MedXpertQA-MM", "id": row["id"], "question": question, "options": options,
            "label": label_of(row["label"], options, "label"), "images": list(row["images"]), "extra": extra}  # fmt: skip


MODALITIES = {"MR (Mag-netic Resonance Imaging)": "MRI", "CT(Computed Tomography)": "CT", "X-Ray": "X-ray"}


def omni(only: tuple[str, ...]) -> Reader:
    """Rows of OmniMedVQA as MedVLM-R1 reads them: options as a list, the answer as text, the images' paths."""

    def read(row: dict, tally: Tally, client) -> dict:
        modality = MODALITIES.get(row["subset"])
        if modality not in only:
            raise Refused("subset", "another modality")
        options = options_of(list(row["options"]))
        return {"dataset": f"omnimedvqa_{modality.lower().replace('-', '')}", "question": row["question"], "options": options,
                "label": label_of(row["answer"], options, "answer"), "images": list(row["image"]), "image_modality": modality}  # fmt: skip

    return read


ADAPT = "AdaptLLM/biomed-VQA-benchmark"
CLOSED = ("image", "input", "label", "answer_type")
OMNI = ("image", "question", "options", "answer", "subset")
SOURCES: dict[str, Source] = {
    "UCSC-VLAA/MedVLThinker-m23k-tokenized": Source(
        "UCSC-VLAA/MedVLThinker-m23k-tokenized", unified, COLUMNS, ("train",), rows={"pass counts exist for": 23456}
    ),
    "UCSC-VLAA/MedVLThinker-pmc_vqa": Source(
        "UCSC-VLAA/MedVLThinker-pmc_vqa",
        unified,
        COLUMNS,
        ("train",),
        whole=False,
        rows={"legacy notebook": 176917, "scripts": 176896},
    ),
    "UCSC-VLAA/MedVLThinker-pmc_vqa-gpt_4o_reasoning-tokenized": Source(
        "UCSC-VLAA/MedVLThinker-pmc_vqa-gpt_4o_reasoning-tokenized",
        unified,
        COLUMNS,
        ("train",),
        whole=False,
        rows={"Hub": 67200},
    ),
    "UCSC-VLAA/MedVLThinker-Eval": Source(
        "UCSC-VLAA/MedVLThinker-Eval", unified, COLUMNS, by="dataset_name", rows={"released": 8220}
    ),
    "RadGenome/PMC-VQA": Source(
        "RadGenome/PMC-VQA",
        pmc_released,
        ("Figure_path", "Question", "Answer", "Answer_label", "Choice A", "Choice B", "Choice C", "Choice D"),
        ("train",),
        revision="b56ae594f794867893143b337b4118a835794647",
        whole=False,
        archive="images.zip",
        files="train.csv",
        rows={"paper, before cleaning": 176948, "legacy notebook": 176917, "scripts": 176896},
    ),
    f"{ADAPT}/PMC-VQA": Source(
        ADAPT,
        adapt_pmc,
        ("image", "input", "label", "A", "B", "C", "D"),
        configs=("PMC-VQA",),
        rows={"published": 2000},
    ),
    f"{ADAPT}/PathVQA": Source(
        ADAPT, adapt_closed("pathvqa_closed"), CLOSED, configs=("PathVQA",), rows={"all": 6719, "closed": 3362}
    ),
    f"{ADAPT}/SLAKE": Source(
        ADAPT, adapt_closed("slake_closed"), CLOSED, configs=("SLAKE",), rows={"all": 1061, "closed": 416}
    ),
    f"{ADAPT}/VQA_RAD": Source(
        ADAPT, adapt_closed("vqa_rad_closed"), CLOSED, configs=("VQA_RAD",), rows={"all": 451, "closed": 272}
    ),
    "MMMU/MMMU": Source(
        "MMMU/MMMU",
        mmmu,
        ("id", "question", "options", "answer", "question_type", "image_1"),
        ("validation", "dev"),
        (
            "Basic_Medical_Science",
            "Clinical_Medicine",
            "Diagnostics_and_Laboratory_Medicine",
            "Pharmacy",
            "Public_Health",
        ),
        revision="98e6ac0cb9b7b2cd2c991b85a50762edc4aedc68",
        rows={"validation and dev": 175, "multiple choice": 170},
    ),
    "TsinghuaC3I/MedXpertQA/MM": Source(
        "TsinghuaC3I/MedXpertQA",
        medxpert,
        ("id", "question", "options", "label", "images"),
        configs=("MM",),
        revision="7e7c465a68eb2b866926bfa59c8c9d17a8daba65",
        licence="MIT",
        archive="images.zip",
        rows={"test": 2000, "scored for local models": 1996},
    ),
    "FreedomIntelligence/Medical_Multimodal_Evaluation_Data": Source(
        "FreedomIntelligence/Medical_Multimodal_Evaluation_Data",
        omni(("MRI",)),
        OMNI,
        archive="images.zip",
        rows={"paper": 600, "code": 500},
    ),
    "JZPeterPan/MedVLM-R1": Source(
        "JZPeterPan/MedVLM-R1",
        omni(("MRI", "CT", "X-ray")),
        OMNI,
        revision="2eee4210b25b149dcfa68513eb4682ac63b029d2",
        by="subset",
        archive="FreedomIntelligence/Medical_Multimodal_Evaluation_Data:images.zip",
        files="https://raw.githubusercontent.com/{repo}/{revision}/MRI_CT_XRAY_300each_dataset.json",
        rows={"each of MRI, CT and X-ray": 300},
    ),
}
SIX = (
    f"{ADAPT}/PMC-VQA",
    f"{ADAPT}/PathVQA",
    f"{ADAPT}/SLAKE",
    f"{ADAPT}/VQA_RAD",
    "MMMU/MMMU",
    "TsinghuaC3I/MedXpertQA/MM",
)
GROUPS = {"six-benchmarks": SIX}


def to_published(question: Question, index: int) -> dict:
    """A question in MedVLThinker's columns; what was read from them comes back as it was."""
    digest = hashlib.sha256(f"{question.question}{question.answer}".encode()).hexdigest()[:16]
    defaults = {
        "dataset_name": question.family or question.dataset,
        "dataset_index": index,
        "hash": digest,
        "misc": None,
    }
    return {
        "images": [
            {"bytes": i, "path": None} if isinstance(i, bytes) else {"bytes": None, "path": i} for i in question.images
        ]
        or None,
        "question": question.question,
        "options": json.dumps(question.options, ensure_ascii=False),
        "answer_label": question.answer_label,
        "answer": question.answer,
        "reasoning": question.reasoning,
        **defaults,
        **{k: v for k, v in question.extra.items() if k in NAMED},
    }


__all__ = ["GROUPS", "LETTERS", "SOURCES", "Source", "to_published"]
