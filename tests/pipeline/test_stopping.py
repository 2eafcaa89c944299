"""SIGTERM and Ctrl-C to a real `medvlt sft` or `medvlt grpo`: a checkpoint at once, one sentence, nothing finished; the
same command goes on and ends with the weights of training that was not stopped.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from tests.pipeline.conftest import medvlt, settings

pytestmark = pytest.mark.processes
LONGER = {
    "grpo.updates": 2, "grpo.micro_batch": 4, "grpo.max_steps": 16, "grpo.save_every": 4, "grpo.validate_every": 8,
    "grpo.validation_questions": 8, "sft.max_steps": 16, "sft.save_every": 4,
}  # fmt: skip
TRAINING = {"sft": ("03_sft", "mine"), "grpo": ("04_grpo", "mine")}


def arguments(command: str) -> list[str]:
    return [command, "--arm", "mine", "--data", "runs/tiny/01_data/train_text.parquet"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a run whose 01_data is finished."""
    folder = tmp_path_factory.mktemp("data")
    done = medvlt(folder, "data", "--profile", "tiny", *settings(**LONGER))
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """By command: the arm of a training that was not stopped."""
    arms = {}
    for command in TRAINING:
        folder = tmp_path_factory.mktemp(command)
        shutil.copytree(data / "runs", folder / "runs")
        done = medvlt(folder, *arguments(command))
        assert done.returncode == 0, done.stderr[-2000:]
        arms[command] = folder.joinpath("runs/tiny", *TRAINING[command])
    return arms


def stopped(folder, command: str, number: int) -> subprocess.CompletedProcess:
    """Start a training and send it a signal as soon as its first checkpoint is there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "medvlt_lib", *arguments(command)],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    first = folder.joinpath("runs/tiny", *TRAINING[command], "training", "checkpoint-4", "trainer_state.json")
    while process.poll() is None and not first.exists():
        time.sleep(0.01)
    process.send_signal(number)
    out, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [("sft", signal.SIGTERM, 143), ("grpo", signal.SIGTERM, 143), ("grpo", signal.SIGINT, 130)],
    ids=["sft SIGTERM", "grpo SIGTERM", "grpo Ctrl-C"],
)
def test_a_stopped_training_goes_on(command, number, code, data, whole, tmp_path):
    shutil.copytree(data / "runs", tmp_path / "runs")
    arm = tmp_path.joinpath("runs/tiny", *TRAINING[command])
    done = stopped(tmp_path, command, number)
    assert done.returncode == code, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and done.stderr.count("the same command continues") == 1
    step = int(re.search(r"stopped after step (\d+) of 16; the same command continues from there\.", done.stderr)[1])
    assert 4 <= step < 16 and step % (2 if command == "grpo" else 1) == 0
    [checkpoint] = (arm / "training").glob("checkpoint-*")
    assert checkpoint.name == f"checkpoint-{step}"
    assert not (arm / "metrics.json").exists() and not (arm / "checkpoint").exists()
    states = json.loads((tmp_path / "runs/tiny/manifest.json").read_text())["stages"]
    assert states["/".join(TRAINING[command])] == {"state": "started"}
    again = medvlt(tmp_path, *arguments(command))
    assert again.returncode == 0, again.stderr[-2000:]
    a, b = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (whole[command], arm))
    assert a.keys() == b.keys() and max((a[k] - b[k]).abs().max().item() for k in a) <= 1e-6
    assert json.loads((arm / "metrics.json").read_text()) == json.loads((whole[command] / "metrics.json").read_text())
