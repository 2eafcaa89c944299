"""How long and how much memory GRPO's update takes: TRL's own path against the shared prompt, on the same rollouts.

    python benchmarks/grpo_update.py --out benchmarks/grpo_update.json

Rollouts are those of the profile `tiny` before training (8 questions x 16 completions a step), one modality at a time.
An update is the loss of one step, forward and backward. "stock" is TRL's trainer with its fused output layer; "shared"
reads each prompt once, with advantages that are nowhere 0; "shared, skipping" has the true advantages, and leaves out
groups whose rewards are all equal. The ways take turns, so that a noisy machine troubles all alike. Memory is the
growth of the process's peak during an update, each way in a process of its own. Long prompts: the same, with text put
before the question.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from record import parser, save

from medvlt_lib.core.config import load_profile
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training.grpo_trainer import make_trainer

FAMILIES = {"text": "curb65,apgar", "image": "cardiothoracic_ratio,nodule_count,cup_to_disc_ratio"}
FILLER = "Rate 12, pressure 120/80. "


def trainer_of(update: str, questions: list, group: int = 16):
    settings = {
        "grpo.update": update, "grpo.group_size": group, "grpo.prompts": 8, "grpo.micro_batch": 8 * group,
        "grpo.max_prompt_length": 4000,
    }  # fmt: skip
    profile = load_profile("tiny", settings)
    folder = Path(tempfile.mkdtemp())
    model = load_policy(profile, trainable=True)
    trainer = make_trainer(profile, model, profile_processor(profile), questions, folder)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def rollouts(trainer, steps: int) -> list[dict]:
    """Scored generation batches of the first steps' questions."""
    rows, group = trainer.train_dataset, trainer.num_generations
    batches = []
    for step in range(steps):
        trainer.state.global_step = step
        asked = [rows[(8 * step + i) % len(rows)] for i in range(8)]
        batches.append(trainer._generate_and_score_completions([row for row in asked for _ in range(group)]))
    return batches


def update(trainer, batch: dict) -> float:
    trainer.model.zero_grad()
    started = time.perf_counter()
    trainer._compute_loss(trainer.model, dict(batch)).backward()
    return time.perf_counter() - started


def long_questions(kind: str, repeats: int) -> list:
    questions = make_questions(FAMILIES[kind], "train", 24, seed=9)
    for question in questions:
        question.question = FILLER * repeats + question.question
    return questions


def measure(kind: str, steps: int, repeats: int = 0, group: int = 16) -> dict:
    questions = long_questions(kind, repeats)
    stock, shared = trainer_of("stock", questions, group), trainer_of("shared", questions, group)
    batches = rollouts(stock, steps)
    torch.manual_seed(0)
    seconds: dict[str, list[float]] = {"stock": [], "shared": [], "shared, skipping": []}
    dead = []
    for batch in batches:
        noisy = {**batch, "advantages": torch.randn(len(batch["advantages"]))}
        dead.append((batch["advantages"].view(-1, group) == 0).all(1).float().mean().item())
        seconds["stock"].append(update(stock, noisy))
        seconds["shared"].append(update(shared, noisy))
        seconds["shared, skipping"].append(update(shared, batch))
    middle = {way: statistics.median(times[1:]) for way, times in seconds.items()}  # the first builds what is kept
    lengths = {
        part: round(batches[0][f"{part}_mask"].sum(1).float().mean().item()) for part in ("prompt", "completion")
    }
    return {
        "prompt_tokens": lengths["prompt"], "completion_tokens": lengths["completion"],
        "group": group, "seconds": {way: round(value, 3) for way, value in middle.items()},
        "stock / shared": round(middle["stock"] / middle["shared"], 2),
        "stock / shared, skipping": round(middle["stock"] / middle["shared, skipping"], 2),
        "dead_groups": round(statistics.fmean(dead), 3),
    }  # fmt: skip


def peak_growth(way: str, kind: str) -> None:
    """Megabytes that one update adds to the peak of this process (run in a process of its own)."""
    trainer = trainer_of(way, long_questions(kind, 0))
    [batch] = rollouts(trainer, 1)
    batch["advantages"] = torch.randn(len(batch["advantages"]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    update(trainer, batch)
    print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def memory(kind: str) -> dict:
    grown = {}
    for way in ("stock", "shared"):
        command = [sys.executable, __file__, "--memory", way, kind, "--out", "none"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        grown[way] = round(json.loads(done.stdout.splitlines()[-1]))
    return {"megabytes": grown, "stock / shared": round(grown["stock"] / max(grown["shared"], 1), 2)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--memory", nargs=2, help="used by the benchmark itself")
    given = options.parse_args()
    if given.memory:
        peak_growth(*given.memory)
        return
    figures: dict = {kind: {**measure(kind, given.steps), "memory": memory(kind)} for kind in FAMILIES}
    figures["long prompts, text"] = [measure("text", 3, repeats) for repeats in (10, 40)]
    figures["small groups, text"] = [measure("text", 3, 0, group) for group in (4, 8)]
    save(given.out, ("torch", "transformers", "trl"), f"{torch.get_num_threads()} threads", **figures)


if __name__ == "__main__":
    main()
