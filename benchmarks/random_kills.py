"""Training that is killed at 20 random moments, against training that never stopped: SFT and GRPO, on a CPU.

    python benchmarks/random_kills.py --out benchmarks/random_kills.json

The trainings and the way they are killed (kill -9, in processes of one thread) are those of
tests/pipeline/test_resume.py, but each process starts anew as a user's does, instead of as a fork: six steps on text
and image questions, a checkpoint and a validation every second step, two updates from one sampling in GRPO. A moment
lies anywhere in the time that the unbroken training took; where a training ends all the same, it is compared, and
another one is begun.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from record import parser, save
from safetensors.torch import load_file

from medvlt_lib.core.files import read_json
from medvlt_lib.core.records import write_questions
from medvlt_lib.phantom.questions import make_questions
from tests.pipeline import test_resume
from tests.pipeline.test_resume import VALIDATED, losses, run_process

KILLS = 20


def largest_difference(one: Path, two: Path) -> float:
    """Between the weights of two checkpoints, whose names are the same."""
    a, b = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (one, two))
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


def killed(stage: str, inputs: dict[str, Path], root: Path) -> dict:
    """Train once without a kill and then with KILLS of them; how the ends compare."""
    unbroken, started = root / "unbroken", time.monotonic()
    unbroken.mkdir(parents=True)
    assert run_process(stage, unbroken, VALIDATED, inputs) == 0
    seconds = time.monotonic() - started
    chance, kills, ended, resumed = random.Random(stage), 0, [], 0
    while kills < KILLS:
        folder = root / str(len(ended))
        ended.append(folder)
        folder.mkdir()
        while not (folder / "metrics.json").exists():
            resumed += any(folder.glob("training/checkpoint-*/trainer_state.json"))
            moment = chance.uniform(0, seconds) if kills < KILLS else None
            code = run_process(stage, folder, VALIDATED, inputs, seconds=moment)
            assert code in (0, -signal.SIGKILL), (stage, kills, moment, code)
            kills += code != 0
    assert resumed >= KILLS / 4, f"{stage}: only {resumed} starts were from a checkpoint; the kills came too early"
    return {
        "kills": kills,
        "trainings_that_ended": len(ended),
        "starts_from_a_checkpoint": resumed,
        "seconds_unbroken": round(seconds, 1),
        "largest_weight_difference": max(largest_difference(unbroken, folder) for folder in ended),
        "losses_equal": all(losses(unbroken) == losses(folder) for folder in ended),
        "metrics_equal": all(
            read_json(unbroken / "metrics.json") == read_json(folder / "metrics.json") for folder in ended
        ),
    }


def main() -> None:
    arguments = parser(__doc__).parse_args()
    test_resume.SERVER = multiprocessing.get_context("spawn")
    os.environ["PYTHONFAULTHANDLER"] = "1"  # a process that dies by itself says where
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        inputs = {"data": root / "train.parquet", "validation": root / "validation.parquet"}
        write_questions(make_questions("curb65,nodule_count", "train", 24, seed=4), inputs["data"])
        write_questions(make_questions("curb65,nodule_count", "validation", 20, seed=4), inputs["validation"])
        found = {stage: killed(stage, inputs, root / stage) for stage in ("sft", "grpo")}
    hardware = f"one thread, beside other work (load {os.getloadavg()[0]:.1f} at the end)"
    save(arguments.out, ("torch", "transformers", "trl"), hardware, after_kills=found)


if __name__ == "__main__":
    main()
