"""Runs the cells of a study that have no result yet: questions, filtering, training, answers, result.

Everything lies in run folders under `root`: cells of equal questions share one, their world. A cell that was stopped
goes on where it was; two processes may work on the same studies, since each cell is done by one of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_jsonl
from medvlt_lib.core.runs import STAGES, Run, arm_stage, open_run
from medvlt_lib.stages import data, filtering, grpo, sft
from medvlt_lib.study.answers import ANSWERED, answer
from medvlt_lib.study.cells import Cell, Cells
from medvlt_lib.study.language import language_of
from medvlt_lib.study.results import read_result, result_of, results_in, write_result

ROOT = Path("runs") / "studies"
LOOKS = (*ANSWERED, "language")  # the last: how well plain language is foreseen (study/language.py)


def unfinished(cells: Cells, results: Path) -> Cells:
    """The cells without a result, and those whose result lacks an answer that a study asks for."""
    done = {key: result["looks"] for key, result in results_in(results).items()}
    return {
        key: (cell, looks) for key, (cell, looks) in cells.items() if key not in done or set(looks) - set(done[key])
    }


def run_cells(cells: Cells, results: Path, root: Path = ROOT, ray: str | None = None) -> None:
    """Run every cell that has no result; prints one line each. With `ray`, the cells are spread over a cluster, whose
    machines see this folder under the same path."""
    to_do = unfinished(cells, results)
    print(f"{len(cells)} runs, {len(cells) - len(to_do)} of them finished before")
    if ray:
        _on_cluster(to_do, results, root, ray)
        return
    elsewhere: list[str] = []
    for number, (key, (cell, looks)) in enumerate(to_do.items(), 1):
        try:
            with FileLock(_lock(root, key), timeout=0):
                seconds = run_cell(cell, looks, results, root)
        except Timeout:
            elsewhere.append(key)
            continue
        print(f"{number} of {len(to_do)}: {key}, {seconds:.0f} s", flush=True)
    if elsewhere:
        print(f"{len(elsewhere)} of them are the work of another process: {', '.join(elsewhere)}")


def run_cell(cell: Cell, looks: Iterable[str], results: Path, root: Path = ROOT) -> float:
    """Train and ask one cell, and write its result; returns the seconds it took, 0 where it had one."""
    path = results / f"{cell.key}.json"
    before = read_result(path) if path.exists() else None
    if before and set(looks) <= set(before["looks"]):
        return 0.0
    looks = [look for look in LOOKS if look in looks or (before and look in before["looks"])]
    started = time.monotonic()
    # Step 1: its questions, which it shares with other cells, and for RL those that are kept of them.
    world = world_of(cell, root)
    taken = [f"{stage}={world}" for stage in (("01", "02") if cell.method == "rl" else ("01",))]
    run = open_run(cell.profile, cell.key, cell.settings, inputs=taken, root=root)
    # Step 2: its training.
    checkpoint, trained = None, {}
    if cell.method != "base":
        train = sft.run if cell.method == "sft" else grpo.run
        trained = train(run, cell.arm, init=checkpoint_of(cell.start, results, root) if cell.start else None)
        checkpoint = run.stage_folder(arm_stage(cell.arm), cell.arm) / "checkpoint"
    seconds = time.monotonic() - started
    # Step 3: its answers, and for some studies its perplexity on plain language.
    rows = answer(run.profile, world / "01_data", checkpoint, [look for look in looks if look in ANSWERED])
    language = language_of(run.profile, checkpoint) if "language" in looks else {}
    spent = {"training": round(seconds, 1), "all": round(time.monotonic() - started, 1)}
    result = result_of(cell, looks, run.manifest, spent, _training(run, cell, trained))
    write_result(results, {**result, "language": language} if language else result, rows)
    return time.monotonic() - started


def world_of(cell: Cell, root: Path) -> Path:
    """The run folder with a cell's questions, and what filtering kept of them where its method needs it."""
    name = cell.world_key
    with FileLock(_lock(root, name)):
        run = open_run(cell.profile, name, cell.world, root=root)
        data.run(run)
        if cell.method == "rl":
            filtering.run(run)
    return run.folder


def checkpoint_of(cell: Cell, results: Path, root: Path) -> Path:
    """The checkpoint of a cell that another goes on from; it is trained first where it is missing."""
    folder = root / cell.key / STAGES[arm_stage(cell.arm)] / cell.arm / "checkpoint"
    if not folder.exists():
        with FileLock(_lock(root, cell.key)):
            run_cell(cell, (), results, root)
    return folder


def _training(run: Run, cell: Cell, metrics: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a training: its figures, and the accuracy on validation questions by step."""
    if cell.method == "base":
        return {}
    folder = run.stage_folder(arm_stage(cell.arm), cell.arm)
    log = folder / "log.jsonl"
    curve = [
        {"step": row["step"], "accuracy": row["validation_accuracy"]}
        for row in (read_jsonl(log) if log.exists() else ())
        if "validation_accuracy" in row
    ]
    return {**metrics, "curve": curve}


def _lock(root: Path, name: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    return root / f".{name}.study.lock"


def _on_cluster(cells: Cells, results: Path, root: Path, address: str) -> None:
    """Each cell is a task of one core; a chained cell waits for the one that it goes on from."""
    from medvlt_lib.rollout.connection import connected

    with connected(address):
        import ray

        task = ray.remote(num_cpus=1, max_retries=2)(_task)
        doing: dict[Any, str] = {}
        by_key: dict[str, Any] = {}
        for key, (cell, looks) in cells.items():
            before = by_key.get(cell.start.key) if cell.start else None
            by_key[key] = task.remote(cell, looks, results.resolve(), root.resolve(), before)
            doing[by_key[key]] = key
        total = len(doing)
        while doing:
            [done], _ = ray.wait(list(doing))
            key = doing.pop(done)
            try:
                seconds = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise UserError(str(error.cause)) from None
                raise
            print(f"{total - len(doing)} of {total}: {key}, {seconds:.0f} s", flush=True)


def _task(cell: Cell, looks: list[str], results: Path, root: Path, _: Any) -> float:
    with FileLock(_lock(root, cell.key)):
        return run_cell(cell, looks, results, root)
