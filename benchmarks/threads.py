"""What a busy process beside it costs the engine, a GRPO step and an SFT step, by how torch's threads wait.

    python benchmarks/threads.py --out benchmarks/threads.json

One process for each way: `policy` is what the library sets, `default` is torch's own (as many threads as cores, each of
which spins about 3 ms before it sleeps), `one_thread` is OMP_NUM_THREADS=1. They take turns, first on the idle machine,
then beside a process that burns one core. The engine's answers and the trainers' losses are compared between the ways.
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
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from record import parser, save

WAYS = {"policy": {}, "default": {"GOMP_SPINCOUNT": "300000"}, "one_thread": {"OMP_NUM_THREADS": "1"}}
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
QUESTIONS, SAMPLES, ROUNDS = 16, 16, 3


@cache
def engine():
    """The transformers engine on the larger tiny model; medvlt_lib sets its policy before torch comes."""
    from medvlt_lib.models.loading import load_model, shipped
    from medvlt_lib.models.processor import load_processor
    from medvlt_lib.rollout.transformers_engine import TransformersEngine

    return TransformersEngine(load_model(shipped("base")).eval(), load_processor(shipped("base")))


def rollouts() -> tuple[float, Any]:
    """(milliseconds a rollout, tokens of all answers) of text questions."""
    from medvlt_lib.phantom.questions import make_questions
    from medvlt_lib.rollout.engine import Sampling, prompts_of

    prompts = prompts_of(make_questions("curb65,apgar", "train", QUESTIONS, seed=21))
    engine()
    started = time.perf_counter()
    done = list(engine().generate(prompts, Sampling(SAMPLES, 1.0, 128)))
    return 1000 * (time.perf_counter() - started) / len(done), [c.token_ids for c in done]


def grpo_step() -> tuple[float, Any]:
    """(seconds a step, loss) of the `tiny` profile's GRPO, rollouts included."""
    from medvlt_lib.stages.grpo import make_trainer

    return training("grpo", make_trainer, steps=1)


def sft_step() -> tuple[float, Any]:
    """(seconds a step, loss) of the `tiny` profile's SFT."""
    from medvlt_lib.stages.sft import make_trainer

    return training("sft", make_trainer, steps=4)


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


WORK = {"engine": rollouts, "grpo_step": grpo_step, "sft_step": sft_step}


def start(variables: dict[str, str]) -> ProcessPoolExecutor:
    """A process of its own with these variables and nobody else's, which has done everything once."""
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(variables)
    process = ProcessPoolExecutor(1, get_context("spawn"))
    for work in WORK.values():
        process.submit(work).result()
    return process


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes beside us that burn one core each."""
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def measure(processes: dict[str, ProcessPoolExecutor], rounds: int) -> tuple[dict, dict]:
    """Median and all times of every work and way, and what came out; the ways take turns."""
    times: dict = {name: {way: [] for way in processes} for name in WORK}
    results: dict = {name: {} for name in WORK}
    for _ in range(rounds):
        for name, work in WORK.items():
            for way, process in processes.items():
                took, results[name][way] = process.submit(work).result()
                times[name][way].append(round(took, 3))
    return times, results


def main() -> None:
    given = parser(__doc__).parse_args()
    processes = {way: start(variables) for way, variables in WAYS.items()}
    idle, results = measure(processes, ROUNDS)
    with busy(1):
        beside, again = measure(processes, ROUNDS)
    figures = {}
    for name in WORK:
        calm = {way: median(t) for way, t in idle[name].items()}
        loud = {way: median(t) for way, t in beside[name].items()}
        figures[name] = {
            "unit": "milliseconds a rollout" if name == "engine" else "seconds",
            "idle": calm,
            "beside_one_busy_process": loud,
            "policy_idle_to_best_idle": round(calm["policy"] / min(calm.values()), 3),
            "times_slower_beside": {way: round(loud[way] / calm[way], 2) for way in processes},
            "same_result": results[name]["policy"] == results[name]["default"] == again[name]["policy"],
            "all_idle": idle[name],
            "all_beside": beside[name],
        }
    save(given.out, ("torch", "transformers", "trl"), "", **figures)


if __name__ == "__main__":
    main()
