"""`medvlt eval` against a script that does not know this library."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from medvlt_lib.core.records import read_questions
from medvlt_lib.models.loading import shipped
from tests.pipeline.conftest import medvlt

SCRIPT = Path(__file__).parent / "plain_transformers.py"


def test_plain_transformers_gives_the_same_letters_on_200_questions(tmp_path):
    """Half of the questions have pictures. Some letters are wrong and some answers have none: those agree, too."""
    command = ["eval", "--model", "phantom:small", "--benchmarks", "phantom:all", "--questions", "200", "--out", "ours"]
    done = medvlt(tmp_path, *command, "--set", "eval.max_new_tokens=96")
    assert done.returncode == 0, done.stderr[-2000:]
    ours = {r["id"]: r for r in pq.read_table(tmp_path / "ours/answers.parquet").to_pylist()}
    rows = []
    for q in read_questions(tmp_path / "runs/benchmarks/phantom-all-200/questions.parquet"):
        pictures = []
        for i, encoded in enumerate(q.images):
            pictures.append(str(tmp_path / f"{q.id}-{i}.png"))
            Path(pictures[-1]).write_bytes(encoded)
        rows.append({"id": q.id, "question": q.question, "options": q.options, "pictures": pictures})
    (tmp_path / "questions.json").write_text(json.dumps(rows))
    theirs = tmp_path / "letters.json"
    script = [sys.executable, str(SCRIPT), str(shipped("small")), str(tmp_path / "questions.json"), str(theirs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    subprocess.run(script, env=environment, cwd=tmp_path, check=True, timeout=300)
    letters = json.loads(theirs.read_text())
    assert {key: r["letter"] for key, r in ours.items()} == letters and len(letters) == 200
    assert 0.2 < sum(r["correct"] for r in ours.values()) / 200 < 0.9
    assert sum(r["modality"] == "image" for r in ours.values()) == 96
    assert not (tmp_path / "runs/tiny").exists()  # no run is made for a model that is none of its arms
