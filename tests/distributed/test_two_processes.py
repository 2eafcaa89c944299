"""Training launched as two CPU processes: one set of files, and the weights that one process would have made."""

import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from tests.pipeline.conftest import medvlt, settings

pytestmark = pytest.mark.processes
SETTINGS = settings(**{"sft.micro_batch": 2, "grpo.micro_batch": 4, "sft.max_steps": 4, "grpo.max_steps": 3})
TWO = ["--set", "launch.devices=2", "--set", "launch.strategy=fsdp"]


def launched(folder, *arguments) -> subprocess.CompletedProcess:
    """`medvlt` as two processes with torchrun, which is what accelerate starts on several devices of one machine."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "ACCELERATE_USE_CPU": "true"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
        "-m",
        "medvlt_lib",
        *arguments,
    ]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_two_processes_train_what_one_would(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, more in ((one, []), (two, TWO)):
        folder.mkdir()
        assert medvlt(folder, "data", "--profile", "tiny", *SETTINGS, *more).returncode == 0
        assert medvlt(folder, "filter").returncode == 0
    assert medvlt(one, "sft").returncode == 0
    refused = medvlt(two, "sft")
    assert refused.returncode == 2 and "accelerate launch" in refused.stderr
    for command in ("sft", "grpo"):
        done = launched(two, command)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("runs/tiny/") == 1  # one table, not one a process
    files = {p.name for p in (two / "runs/tiny/04_grpo/rl_text").iterdir()}
    assert files == {"checkpoint", "log.jsonl", "metrics.json", "samples.jsonl", "stage.json"}
    a, b = (load_file(folder / "runs/tiny/03_sft/sft_text/checkpoint/model.safetensors") for folder in (one, two))
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-4
