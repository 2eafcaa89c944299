"""What GRPO teaches the larger tiny model: seeds, losses, rewards, and ways to choose questions, at equal budget.

    python benchmarks/grpo_learns.py --out benchmarks/grpo_learns.json

Every run trains the profile `tiny` for 40 steps of 128 completions on the profile's five families, 400 questions that
were not filtered; runs with two updates a step make 80. Accuracy is greedy, macro over families, on the same 400
held-out test questions before and after, with a paired 95 % interval of the difference; a curve on 200 validation
questions every five steps counts all rollouts, those thrown away too. Steps that answers state are checked by
medvlt_lib/phantom/rationale.py. A run that is in --out already is not done again, so that the benchmark may be stopped
and started. In the record a run took 2.2 to 12.4 minutes (two cores, one thread).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from record import parser, save

from medvlt_lib.core.config import Profile, load_profile
from medvlt_lib.core.records import Question
from medvlt_lib.core.stats import macro, macro_interval
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.phantom.rationale import judge
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.training.grpo_trainer import make_trainer

FAMILIES = "curb65,apgar,cardiothoracic_ratio,nodule_count,cup_to_disc_ratio"
STEPS = 40
TWO_UPDATES = {"grpo.updates": 2, "grpo.max_steps": 2 * STEPS, "grpo.micro_batch": 64}  # ratios differ from 1
RUNS: dict[str, tuple[dict, tuple[int, ...]]] = {
    "plain": ({}, (0, 1, 2)),
    "grounded": ({"grpo.reward": "grounded"}, (0, 1, 2)),
    "online": ({"grpo.order": "online"}, (0, 1, 2)),
    "dynamic sampling": ({"grpo.dynamic_sampling": 3}, (0, 1, 2)),
    "dapo": (TWO_UPDATES, (0,)),
    "clip-higher": ({**TWO_UPDATES, "grpo.epsilon_high": 0.28}, (0,)),
    "grpo": ({**TWO_UPDATES, "grpo.loss_type": "grpo"}, (0,)),
    "dr_grpo": ({**TWO_UPDATES, "grpo.loss_type": "dr_grpo", "grpo.scale_rewards": "none"}, (0,)),
    "bnpo": ({**TWO_UPDATES, "grpo.loss_type": "bnpo"}, (0,)),
    "gspo": ({**TWO_UPDATES, "grpo.loss_type": "gspo"}, (0,)),
    "cispo": ({**TWO_UPDATES, "grpo.loss_type": "cispo"}, (0,)),
    "kl": ({**TWO_UPDATES, "grpo.beta": 0.01}, (0,)),
}


def answers(model, processor, questions: list[Question]) -> list[str]:
    """Greedy answers, in the order of the questions."""
    training = model.training
    engine = TransformersEngine(model.eval(), processor)
    texts = [c.text for c in engine.generate(prompts_of(questions), Sampling(temperature=0, max_new_tokens=128))]
    model.train(training)
    return texts


def train_quietly(trainer) -> None:
    """Train without a bar or a line a step."""
    from transformers import PrinterCallback, ProgressCallback

    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.train()


def right(texts: list[str], questions: list[Question]) -> np.ndarray:
    return np.array([grade(t, q).correct for t, q in zip(texts, questions, strict=True)], dtype=float)


def step_figures(texts: list[str], questions: list[Question]) -> dict:
    """Steps that answers state: how many an answer, the share that is true, and the share of answers that are right
    with steps that are true and lead there."""
    verdicts: Counter = Counter()
    grounded = []
    for text, question in zip(texts, questions, strict=True):
        judgement = judge(text.partition("<answer>")[0], question.family, question.extra["facts"], question.options)
        verdicts.update(step.verdict for step in judgement.steps if step.verdict != "no step")
        led = judgement.grounded and judgement.letter == question.answer_label
        grounded.append(float(led and grade(text, question).correct))
    steps = sum(verdicts.values())
    return {
        "steps_an_answer": round(steps / len(texts), 2),
        "true_steps": round(verdicts["true"] / max(steps, 1), 4),
        "right_by_true_steps": round(macro(grounded, [q.group for q in questions]), 4),
    }


def compared(before: np.ndarray, after: np.ndarray, questions: list[Question]) -> dict:
    """Macro accuracy before and after, and the paired 95 % interval of the difference."""
    strata = [q.group for q in questions]
    low, high, _ = macro_interval(after - before, strata, [q.cluster for q in questions], bounds=(-1, 1))
    b, a = macro(before, strata), macro(after, strata)
    figures = {"before": b, "after": a, "gain": a - b, "low": low, "high": high}
    return {key: round(value, 4) for key, value in figures.items()}


def run(profile: Profile, seed: int, base: list[str], test: list[Question], validation: list[Question]) -> dict:
    """Train once and say what it was worth."""
    from transformers import TrainerCallback

    class Curve(TrainerCallback):
        rows: list[dict] = []

        def on_step_end(self, args, state, control, **_):
            if state.global_step % (5 * profile.grpo.updates) == 0:
                accuracy = macro(
                    right(answers(model, processor, validation), validation), [q.group for q in validation]
                )
                rollouts = trainer.queue.taken * profile.grpo.group_size
                self.rows = [*self.rows, {"rollouts": rollouts, "accuracy": round(accuracy, 4)}]

    processor = profile_processor(profile)
    model = load_policy(profile, trainable=True)
    questions, curve = make_questions(FAMILIES, "train", 400, seed=1000), Curve()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(profile, model, processor, questions, Path(folder), [curve])
        train_quietly(trainer)
    minutes = (time.monotonic() - started) / 60
    after = answers(model, processor, test)
    rows = [row for row in trainer.state.log_history if "reward" in row]
    result = {
        "minutes": round(minutes, 1), "updates": trainer.state.global_step, "rollouts": trainer.queue.taken * 16,
        **compared(right(base, test), right(after, test), test),
        "steps": step_figures(after, test), "curve": curve.rows,
        "rewards": [round(row["reward"], 3) for row in rows],
        "live_groups": [round(row["live_groups"], 3) for row in rows if "live_groups" in row],
    }  # fmt: skip
    for kind in ("text", "image"):
        own = [i for i, q in enumerate(test) if q.modality == kind]
        chosen = [test[i] for i in own]
        result[kind] = compared(right(base, test)[own], right(after, test)[own], chosen)
    return result


def summary(runs: dict[str, dict]) -> dict:
    """Means over seeds, and the rollouts to 80 % of plain's final gain on the validation curve."""
    figures: dict[str, dict] = {}
    for name in RUNS:
        own = [result for key, result in runs.items() if key.rpartition(" ")[0] == name]
        if own:
            figures[name] = {
                "seeds": len(own),
                "gain": round(float(np.mean([r["gain"] for r in own])), 4),
                "true_steps": round(float(np.mean([r["steps"]["true_steps"] for r in own])), 4),
                "right_by_true_steps": round(float(np.mean([r["steps"]["right_by_true_steps"] for r in own])), 4),
                "live_groups": round(float(np.mean([np.mean(r["live_groups"]) for r in own])), 4),
                "rollouts": round(float(np.mean([r["rollouts"] for r in own]))),
            }
    for name in ("plain", "online", "dynamic sampling"):
        needed = []
        for seed in (0, 1, 2):
            plain, own = runs.get(f"plain {seed}"), runs.get(f"{name} {seed}")
            if plain and own:
                goal = plain["validation_before"] + 0.8 * (plain["curve"][-1]["accuracy"] - plain["validation_before"])
                needed.append(next((row["rollouts"] for row in own["curve"] if row["accuracy"] >= goal), None))
        if needed:
            figures[name]["rollouts_to_80_percent_of_plains_gain"] = needed
    return figures


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--only", nargs="+", choices=RUNS, default=list(RUNS), help="runs of these names (default: all)"
    )
    given = options.parse_args()
    runs: dict[str, dict] = json.loads(given.out.read_text())["runs"] if given.out.exists() else {}
    test = make_questions(FAMILIES, "test", 400, seed=7)
    validation = make_questions(FAMILIES, "validation", 200, seed=8)
    tiny = load_profile("tiny")
    model, processor = load_policy(tiny), profile_processor(tiny)
    base, first = answers(model, processor, test), answers(model, processor, validation)
    at_start = macro(right(first, validation), [q.group for q in validation])
    for name, seed in sorted(((n, s) for n in given.only for s in RUNS[n][1]), key=lambda pair: pair[1]):
        key = f"{name} {seed}"
        if key in runs:
            continue
        changes = {"grpo.max_steps": STEPS, "grpo.save_every": 10_000, **RUNS[name][0], "grpo.seed": seed}
        profile = load_profile("tiny", changes)
        runs[key] = {"validation_before": round(at_start, 4), **run(profile, seed, base, test, validation)}
        print(key, {k: runs[key][k] for k in ("gain", "low", "high", "minutes", "rollouts")}, flush=True)
        save(
            given.out, ("torch", "transformers", "trl"), f"{torch.get_num_threads()} threads",
            base_steps=step_figures(base, test), summary=summary(runs), runs=runs,
        )  # fmt: skip


if __name__ == "__main__":
    main()
