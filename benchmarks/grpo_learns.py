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
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from trl import GRPOConfig, GRPOTrainer

from medvlt_lib.grading import grade
from medvlt_lib.grpo import rollout_with, training_rows
from medvlt_lib.models import load_model, load_processor
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.phantom.tiny_model import shipped
from medvlt_lib.rewards import published
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine

TRAINED = ("curb65", "apgar", "nodule_count", "dark_nuclei")
GROUP, PROMPTS = 16, 8


def answers(model, processor, questions) -> list:
    """Verdicts of greedy answers, in the order of the questions."""
    engine = TransformersEngine(model.eval(), processor)
    done = engine.generate(prompts_of(questions), Sampling(temperature=0))
    return [grade(c.text, q) for c, q in zip(done, questions, strict=True)]


def macro(right: np.ndarray, family: np.ndarray, names) -> float:
    return float(np.mean([right[family == n].mean() for n in names]))


def paired(before, after, family, names, rng, rounds: int = 2000) -> dict:
    """Macro accuracy before and after and a 95 % bootstrap interval of the difference, questions resampled by family."""
    rows = [np.flatnonzero(family == n) for n in names]
    draws = [np.mean([(after - before)[rng.choice(r, len(r))].mean() for r in rows]) for _ in range(rounds)]
    low, high = np.percentile(draws, [2.5, 97.5])
    b, a = macro(before, family, names), macro(after, family, names)
    return {"before": b, "after": a, "gain": a - b, "low": float(low), "high": float(high)}


def train(model, processor, seed: int, seconds: float, rate: float, folder: str) -> tuple[int, float]:
    """GRPO for at most `seconds`; returns the steps done and the seconds used."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            self.start = time.monotonic()

        def on_step_end(self, args, state, control, **_):
            self.used = time.monotonic() - self.start
            per_step = self.used / state.global_step
            control.should_training_stop = self.used + 1.5 * per_step > seconds

    clock = Clock()
    config = GRPOConfig(
        output_dir=folder, seed=seed, use_cpu=True, bf16=False, learning_rate=rate, lr_scheduler_type="constant_with_warmup",
        warmup_steps=5, per_device_train_batch_size=GROUP * PROMPTS, num_generations=GROUP, max_completion_length=160,
        max_steps=1000, beta=0.0, loss_type="dapo", save_strategy="no", logging_steps=5, report_to="none", disable_tqdm=True,
        gradient_checkpointing=False, temperature=1.0, max_grad_norm=1.0,
    )  # fmt: skip
    questions = make_questions(TRAINED, "train", 4000, seed=1000 + seed)
    engine = TransformersEngine(model, processor)
    trainer = GRPOTrainer(
        model, published, config, train_dataset=training_rows(questions), processing_class=processor, callbacks=[clock],
        rollout_func=rollout_with(engine, Sampling(n=GROUP, seed=seed)),
    )  # fmt: skip
    trainer.train()
    return trainer.state.global_step, clock.used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(shipped("base")), help="model folder (default: the shipped larger model)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=235, help="training time a seed")
    parser.add_argument("--rate", type=float, default=8e-5, help="learning rate")
    parser.add_argument("--questions", type=int, default=100, help="test questions a family")
    parser.add_argument("--out", help="where to record the result (JSON)")
    arguments = parser.parse_args()
    questions = make_questions("all", "test", arguments.questions * len(FAMILIES), seed=7)
    family = np.array([q.family for q in questions])
    others = [n for n in FAMILIES if n not in TRAINED]
    processor = load_processor(arguments.model)
    base = answers(load_model(arguments.model), processor, questions)
    right = lambda verdicts: np.array([v.correct for v in verdicts], dtype=float)  # noqa: E731
    runs = []
    for seed in range(arguments.seeds):
        model = load_model(arguments.model)
        steps, used = train(model, processor, seed, arguments.seconds, arguments.rate, f"/tmp/grpo_learns_{seed}")
        after = answers(model, processor, questions)
        rng = np.random.default_rng(seed)
        formed = np.array([a.well_formed and b.well_formed for a, b in zip(base, after, strict=True)])
        run = {
            "seed": seed,
            "steps": steps,
            "training_seconds": round(used, 1),
            "trained": paired(right(base), right(after), family, TRAINED, rng),
            "trained_well_formed": paired(right(base)[formed], right(after)[formed], family[formed], TRAINED, rng),
            "untrained": paired(right(base), right(after), family, others, rng),
            "by_family": {n: [float(right(v)[family == n].mean()) for v in (base, after)] for n in FAMILIES},
        }
        runs.append(run)
        print(json.dumps({k: v for k, v in run.items() if k != "by_family"}), flush=True)
    record = {
        "date": date.today().isoformat(),
        "command": "python benchmarks/grpo_learns.py",
        "settings": {**vars(arguments), "model": Path(arguments.model).name, "families": TRAINED, "group": GROUP, "prompts": PROMPTS},
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
