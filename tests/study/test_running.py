"""Studies run for real, as small as they can be: results, what is shared, what continues, two processes, a cluster."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from medvlt_lib.study.cells import cell, cells_of
from medvlt_lib.study.planning import plan_table
from medvlt_lib.study.results import answers_of, results_in, right_of
from medvlt_lib.study.running import run_cells, unfinished

SMALL = {
    "model.name": "phantom:small", "data.train_text_size": 16, "data.train_image_size": 24, "data.validation_size": 16,
    "data.test_size": 32, "filtering.samples": 4, "filtering.keep_from": 0, "filtering.keep_to": 3, "sft.epochs": 1,
    "grpo.max_steps": 1, "grpo.prompts": 2, "grpo.group_size": 4, "grpo.micro_batch": 8,
    "grpo.validate_every": 1, "grpo.validation_questions": 8, "sft.validation_questions": 8,
}  # fmt: skip


def small(*labels: str, looks: tuple[str, ...] = ("greedy",)) -> dict:
    made = [cell(label, 0, "tiny", SMALL) for label in labels]
    return {one.key: (one, list(looks)) for one in made}


def test_cells_are_trained_asked_and_written(tmp_path, capsys):
    cells = small("base", "sft_image", "sft_text-rl_image", looks=("greedy", "grey", "sampled"))
    run_cells(cells, tmp_path / "results", tmp_path / "runs")
    results = results_in(tmp_path / "results")
    # The arm that the chained one goes on from was trained for it; nobody asked it anything.
    assert {r["label"] for r in results.values()} == {"base", "sft_image", "sft_text-rl_image", "sft_text"}
    for key in cells:
        rows = answers_of(tmp_path / "results", results[key])
        assert results[key]["right"] == right_of(rows)
        greedy = [row for row in rows if row["look"] == "greedy"]
        assert len(greedy) == len({row["id"] for row in greedy}) == 32
        assert {row["modality"] for row in rows if row["look"] == "grey"} == {"image"}
        assert len([row for row in rows if row["look"] == "sampled"]) == 32 * 16
    [chained] = [r for r in results.values() if r["label"] == "sft_text-rl_image"]
    [start] = [r for r in results.values() if r["label"] == "sft_text"]
    assert chained["settings"]["start"] == start["key"]
    assert [point["step"] for point in chained["training"]["curve"]] == [0, 1]
    # Started again, nothing is left to do; and the plan knows it.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    run_cells(cells, tmp_path / "results", tmp_path / "runs")
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert "3 runs, 3 of them finished before" in capsys.readouterr().out
    rows, sentence = plan_table(cells, unfinished(cells, tmp_path / "results"), tmp_path / "results")
    assert [row[:3] for row in rows[1:]] == [("base", "1", "0"), ("sft", "1", "0"), ("rl", "1", "0")]
    assert sentence.startswith("about 0 minutes")


def test_another_look_is_asked_without_training_again(tmp_path):
    run_cells(small("sft_image"), tmp_path / "results", tmp_path / "runs")
    [log] = (tmp_path / "runs").rglob("03_sft/*/log.jsonl")
    trained = log.stat().st_mtime_ns
    run_cells(small("sft_image", looks=("greedy", "grey")), tmp_path / "results", tmp_path / "runs")
    [result] = results_in(tmp_path / "results").values()
    assert result["looks"] == ["greedy", "grey"]
    assert log.stat().st_mtime_ns == trained


def test_a_cell_that_another_process_has_is_left_to_it(tmp_path, capsys):
    cells = small("base")
    [key] = cells
    (tmp_path / "runs").mkdir()
    with FileLock(tmp_path / "runs" / f".{key}.study.lock"):
        run_cells(cells, tmp_path / "results", tmp_path / "runs")
    assert "work of another process" in capsys.readouterr().out
    assert not results_in(tmp_path / "results")


def _work(results: Path, runs: Path) -> None:
    run_cells(small("base", "sft_image", "sft_text"), results, runs)


@pytest.mark.processes
def test_two_processes_share_the_work(tmp_path):
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_work, args=(tmp_path / "results", tmp_path / "runs")) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(results_in(tmp_path / "results")) == 3


@pytest.mark.processes
def test_a_killed_study_goes_on_and_ends_with_the_same_answers(tmp_path):
    code = "import sys, pathlib; from tests.study import test_running as t; t._work(*map(pathlib.Path, sys.argv[1:]))"
    command = [sys.executable, "-c", code, str(tmp_path / "results"), str(tmp_path / "runs")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 300
    while not list((tmp_path / "runs").rglob("03_sft/sft_image/stage.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _work(tmp_path / "results", tmp_path / "runs")
    _work(tmp_path / "others", tmp_path / "other_runs")
    killed, whole = results_in(tmp_path / "results"), results_in(tmp_path / "others")
    assert killed.keys() == whole.keys()
    assert {key: killed[key]["right"] for key in killed} == {key: whole[key]["right"] for key in whole}


@pytest.mark.processes
def test_a_cluster_runs_cells_and_chains(tmp_path):
    pytest.importorskip("ray")
    cells = small("base", "sft_text", "sft_text-rl_image")
    run_cells(cells, tmp_path / "results", tmp_path / "runs", ray="local:2")
    assert cells.keys() <= results_in(tmp_path / "results").keys()


def test_the_plan_of_all_studies_counts_every_run_once():
    cells = cells_of(["recipes", "habit"], [0, 1, 2], "tiny")
    rows, _ = plan_table(cells, cells, Path("nowhere"))
    assert sum(int(row[1]) for row in rows[1:]) == len(cells) == 12 * 3
