"""What a busy process beside it costs the engine, a GRPO step and an SFT step, by what is said about torch's threads.

    python benchmarks/threads.py --out benchmarks/threads.json

One process for each way: `policy` is the library's own (medvlt_lib/core/threads.py), `default` is torch's (as many
threads as cores, each of which spins 300,000 times before it sleeps), `one_thread` is OMP_NUM_THREADS=1. They take
turns, first on the idle machine, then beside a process that burns one core. The engine's answers and the trainers'
losses are compared between the ways. About six minutes on two cores; the machine has to be idle but for this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from record import parser, save

WAYS = {"policy": {}, "default": {"GOMP_SPINCOUNT": "300000"}, "one_thread": {"OMP_NUM_THREADS": "1"}}
QUESTIONS, SAMPLES = 16, 16


@cache
def engine():
    """The transformers engine on the larger tiny model; medvlt_lib sets its policy before torch comes."""
    from medvlt_lib.models.loading import load_model, shipped
    from medvlt_lib.models.processor import load_processor
    from medvlt_lib.rollout.transformers_engine import TransformersEngine

    return TransformersEngine(load_model(shipped("base")).eval(), load_processor(shipped("base")))


def answer(questions: int) -> list:
    """Completions of text questions, SAMPLES each."""
    from medvlt_lib.phantom.questions import make_questions
    from medvlt_lib.rollout.engine import Sampling, prompts_of

    prompts = prompts_of(make_questions("curb65,apgar", "train", questions, seed=21))
    return list(engine().generate(prompts, Sampling(SAMPLES, 1.0, 128)))


def rollouts() -> tuple[float, Any]:
    """(milliseconds a rollout, tokens of all answers)."""
    started = time.perf_counter()
    done = answer(QUESTIONS)
    return 1000 * (time.perf_counter() - started) / len(done), [c.token_ids for c in done]


def grpo_step() -> tuple[float, Any]:
    """(seconds a step, loss) of the `tiny` profile's GRPO, rollouts included."""
    from medvlt_lib.training.grpo_trainer import make_trainer

    return training("grpo", make_trainer, steps=1)


def sft_step() -> tuple[float, Any]:
    """(seconds a step, loss) of the `tiny` profile's SFT."""
    from medvlt_lib.training.sft_trainer import make_trainer

    return training("sft", make_trainer, steps=3)


def training(section: str, make_trainer: Callable, steps: int) -> tuple[float, Any]:
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback

    from medvlt_lib.core.config import load_profile
    from medvlt_lib.models.loading import load_model, shipped
    from medvlt_lib.phantom.questions import make_questions

    class Clock(TrainerCallback):
        def on_train_begin(self, *_, **__):
            self.started = time.perf_counter()

        def on_step_end(self, *_, **__):
            self.ended = time.perf_counter()

    clock = Clock()
    profile = load_profile("tiny", {f"{section}.max_steps": steps, f"{section}.save_every": 1000})
    questions = make_questions("curb65,apgar", "train", 64, seed=21)
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(shipped("base"))
        trainer = make_trainer(profile, model, engine().processor, questions, Path(folder), [clock])
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.train()
    return (clock.ended - clock.started) / steps, [row["loss"] for row in trainer.state.log_history if "loss" in row]


@dataclass(frozen=True)
class Work:
    do: Callable[[], tuple[float, Any]]
    unit: str
    idle_rounds: int
    busy_rounds: int


WORK = {
    "engine": Work(rollouts, "milliseconds a rollout", 6, 2),
    "grpo_step": Work(grpo_step, "seconds a step", 3, 1),
    "sft_step": Work(sft_step, "seconds a step", 5, 2),
}


def timed(name: str) -> tuple[float, Any]:
    """One piece of work after a short warm-up, so that the cores have just been looked at, as in a run that goes on."""
    answer(4)
    return WORK[name].do()


def start(variables: dict[str, str]) -> ProcessPoolExecutor:
    """A process of its own with these variables and no others about threads, which has done every work once."""
    from medvlt_lib.core.threads import PERSONAL

    for name in PERSONAL:
        os.environ.pop(name, None)
    os.environ.update(variables)
    process = ProcessPoolExecutor(1, get_context("spawn"))
    for name in WORK:
        process.submit(timed, name).result()
    return process


@contextmanager
def busy() -> Iterator[None]:
    """A process beside us that burns one core."""
    burning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        burning.kill()
        burning.wait()


def measure(processes: dict[str, ProcessPoolExecutor], name: str, rounds: int) -> tuple[dict[str, list], list]:
    """All times of one work by way, and what came out; the ways take turns."""
    times: dict[str, list] = {way: [] for way in processes}
    results = []
    for _ in range(rounds):
        for way, process in processes.items():
            took, result = process.submit(timed, name).result()
            times[way].append(round(took, 3))
            results.append(result)
        print(name, {way: t[-1] for way, t in times.items()}, file=sys.stderr, flush=True)
    return times, results


def main() -> None:
    given = parser(__doc__).parse_args()
    processes = {way: start(variables) for way, variables in WAYS.items()}
    idle = {name: measure(processes, name, work.idle_rounds) for name, work in WORK.items()}
    with busy():
        beside = {name: measure(processes, name, work.busy_rounds) for name, work in WORK.items()}
    figures = {}
    for name, work in WORK.items():
        calm, loud = ({way: median(t) for way, t in times[name][0].items()} for times in (idle, beside))
        results = idle[name][1] + beside[name][1]
        figures[name] = {
            "unit": work.unit,
            "idle": calm,
            "beside_one_busy_process": loud,
            "policy_to_the_best_idle": round(calm["policy"] / min(calm.values()), 3),
            "times_slower_beside": {way: round(loud[way] / calm[way], 2) for way in processes},
            "same_results": all(result == results[0] for result in results),
            "all_idle": idle[name][0],
            "all_beside": beside[name][0],
        }
    save(given.out, ("torch", "transformers", "trl"), "", **figures)


if __name__ == "__main__":
    main()
