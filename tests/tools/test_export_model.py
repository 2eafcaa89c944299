"""`medvlt export`: what others load gives the arm's answers, the card says what was measured, and mistakes are
sentences. AutoProcessor and vLLM read exports in tests/vllm/test_export.py, in an environment that has them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.runs import open_run
from medvlt_lib.models.loading import shipped
from medvlt_lib.stages import evaluate
from medvlt_lib.tools import export_model as module
from medvlt_lib.tools.export_model import export_model
from tests.exporting import ARM, KINDS, checkpoint_of, exported, same, trained, write_prompts

SCRIPT = Path(__file__).parents[1] / "load_elsewhere.py"
PIXELS = 7056  # a picture of 112 x 112 pixels shrinks to 84 x 84
LEAST = {"full": 97, "lora": 95, "nf4": 80}  # of 100 answers that stay the same


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished arm of each kind. Pictures shrink in one, so that its pixel limit has to travel with the export."""
    root = tmp_path_factory.mktemp("exports") / "runs"
    changes = {"lora": {"model.max_pixels": PIXELS}}
    return {kind: trained(root, kind, **changes.get(kind, {})) for kind in KINDS}


@pytest.fixture(scope="module")
def merged(runs, tmp_path_factory):
    """(folder, provenance with the answers) of each arm's merged export."""
    root = tmp_path_factory.mktemp("merged")
    return {kind: (root / kind, exported(run, root / kind)) for kind, run in runs.items()}


def elsewhere(run, folder: Path, tmp_path: Path, how: str = "transformers") -> list[list[int]]:
    """Greedy answers of an export to the run's test questions, from a process in which this library cannot load."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(write_prompts(run, tmp_path)), "answers.json", how],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((tmp_path / "answers.json").read_text())["answers"]


@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_gives_the_same_answers(kind, runs, merged, tmp_path):
    """All 100 are those of this library on the export; of the arm's own as many as the card says."""
    folder, made = merged[kind]
    there = elsewhere(runs[kind], folder, tmp_path)
    assert len(there) == 100 and len({tuple(ids) for ids in there}) > 20
    assert there == made["export"]
    assert LEAST[kind] <= same(there, made["own"]) == made["change"]["same_text"]


@pytest.mark.parametrize("kind", ["lora", "nf4"])
def test_peft_gives_the_same_answers(kind, runs, merged, tmp_path):
    """An adapter is exported as it was trained: on the base that lies beside it, all 100 answers are the arm's own."""
    folder = tmp_path / "adapter"
    assert export_model(runs[kind], ARM, folder, "adapter")["change"] is None
    there = elsewhere(runs[kind], folder, tmp_path, "peft" if kind == "lora" else "peft-nf4")
    assert there == merged[kind][1]["own"]
    assert read_json(folder / "adapter_config.json")["base_model_name_or_path"] == "base"
