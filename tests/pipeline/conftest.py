"""Small runs of the whole recipe, for the tests that look at what the stages leave behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = {
    "model.name": "phantom:small",
    "data.train_text_size": 48,
    "data.train_image_size": 48,
    "data.validation_size": 8,
    "data.test_size": 160,
    "filtering.samples": 4,
    "filtering.keep_from": 0,
    "filtering.keep_to": 3,
    "filtering.max_new_tokens": 96,
    "sft.epochs": 10,
    "sft.batch": 4,
    "sft.micro_batch": 4,
    "sft.max_steps": 8,
    "sft.save_every": 3,
    "grpo.prompts": 2,
    "grpo.group_size": 4,
    "grpo.micro_batch": 8,
    "grpo.max_steps": 8,
    "grpo.save_every": 3,
    "grpo.max_completion_length": 64,
    "eval.max_new_tokens": 96,
}
COMMANDS = ("data", "filter", "sft", "grpo", "eval", "report")


def medvlt(folder: Path, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
    """The command line in `folder`, one CPU thread, so that results are the same bytes every time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "medvlt_lib", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, **kwargs)


def settings(**changes) -> list[str]:
    values = {**SMALL, **changes}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


SECONDS: dict[str, float] = {}  # what each command took in the unbroken run


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder with one unbroken small run of every stage on `tiny`."""
    folder = tmp_path_factory.mktemp("unbroken")
    for command in COMMANDS:
        started = time.monotonic()
        done = medvlt(folder, command, "--profile", "tiny", *(settings() if command == "data" else []))
        assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
        SECONDS[command] = time.monotonic() - started
    return folder / "runs" / "tiny"
