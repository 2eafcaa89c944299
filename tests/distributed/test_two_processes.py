"""Training launched as two CPU processes: one set of files, and the weights that one process would have made."""

import os
import subprocess
import sys
from pathlib import Path

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
        done = pasted(two, launch)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("runs/tiny/") == 1  # one table, not one a process
    files = {p.name for p in (two / "runs/tiny/04_grpo/rl_text").iterdir()}
    assert files - {"best", "last"} == {"checkpoint", "log.jsonl", "metrics.json", "samples.jsonl", "stage.json"}
    a, b = (load_file(folder / "runs/tiny/03_sft/sft_text/checkpoint/model.safetensors") for folder in (one, two))
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-4
