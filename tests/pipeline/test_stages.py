"""What the six stages leave behind, and that a killed stage ends with what it would have ended with."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from medvlt_lib.core.records import read_questions
from tests.pipeline.conftest import COMMANDS, medvlt, settings


def test_every_stage_leaves_its_files(finished):
    for path in (
        "manifest.json",
        "01_data/test.parquet",
        "01_data/data_card.json",
        "02_filtering/pass_counts.parquet",
        "02_filtering/kept_text.parquet",
        "02_filtering/control_image.parquet",
        "03_sft/sft_text/checkpoint/model.safetensors",
        "03_sft/sft_text/log.jsonl",
        "04_grpo/rl_text/checkpoint/model.safetensors",
        "04_grpo/rl_text/samples.jsonl",
        "05_eval/base/scores.json",
        "05_eval/rl_text/answers.parquet",
        "06_analysis/report.html",
        "06_analysis/tables/steps.json",
        "06_analysis/model_card.md",
        "06_analysis/figures/accuracy.png",
    ):
        assert (finished / path).is_file(), path
    states = json.loads((finished / "manifest.json").read_text())["stages"]
    assert {s["state"] for s in states.values()} == {"finished"}
    assert not list(finished.rglob("training")) and not list(finished.rglob("parts"))


def test_counts_agree_with_the_rollouts(finished):
    stage = finished / "02_filtering"
    rows = [
        json.loads(line) for p in sorted((stage / "rollouts").glob("*.jsonl")) for line in p.read_text().splitlines()
    ]
    counts = {r["id"]: r["pass_count"] for r in pq.read_table(stage / "pass_counts.parquet").to_pylist()}
    assert len(rows) == 96 * 4
    for key, count in counts.items():
        assert count == sum(r["passed"] for r in rows if r["id"] == key)
    kept = read_questions(stage / "kept_text.parquet")
    assert all(0 <= counts[q.id] <= 3 for q in kept)
    order = [counts[q.id] for q in kept]
    assert order == sorted(order, reverse=True)  # easy to hard
    assert len(read_questions(stage / "control_text.parquet")) == len(kept)


def test_scores_agree_with_the_answers(finished):
    for arm in ("base", "sft_text", "rl_text"):
        scores = json.loads((finished / "05_eval" / arm / "scores.json").read_text())
        rows = pq.read_table(finished / "05_eval" / arm / "answers.parquet").to_pylist()
        by_set = {n: [r["correct"] for r in rows if r["dataset"] == n] for n in scores["datasets"]}
        assert scores["macro"] == pytest.approx(sum(sum(v) / len(v) for v in by_set.values()) / len(by_set))
        assert scores["interval"][0] <= scores["macro"] <= scores["interval"][1]


def test_training_moved_the_weights(finished):
    from medvlt_lib.models.loading import shipped

    base = load_file(shipped("small") / "model.safetensors")
    for arm in ("03_sft/sft_text", "04_grpo/rl_text"):
        trained = load_file(finished / arm / "checkpoint" / "model.safetensors")
        assert sum(not trained[k].float().equal(v.float()) for k, v in base.items()) > len(base) // 2


def test_a_second_start_does_nothing(finished):
    """Only the report is written again: it takes a second, and arms may have been added."""
    work = lambda: {p: p.stat().st_mtime_ns for p in finished.glob("0[1-5]*/**/*") if p.is_file()}  # noqa: E731
    before = work()
    for command in COMMANDS:
        assert medvlt(finished.parent.parent, command).returncode == 0
    assert before == work()


def test_chained_arms_start_from_the_earlier_arm(finished, tmp_path):
    shutil.copytree(finished.parent, tmp_path / "runs")
    done = medvlt(tmp_path, "grpo", "--arm", "sft_text-rl_image", "--set", "grpo.max_steps=8")
    assert done.returncode == 0, done.stderr[-2000:]
    stage = json.loads((tmp_path / "runs/tiny/04_grpo/sft_text-rl_image/stage.json").read_text())
    assert set(stage["inputs"]) == {"data", "init", "validation"}


def test_any_model_can_be_evaluated_outside_the_arms(finished, tmp_path):
    shutil.copytree(finished.parent, tmp_path / "runs")
    checkpoint = "runs/tiny/03_sft/sft_text/checkpoint"
    done = medvlt(tmp_path, "eval", "--model", checkpoint, "--out", "mine")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "mine" / "answers.parquet").read_bytes() == (
        finished / "05_eval/sft_text/answers.parquet"
    ).read_bytes()
    other = medvlt(tmp_path, "eval", "--model", "phantom:small", "--out", "mine")
    assert other.returncode == 2 and "another --out" in other.stderr
    missing = medvlt(tmp_path, "eval", "--model", "no-such-model", "--out", "other")
    assert missing.returncode == 2 and "no-such-model" in missing.stderr and "Traceback" not in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["filter", "--run", "fresh", "--profile", "tiny"], ["medvlt data --run fresh"]),
        (["grpo", "--set", "grpo.learning_rate=0.5"], ["grpo.learning_rate", "8e-05", "0.5", "--redo 04"]),
        (["filter", "--profile", "tiny-qlora", "--run", "tiny"], ["run of profile tiny"]),
        (["eval", "--arm", "rl_image"], ["medvlt grpo --run tiny --arm rl_image"]),
        (["grpo", "--arm", "rl_sound"], ["rl_sound", "--data"]),
        (["grpo", "--arm", "sft_text"], ["medvlt sft --arm sft_text"]),
        (
            ["sft", "--redo", "03", "--set", "sft.batch=400", "--set", "sft.micro_batch=4"],
            ["48 questions", "sft.batch"],
        ),
        (["data", "--run", "split", "--set", "data.test=split:train_text"], ["data.test", "only data.validation"]),
        (["sft", "--arm", "mine", "--data", "none.parquet"], ["none.parquet"]),
        (["grpo", "--profile", "full-3b", "--run", "big"], ["accelerate launch"]),
        (["eval", "--model", "x"], ["--out"]),
    ],
)
def test_mistakes_are_one_sentence(finished, tmp_path, arguments, words):
    shutil.copytree(finished.parent, tmp_path / "runs")
    done = medvlt(tmp_path, *arguments)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: ")
    assert all(w in done.stderr for w in words), done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_a_sentence_and_nothing_is_lost(finished, tmp_path):
    """A limit on the size of files stands in for the disk: the training's checkpoint does not fit."""
    import resource

    shutil.copytree(finished.parent, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/tiny/03_sft")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))  # noqa: E731
    done = medvlt(tmp_path, "sft", preexec_fn=limit)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "error: cannot write in runs/tiny/03_sft/sft_text" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs/tiny/03_sft/sft_text/checkpoint").exists()
    assert medvlt(tmp_path, "sft").returncode == 0
    a, b = (load_file(r / "03_sft/sft_text/checkpoint/model.safetensors") for r in (finished, tmp_path / "runs/tiny"))
    assert all(a[k].sub(b[k]).abs().max() <= 1e-6 for k in a)


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    done = medvlt(tmp_path, "data", "--profile", "tiny")
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write runs/tiny") and "Traceback" not in done.stderr


def test_torn_inputs_are_named(finished, tmp_path):
    shutil.copytree(finished.parent, tmp_path / "runs")
    (tmp_path / "runs/tiny/01_data/test.parquet").write_bytes(b"PAR1")
    done = medvlt(tmp_path, "eval", "--redo", "05")
    assert done.returncode == 2
    assert "test.parquet" in done.stderr and "Traceback" not in done.stderr


def _start(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "medvlt_lib", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


WORK = {  # what a stage leaves on disk while it works
    "filter": "02_filtering/rollouts/part-*.jsonl",
    "sft": "03_sft/*/training/checkpoint-*",
    "grpo": "04_grpo/*/training/checkpoint-*",
    "eval": "05_eval/*/parts/part-*.jsonl",
}


def _kill_while_working(folder: Path, command: str, delay: float) -> bool:
    """Start a stage and kill -9 it `delay` seconds after new work of it is on disk; whether it was at work."""
    run = folder / "runs" / "tiny"
    before, process = set(run.glob(WORK[command])), _start(folder, command)
    while process.poll() is None and set(run.glob(WORK[command])) <= before:
        time.sleep(0.01)
    time.sleep(delay)
    at_work = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return at_work


ROUNDS = [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 7))]


@pytest.mark.processes
@pytest.mark.parametrize("command", ["filter", "sft", "grpo", "eval"])
@pytest.mark.parametrize("n", ROUNDS)
def test_kill_9_and_start_again_ends_the_same(finished, tmp_path, command, n):
    number = {"filter": "02_filtering", "sft": "03_sft", "grpo": "04_grpo", "eval": "05_eval"}[command]
    shutil.copytree(finished.parent, tmp_path / "runs")
    run, chance, kills = tmp_path / "runs" / "tiny", random.Random(f"{number}{n}"), 0
    shutil.rmtree(run / number)
    for delay in (0.0, chance.uniform(0.0, 0.3), chance.uniform(0.0, 0.3)):
        kills += _kill_while_working(tmp_path, command, delay)
    assert kills, "no kill hit the stage at work"
    done = medvlt(tmp_path, command)
    assert done.returncode == 0, done.stderr[-3000:]
    unbroken = {p.relative_to(finished) for p in (finished / number).rglob("*")}
    assert unbroken == {p.relative_to(run) for p in (run / number).rglob("*")}
    for path in sorted(unbroken):
        one, two = finished / path, run / path
        if path.name in ("pass_counts.parquet", "answers.parquet", "scores.json") or path.name.startswith(
            ("kept_", "control_")
        ):
            assert one.read_bytes() == two.read_bytes(), path
        elif path.suffix == ".jsonl" and "rollouts" in path.parts:
            assert sorted(one.read_text().splitlines()) == sorted(two.read_text().splitlines())
        elif path.name == "model.safetensors":
            a, b = load_file(one), load_file(two)
            assert all(a[k].float().sub(b[k].float()).abs().max() <= 1e-6 for k in a)


def test_settings_helper_is_read_by_the_command_line(tmp_path):
    assert medvlt(tmp_path, "data", "--profile", "tiny", *settings(**{"data.test_size": 3})).returncode == 0
    assert len(read_questions(tmp_path / "runs/tiny/01_data/test.parquet")) == 3
