"""Small runs of the whole recipe, for the tests that look at what the stages leave behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
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


def answered_here_and_served(folder: Path, model: str, url: str, longest: int) -> list[tuple[list[dict], dict]]:
    """(answers, scores) of 40 questions, of a local model and of the same behind a server, by `medvlt eval --model`."""
    questions = ["--benchmarks", "phantom:curb65,apgar,nodule_count,cup_to_disc_ratio", "--questions", "40"]
    command = ["eval", "--model", model, *questions, "--set", f"eval.max_new_tokens={longest}"]
    address = ["--set", "engine.kind=openai", "--set", f"engine.url={url}"]
    found = []
    for out, where in (("local", []), ("served", address)):
        done = medvlt(folder, *command, "--out", out, *where)
        assert done.returncode == 0, done.stderr[-2000:]
        rows = pq.read_table(folder / out / "answers.parquet").to_pylist()
        found.append((rows, json.loads((folder / out / "scores.json").read_text())))
    return found


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder with one unbroken small run of every stage on `tiny`."""
    folder = tmp_path_factory.mktemp("unbroken")
    for command in COMMANDS:
        done = medvlt(folder, command, "--profile", "tiny", *(settings() if command == "data" else []))
        assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
    return folder / "runs" / "tiny"
