"""Training launched as two CPU processes: one set of files, and the weights that one process would have made."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from tests.pipeline.conftest import medvlt, settings

pytestmark = pytest.mark.processes
SETTINGS = settings(**{"sft.micro_batch": 2, "grpo.micro_batch": 4, "sft.max_steps": 4, "grpo.max_steps": 3})
TWO = ["--set", "launch.devices=2", "--set", "launch.strategy=ddp"]


def pasted(folder: Path, command: str) -> subprocess.CompletedProcess:
    """What a shell does with a command that was printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PATH": path}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def stop_one_process(folder: Path, command: str) -> None:
    """Start training, and end it by SIGTERM to the second process alone: both stop at the same step, which is saved."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PATH": path}
    launcher = subprocess.Popen(
        ["bash", "-c", f"exec {command.strip()}"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    arm = folder / "runs/tiny/04_grpo/rl_text"
    while launcher.poll() is None and not (arm / "training/validation/000000.json").exists():
        time.sleep(0.02)
    [second] = [p for p in psutil.Process(launcher.pid).children(recursive=True) if p.environ().get("RANK") == "1"]
    second.send_signal(signal.SIGTERM)
    _, errors = launcher.communicate(timeout=300)
    assert launcher.returncode != 0
    step = int(re.search(r"stopped after step (\d) of 3; the same command continues from there\.", errors)[1])
    assert (arm / f"training/checkpoint-{step}/trainer_state.json").exists() and not (arm / "metrics.json").exists()


def test_two_processes_train_what_one_would(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, more in ((one, []), (two, TWO)):
        folder.mkdir()
        assert medvlt(folder, "data", "--profile", "tiny", *SETTINGS, *more).returncode == 0
        assert medvlt(folder, "filter").returncode == 0
    assert medvlt(one, "sft").returncode == 0
    for command in ("sft", "grpo"):
        refused = medvlt(two, command)
        assert refused.returncode == 2 and "trains on 2 devices" in refused.stderr
        [launch] = [line for line in refused.stderr.splitlines() if line.startswith("    accelerate launch")]
        if command == "grpo":
            stop_one_process(two, launch)
        done = pasted(two, launch)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("runs/tiny/") == 1  # one table, not one a process
    files = {p.name for p in (two / "runs/tiny/04_grpo/rl_text").iterdir()}
    assert files - {"best", "last"} == {"checkpoint", "log.jsonl", "metrics.json", "samples.jsonl", "stage.json"}
    metrics = json.loads((two / "runs/tiny/04_grpo/rl_text/metrics.json").read_text())
    assert [row["step"] for row in metrics["validation"]] == [0, 3] and metrics["validation_questions"] == 8
    a, b = (load_file(folder / "runs/tiny/03_sft/sft_text/checkpoint/model.safetensors") for folder in (one, two))
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-4
