"""How long and how much memory GRPO's update takes: TRL's own path against the shared prompt, on the same rollouts.

    python benchmarks/grpo_update.py --out benchmarks/grpo_update.json

Rollouts are those of the first steps of the profile `tiny` (8 questions x 16 completions a step), one modality at a
time, while it trains. An update is the loss of one step, forward and backward. "stock" is TRL's trainer with its fused
output layer; "shared" reads each prompt once, with advantages that are nowhere 0; "shared, skipping" has the true
advantages, and leaves out groups whose rewards are all equal; where all are, its ratio is null. The ways take turns, so
that a noisy machine troubles all alike. Memory is the growth of the process's peak during an update, each way in a
process of its own (Linux). A whole step is sampling and update, with TRL's own `generate` on the stock side, as its
user would run it. Long prompts: the same with text put before the question, which the model was not trained for, so its
completions are cut at 40 tokens.
"""

from __future__ import annotations

import json
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
PROMPTS = 8


def trainer_of(update: str, questions: list, group: int = 16, longest: int = 128, ours: bool = True):
    """A trainer with the update `shared` or `stock`; not `ours`: with TRL's own sampling by transformers' generate."""
    settings = {
        "grpo.update": update, "grpo.group_size": group, "grpo.prompts": PROMPTS, "grpo.micro_batch": PROMPTS * group,
        "grpo.max_prompt_length": 4000, "grpo.max_completion_length": longest,
    }  # fmt: skip
    profile = load_profile("tiny", settings)
    model = load_policy(profile, trainable=True)
    trainer = make_trainer(profile, model, profile_processor(profile), questions, Path(tempfile.mkdtemp()))
    if not ours:
        trainer.rollout_func = None
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer.create_optimizer()
    return trainer


def asked(trainer, step: int) -> list[dict]:
    """The rows of one step, as TRL's trainer gets them."""
    rows = trainer.train_dataset
    chosen = [rows[(PROMPTS * step + i) % len(rows)] for i in range(PROMPTS)]
    return [row for row in chosen for _ in range(trainer.num_generations)]


def update(trainer, batch: dict) -> float:
    trainer.model.zero_grad()
    started = time.perf_counter()
    trainer._compute_loss(trainer.model, dict(batch)).backward()
    return time.perf_counter() - started


def sample(trainer, step: int) -> tuple[dict, float]:
    trainer.state.global_step = step
    started = time.perf_counter()
    batch = trainer._generate_and_score_completions(asked(trainer, step))
    return batch, time.perf_counter() - started


def questions_of(kind: str, repeats: int = 0) -> list:
    questions = make_questions(FAMILIES[kind], "train", 240, seed=9)
    for question in questions:
        question.question = FILLER * repeats + question.question
    return questions


def measure(kind: str, steps: int, repeats: int = 0, group: int = 16, longest: int = 128) -> dict:
    questions = questions_of(kind, repeats)
    stock, shared = (trainer_of(way, questions, group, longest) for way in ("stock", "shared"))
    random = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {"sampling": [], "stock": [], "shared": [], "shared, skipping": []}
    dead, lengths = [], []
    for step in range(steps + 1):
        batch, took = sample(shared, step)
        seconds["sampling"].append(took)
        noisy = {**batch, "advantages": torch.randn(len(batch["advantages"]), generator=random)}
        dead.append((batch["advantages"].view(-1, group) == 0).all(1).float().mean().item())
        lengths.append([batch[f"{part}_mask"].sum(1).float().mean().item() for part in ("prompt", "completion")])
        seconds["stock"].append(update(stock, noisy))
        seconds["shared"].append(update(shared, noisy))
        seconds["shared, skipping"].append(update(shared, batch))
        shared.optimizer.step()  # the next step's rollouts are those of training
        stock.model.load_state_dict(shared.model.state_dict())
    middle = {way: statistics.median(times[1:]) for way, times in seconds.items()}  # the first builds what is kept
    prompt, completion = (round(statistics.fmean(column)) for column in zip(*lengths, strict=True))
    share = statistics.fmean(dead)
    return {
        "prompt_tokens": prompt, "completion_tokens": completion, "group": group, "steps": steps,
        "seconds": {way: round(value, 3) for way, value in middle.items()},
        "stock / shared": round(middle["stock"] / middle["shared"], 2),
        "stock / shared, skipping": round(middle["stock"] / middle["shared, skipping"], 2) if share < 1 else None,
        "dead_groups": round(share, 3),
    }  # fmt: skip


def whole_steps(kind: str, steps: int) -> dict:
    """Sampling and update together: ours against stock TRL with its own generate."""
    questions = questions_of(kind)
    stock, shared = trainer_of("stock", questions, ours=False), trainer_of("shared", questions)
    seconds: dict[str, list[float]] = {"stock": [], "shared": []}
    parts: dict[str, list[float]] = {"stock": [], "shared": []}
    for step in range(steps + 1):
        for way, trainer in (("stock", stock), ("shared", shared)):
            batch, sampling = sample(trainer, step)
            parts[way].append(sampling)
            seconds[way].append(sampling + update(trainer, batch))
    middle = {way: round(statistics.median(times[1:]), 3) for way, times in seconds.items()}
    sampled = {way: round(statistics.median(times[1:]), 3) for way, times in parts.items()}
    return {
        "seconds": middle,
        "of_which_sampling": sampled,
        "stock / shared": round(middle["stock"] / middle["shared"], 2),
    }


def peak_growth(way: str, kind: str) -> None:
    """Prints the megabytes that one update adds to the memory of this process, at its highest."""
    trainer = trainer_of(way, questions_of(kind))
    batch, _ = sample(trainer, 0)
    batch["advantages"] = torch.randn(len(batch["advantages"]))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status("VmRSS")
    update(trainer, batch)
    print(json.dumps((status("VmHWM") - before) / 1024))


def status(name: str) -> int:
    """Kilobytes of /proc/self/status."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1])


def memory(kind: str) -> dict:
    grown = {}
    for way in ("stock", "shared"):
        command = [sys.executable, __file__, "--memory", way, kind, "--out", "none"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        grown[way] = round(json.loads(done.stdout.splitlines()[-1]))
    return {"megabytes": grown, "stock / shared": round(grown["stock"] / max(grown["shared"], 1), 2)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--memory", nargs=2, help="used by the benchmark itself")
    given = options.parse_args()
    if given.memory:
        peak_growth(*given.memory)
        return
    figures: dict = {}
    for kind in FAMILIES:
        figures[kind] = {
            **measure(kind, given.steps),
            "memory": memory(kind),
            "whole_step": whole_steps(kind, max(given.steps // 4, 1)),
        }
    few = max(given.steps // 8, 1)
    figures["by prompt length, text"] = [measure("text", few, repeats, longest=40) for repeats in (0, 10, 40)]
    for kind in FAMILIES:
        figures[f"by group size, {kind}"] = [measure(kind, few, 0, group) for group in (4, 8, 16)]
    save(given.out, ("torch", "transformers", "trl"), f"{torch.get_num_threads()} threads", **figures)


if __name__ == "__main__":
    main()
