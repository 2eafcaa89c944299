"""Does GRPO teach the larger tiny model? Three seeds, at most four minutes of training each, on two cores.

    python benchmarks/grpo_learns.py --out benchmarks/grpo_learns.json

Four families are trained (named below, before any run), the other twelve only measured. Accuracy is greedy, on the
same held-out test questions before and after, with a paired bootstrap interval of the macro difference; the same is
computed among the questions answered in good form both times, to show that the gain is not form alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.stats import macro, macro_interval
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_model, shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.training.grpo_trainer import make_trainer

TRAINED = ("curb65", "apgar", "nodule_count", "cup_to_disc_ratio")


def answers(model, processor, questions) -> list:
    """Verdicts of greedy answers, in the order of the questions."""
    engine = TransformersEngine(model.eval(), processor)
    done = engine.generate(prompts_of(questions), Sampling(temperature=0))
    return [grade(c.text, q) for c, q in zip(done, questions, strict=True)]


def paired(before: np.ndarray, after: np.ndarray, questions: list, keep: np.ndarray) -> dict:
    """Macro accuracy before and after on the kept questions, and the paired 95 % interval of the difference."""
    rows = [q for q, k in zip(questions, keep, strict=True) if k]
    strata, clusters = [q.group for q in rows], [q.cluster for q in rows]
    low, high, _ = macro_interval(after[keep] - before[keep], strata, clusters, bounds=(-1, 1))
    b, a = macro(before[keep], strata), macro(after[keep], strata)
    return {"questions": len(rows), "before": b, "after": a, "gain": a - b, "low": low, "high": high}


def train(model, processor, seed: int, seconds: float, rate: float) -> tuple[int, float, list[float]]:
    """The `tiny` profile's GRPO for at most `seconds`; returns steps, seconds used, mean reward of every step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            self.start = time.monotonic()

        def on_step_end(self, args, state, control, **_):
            self.used = time.monotonic() - self.start
            control.should_training_stop = self.used * (state.global_step + 1) / state.global_step > seconds

    clock = Clock()
    changes = {"grpo.learning_rate": rate, "grpo.seed": seed, "grpo.max_steps": 1000, "grpo.save_every": 10_000}
    profile = load_profile("tiny", changes)
    questions = make_questions(TRAINED, "train", 4000, seed=1000 + seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(profile, model, processor, questions, Path(folder), [clock])
        trainer.train()
    means = [round(float(row["reward"]), 3) for row in trainer.state.log_history if "reward" in row]
    return trainer.state.global_step, clock.used, means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=str(shipped("base")), help="model folder (default: the shipped larger model)"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=235, help="training time a seed")
    parser.add_argument("--rate", type=float, default=8e-5, help="learning rate")
    parser.add_argument("--questions", type=int, default=100, help="test questions a family")
    parser.add_argument("--out", help="where to record the result (JSON)")
    arguments = parser.parse_args()
    questions = make_questions("all", "test", arguments.questions * len(FAMILIES), seed=7)
    family = np.array([q.family for q in questions])
    trained = np.isin(family, TRAINED)
    processor = load_processor(arguments.model)
    base = answers(load_model(arguments.model), processor, questions)
    right = lambda verdicts: np.array([v.correct for v in verdicts], dtype=float)  # noqa: E731
    runs = []
    for seed in range(arguments.seeds):
        model = load_model(arguments.model)
        steps, used, rewards = train(model, processor, seed, arguments.seconds, arguments.rate)
        after = answers(model, processor, questions)
        formed = np.array([a.well_formed and b.well_formed for a, b in zip(base, after, strict=True)])
        run = {
            "seed": seed,
            "steps": steps,
            "training_seconds": round(used, 1),
            "rewards": rewards,
            "trained": paired(right(base), right(after), questions, trained),
            "trained_well_formed": paired(right(base), right(after), questions, trained & formed),
            "untrained": paired(right(base), right(after), questions, ~trained),
            "by_family": {n: [float(right(v)[family == n].mean()) for v in (base, after)] for n in FAMILIES},
        }
        runs.append(run)
        print(json.dumps({k: v for k, v in run.items() if k not in ("by_family", "rewards")}), flush=True)
    record = {
        "date": date.today().isoformat(),
        "command": "python benchmarks/grpo_learns.py",
        "settings": {
            **vars(arguments),
            "model": Path(arguments.model).name,
            "families": TRAINED,
            "profile": load_profile("tiny").grpo.model_dump(),
        },
        "machine": {"processor": platform.machine(), "cores": torch.get_num_threads()},
        "versions": {n: version(n) for n in ("torch", "transformers", "trl")},
        "mean_gain": float(np.mean([r["trained"]["gain"] for r in runs])),
        "mean_gain_well_formed": float(np.mean([r["trained_well_formed"]["gain"] for r in runs])),
        "runs": runs,
    }
    print(f"mean gain over {len(runs)} seeds: {100 * record['mean_gain']:.1f} points")
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
