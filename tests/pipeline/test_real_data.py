"""Real public questions and images through data, filter and eval; only where MEDVLT_REAL_DATA names their folder."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from medvlt_lib.records import Question, load_image, pixel_id, write_questions
from tests.pipeline.conftest import medvlt, settings

FOLDER = os.environ.get("MEDVLT_REAL_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="not run: MEDVLT_REAL_DATA names no folder of public questions")


def text_questions(folder: Path, each: int) -> list[Question]:
    """The first `each` questions of every text set in the folder."""
    seen: Counter = Counter()
    rows = []
    with gzip.open(folder / "mirage" / "questions.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            seen[row["dataset"]] += 1
            if seen[row["dataset"]] <= each:
                options = {k: str(v) for k, v in row["options"].items()}
                name = f"{row['dataset']}-{row['id']}"
                rows.append(Question(name, row["dataset"], "test", "text", row["question"], options, row["answer"], options[row["answer"]]))
    return rows


def ct_questions(folder: Path) -> list[Question]:
    """Every CT question with a picture; yes and no are added as options."""
    rows = []
    for file in sorted((folder / "mirp").rglob("qa*.json")):
        images = file.parent / file.name.replace("qa", "image" if "_" in file.name else "images").removesuffix(".json")
        for case in json.loads(file.read_text()):
            path = images / case["filename"]
            for i, pair in enumerate(case["question_answer"]):
                label = "A" if pair["answer"] == 1 else "B"
                options = {"A": "Yes", "B": "No"}
                name = f"{file.parent.name}-{file.stem}-{case['filename']}-{i}"
                png = path.read_bytes()
                rows.append(
                    Question(
                        name, f"mirp-{file.parent.name}", "test", "image", pair["question"], options, label, options[label],
                        images=[png], image_ids=[pixel_id(load_image(png))], image_modality="CT",
                    )
                )  # fmt: skip
    return rows


def test_real_questions_go_through_without_an_exception(tmp_path):
    folder = Path(FOLDER).resolve()
    text, image = text_questions(folder, 200), ct_questions(folder)
    assert Counter(q.dataset for q in text) == {"medqa": 200, "medmcqa": 200, "pubmedqa": 200, "mmlu": 200}
    assert len(image) >= 100
    for name, rows in (("text", text), ("image", image), ("test", text + image)):
        write_questions(rows, tmp_path / f"{name}.parquet")
    sets = {"data.train_text": "text.parquet", "data.train_image": "image.parquet", "data.test": "test.parquet"}
    sizes = {"data.train_text_size": 5000, "data.train_image_size": 5000, "data.test_size": 10000, "filtering.samples": 2,
             "filtering.keep_to": 1, "filtering.max_new_tokens": 32, "eval.max_new_tokens": 32}  # fmt: skip
    for command in ("data", "filter", "eval"):
        done = medvlt(tmp_path, command, "--profile", "tiny", *(settings(**sets, **sizes) if command == "data" else []))
        assert done.returncode == 0, done.stderr[-3000:]
    scores = json.loads((tmp_path / "runs/tiny/05_eval/base/scores.json").read_text())
    assert scores["questions"] == len(text) + len(image)
