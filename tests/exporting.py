"""Arms that were trained for three steps, for the tests that export them; and their questions for another process."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from medvlt_lib.core.prompts import messages
from medvlt_lib.core.records import read_questions
from medvlt_lib.core.runs import Run, open_run
from medvlt_lib.stages import data, sft
from medvlt_lib.tools import changed_answers
from medvlt_lib.tools.export_model import export_model

ARM = "sft_image"
LORA = {"rank": 8, "alpha": 16, "dropout": 0.0}
KINDS = {
    "full": ("tiny", {"sft.learning_rate": 3e-4}),
    "lora": ("tiny", {"model.lora": LORA, "sft.learning_rate": 3e-3}),
    "nf4": ("tiny-qlora", {"sft.learning_rate": 3e-3}),
}
SMALL = {
    "data.train_text_size": 12, "data.train_image_size": 12, "data.validation_size": 5, "data.test_size": 100,
    "sft.batch": 4, "sft.micro_batch": 4, "sft.max_steps": 3, "eval.max_new_tokens": 96,
}  # fmt: skip


def trained(root: Path, kind: str, **changes) -> Run:
    """A run of one of KINDS with a finished arm ARM and 100 test questions, 60 of them with a picture."""
    profile, own = KINDS[kind]
    run = open_run(profile, kind, {**SMALL, **own, **changes}, root=root)
    data.run(run)
    sft.run(run, ARM)
    return run


def checkpoint_of(run: Run) -> Path:
    return run.folder / "03_sft" / ARM / "checkpoint"


def exported(run: Run, out: Path) -> dict:
    """Exports the arm of a run as one merged model. Returns its provenance, with the answers that it was measured by:
    `own`, of the arm as it was trained, and `export`, of the exported model; both by this library, in float32.
    """
    recorded = []

    def recording(*arguments, **more):
        answers, logprobs = asked(*arguments, **more)
        recorded.append([answer.token_ids for answer in answers])
        return answers, logprobs

    asked = changed_answers._answers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changed_answers, "_answers", recording)
        provenance = export_model(run, ARM, out)
    return {**provenance, "own": recorded[0], "export": recorded[1]}


def write_prompts(run: Run, folder: Path) -> Path:
    """The run's test questions as messages and PNG files, for a process that knows nothing of this library."""
    rows = []
    for question in read_questions(run.folder / "01_data" / "test.parquet"):
        paths = [folder / f"{question.id}-{i}.png" for i in range(len(question.images))]
        for path, picture in zip(paths, question.images, strict=True):
            Image.open(io.BytesIO(picture)).convert("RGB").save(path)
        rows.append({"messages": messages(question), "pictures": [str(path) for path in paths]})
    (folder / "prompts.json").write_text(json.dumps(rows))
    return folder / "prompts.json"


def same(one: list, other: list) -> int:
    """How many answers are the same tokens."""
    return sum(a == b for a, b in zip(one, other, strict=True))
