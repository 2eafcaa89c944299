"""Training launched as two CPU processes: one set of files, and the weights that one process would have made."""

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

import medvlt_lib
from medvlt_lib.core.files import read_json
from tests.distributed.launching import killed_after_a_checkpoint, launch_command, pasted, shell
from tests.pipeline.conftest import medvlt, settings

pytestmark = pytest.mark.processes
SETTINGS = settings(
    **{"sft.micro_batch": 2, "grpo.micro_batch": 4, "sft.max_steps": 4, "grpo.max_steps": 4, "grpo.save_every": 1}
)
TWO = ["--set", "launch.devices=2", "--set", "launch.strategy=ddp"]


def with_one_and_two_processes(script: str, folder: Path) -> list[Path]:
    """The files that a script of this folder writes when it is run as one process, and as two."""
    here, config = Path(__file__).parent, Path(medvlt_lib.__file__).parent / "assets/launch/ddp.yaml"
    targets = [folder / "1", folder / "2"]
    for processes, target in enumerate(targets, start=1):
        launch = f"accelerate launch --config_file {config} --num_processes 2" if processes == 2 else "python"
        done = pasted(here.parents[1], f"PYTHONPATH={here.parents[1]} {launch} {here / script} {target} {processes}")
        assert done.returncode == 0, done.stderr[-3000:]
    return targets


def stop_one_process(folder: Path, command: str) -> None:
    """Start training, and end it by SIGTERM to the second process alone: both stop at the same step, which is saved."""
    launcher = subprocess.Popen(
        ["bash", "-c", f"exec {command.strip()}"], cwd=folder, env=shell(), stderr=subprocess.PIPE, text=True
    )
    arm = folder / "runs/tiny/04_grpo/rl_text"
    while launcher.poll() is None and not (arm / "training/validation/000000.json").exists():
        time.sleep(0.02)
    [second] = [p for p in psutil.Process(launcher.pid).children(recursive=True) if p.environ().get("RANK") == "1"]
    second.send_signal(signal.SIGTERM)
    _, errors = launcher.communicate(timeout=300)
    assert launcher.returncode != 0
    step = int(re.search(r"stopped after step (\d) of 4; the same command continues from there\.", errors)[1])
    assert (arm / f"training/checkpoint-{step}/trainer_state.json").exists() and not (arm / "metrics.json").exists()


def test_two_processes_train_what_one_would(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, more in ((one, []), (two, TWO)):
        folder.mkdir()
        assert medvlt(folder, "data", "--profile", "tiny", *SETTINGS, *more).returncode == 0
        assert medvlt(folder, "filter").returncode == 0
    assert medvlt(one, "sft").returncode == 0
    assert medvlt(one, "grpo").returncode == 0
    for command in ("sft", "grpo"):
        refused = medvlt(two, command)
        assert refused.returncode == 2 and "trains on 2 devices" in refused.stderr
        launch = launch_command(refused.stderr)
        if command == "grpo":
            stop_one_process(two, launch)
        done = pasted(two, launch)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("runs/tiny/") == 1  # one table, not one a process
    files = {p.name for p in (two / "runs/tiny/04_grpo/rl_text").iterdir()}
    assert files - {"best", "last"} == {"checkpoint", "log.jsonl", "metrics.json", "samples.jsonl", "stage.json"}
    unbroken = tmp_path / "unbroken"
    shutil.move(two / "runs/tiny/04_grpo", unbroken)
    killed_after_a_checkpoint(two, launch, two / "runs/tiny/04_grpo/rl_text/training")
    assert not (two / "runs/tiny/04_grpo/rl_text/metrics.json").exists()
    done = pasted(two, launch)
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (load_file(f / "rl_text/checkpoint/model.safetensors") for f in (unbroken, two / "runs/tiny/04_grpo"))
    assert max((a[k] - b[k]).abs().max().item() for k in a) <= 1e-6
    metrics = json.loads((two / "runs/tiny/04_grpo/rl_text/metrics.json").read_text())
    assert [row["step"] for row in metrics["validation"]] == [0, 4] and metrics["validation_questions"] == 8
    for arm in ("03_sft/sft_text", "04_grpo/rl_text"):
        a, b = (load_file(folder / "runs/tiny" / arm / "checkpoint/model.safetensors") for folder in (one, two))
        assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-4, arm


def test_a_process_without_signal_takes_part_with_zero(tmp_path):
    """All groups of one of two processes dead, then all of both, then none: gradients, weights and the entropy of the
    live groups are those of one process."""
    one, two = map(torch.load, with_one_and_two_processes("dead_groups.py", tmp_path))
    assert one["shared"] and two["shared"]
    for first, second in zip(one["gradients"], two["gradients"], strict=True):
        assert first.shape == second.shape
        assert (first - second).abs().max() <= 1e-5 * max(first.abs().max(), 1e-3)
    assert one["gradients"][0].abs().max() > 0 and one["gradients"][1].abs().max() == 0
    assert one["entropy"] == pytest.approx(two["entropy"], rel=1e-3)
    assert max((one["weights"][k] - two["weights"][k]).abs().max().item() for k in one["weights"]) < 1e-5


def test_a_process_without_pictures_beside_one_that_has_some(tmp_path):
    """The figures of a step are those of all processes' completions."""
    one, two = map(read_json, with_one_and_two_processes("mixed_pictures.py", tmp_path))
    assert sorted(two["pictured"][0]) == [False, True]
    first, second = one["log"][0], two["log"][0]  # later they differ: which groups an update takes does
    for name in ("reward", "well_formed", "correct", "no_answer", "truncated", "rewards/published/group_std"):
        assert first[name] == pytest.approx(second[name]), name
    assert two["log"][0]["picture_effect"] > 0
    assert two["log"][1]["ratio/max"] > two["log"][0]["ratio/max"] == pytest.approx(1, abs=1e-4)
