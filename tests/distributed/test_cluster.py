"""Two engines of a Ray cluster on this machine: the bytes of one process, whatever happens to a worker."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from medvlt_lib.models.loading import shipped
from medvlt_lib.rollout.connection import TRIES, quick_imports
from tests.pipeline.conftest import medvlt, settings

pytest.importorskip("ray")
pytestmark = pytest.mark.processes
QUESTIONS = settings(**{"data.train_text_size": 112, "data.train_image_size": 112})  # 7 parts
FILES = ["rollouts/*.jsonl", "pass_counts.parquet", "kept_*.parquet", "control_*.parquet"]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Path:
    """A folder with a run that one process filtered and evaluated."""
    folder = tmp_path_factory.mktemp("one")
    for command in ("data", "filter", "eval"):
        done = medvlt(folder, command, "--profile", "tiny", *(QUESTIONS if command == "data" else []))
        assert done.returncode == 0, done.stderr[-3000:]
    return folder / "runs" / "tiny"


@pytest.fixture
def data_only(one_process, tmp_path) -> Path:
    """A folder with a run that has its questions and nothing else."""
    shutil.copytree(one_process / "01_data", tmp_path / "runs" / "tiny" / "01_data")
    shutil.copy(one_process / "manifest.json", tmp_path / "runs" / "tiny")
    return tmp_path


def contents(folder: Path, patterns: list[str]) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for pattern in patterns for p in folder.glob(pattern)}


def until(condition, seconds: float = 300):
    """What `condition` returns as soon as that is true."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.02)
    return found


@contextmanager
def started(folder: Path, *command: str, **variables: str):
    """A command that runs meanwhile, ended with its children at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def at_work(driver: subprocess.Popen) -> list[psutil.Process]:
    """The driver's workers that are answering the questions of a part; Ray writes what they do into their names."""
    found = []
    for child in psutil.Process(driver.pid).children(recursive=True):
        try:
            if child.cmdline()[:1] == ["ray::Worker.answer"]:
                found.append(child)
        except psutil.Error:
            continue
    return found


def test_a_killed_worker_changes_nothing_and_a_second_driver_is_refused(one_process, data_only):
    stage = data_only / "runs/tiny/02_filtering"
    with started(data_only, "medvlt_lib", "filter", "--ray", "local:2") as driver:
        until(lambda: list(stage.glob("rollouts/part-*.jsonl")))
        victim = until(lambda: len(at_work(driver)) == 2 and at_work(driver))[0]
        victim.send_signal(signal.SIGKILL)
        for second in (["filter"], ["filter", "--ray", "local:1"]):
            done = medvlt(data_only, *second)
            assert done.returncode == 2 and re.match(r"error: process \d+ on .* is working in ", done.stderr)
        _, errors = driver.communicate(timeout=600)
    assert driver.returncode == 0, errors
    assert errors.count("a worker was lost") == 1
    assert contents(stage, FILES) == contents(one_process / "02_filtering", FILES)
    assert len(list(stage.glob("rollouts/*"))) == 7 and not list(stage.rglob(".*"))


def test_a_worker_that_dies_at_every_start_ends_with_a_sentence(data_only):
    """A vLLM that is killed whenever it starts, as by a system that is out of memory."""
    (data_only / "vllm").mkdir()
    code = "import os, signal\nclass LLM:\n    def __init__(self, **_):\n        os.kill(os.getpid(), signal.SIGKILL)\n"
    (data_only / "vllm/__init__.py").write_text('__version__ = "0.31.0"\n' + code)
    path = f"{data_only}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = ["filter", "--ray", "local:2", "--set", "engine.kind=vllm"]
    with started(data_only, "medvlt_lib", *command, PYTHONPATH=path) as driver:
        _, errors = driver.communicate(timeout=600)
    last = errors.splitlines()[-1]
    assert driver.returncode == 2 and "Traceback" not in errors
    assert re.match(r"error: no worker is left, 3 in each place were lost \(its process .*\); Ray's logs are in ", last)
    stage = data_only / "runs/tiny/02_filtering"
    assert [p.name for p in stage.iterdir()] == ["stage.json"]


def test_a_cluster_that_was_started_by_hand_answers_the_test(one_process, data_only, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    head = ["start", "--head", "--block", f"--port={address.split(':')[1]}", "--num-cpus=2"]
    quiet = ["--include-dashboard=false", "--disable-usage-stats"]
    for _ in range(TRIES):
        with quick_imports(), started(data_only, "ray.scripts.scripts", *head, *quiet) as node:
            if any("Ray runtime started" in line for line in node.stdout):
                done = medvlt(data_only, "eval", "--ray", address)
                monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
                refused = medvlt(data_only, "eval", "--redo", "05", "--ray", address)
                break
    assert done.returncode == 0, done.stderr
    files = ["base/answers.parquet", "base/scores.json"]
    assert contents(data_only / "runs/tiny/05_eval", files) == contents(one_process / "05_eval", files)
    assert refused.returncode == 2 and refused.stderr.startswith(f"error: the Ray cluster {address} wants a token;")


def test_a_teacher_that_two_engines_load_and_the_phantom_teacher_write_the_same_files(one_process, data_only):
    """Two parts of each set; the phantom teacher needs no engine and is not spread."""
    teachers = f"{{tiny: {{name: {shipped('small')}, samples: 2, max_new_tokens: 96}}, own: {{name: phantom:own}}}}"
    command = ["distill", "--set", f"distill.teachers={teachers}", "--set", "distill.keep=2"]
    done = medvlt(one_process.parents[1], *command)
    assert done.returncode == 0, done.stderr
    spread = medvlt(data_only, *command, "--ray", "local:2")
    assert spread.returncode == 0, spread.stderr
    files = ["answers/*/*/part-*.jsonl", "traces_*.parquet", "metrics.json"]
    ours = contents(data_only / "runs/tiny/02b_distill", files)
    assert ours == contents(one_process / "02b_distill", files) and len(ours) == 8 + 2 + 1


def test_any_model_on_any_benchmark_is_spread_as_well(tmp_path):
    """Two parts of a benchmark that both engines read from runs/benchmarks."""
    command = ["eval", "--model", "phantom:small", "--benchmarks", "phantom:curb65,nodule_count", "--questions", "160"]
    for out, spread in (("one", []), ("two", ["--ray", "local:2"])):
        done = medvlt(tmp_path, *command, "--set", "eval.max_new_tokens=48", "--out", out, *spread)
        assert done.returncode == 0, done.stderr
    files = ["answers.parquet", "scores.json", "stage.json"]
    ours = contents(tmp_path / "two", files)
    assert ours == contents(tmp_path / "one", files) and len(ours) == 3
