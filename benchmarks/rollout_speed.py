"""Rollouts a second on a CPU: the transformers engine against plain `generate`, and against the arithmetic floor.

    python benchmarks/rollout_speed.py --out benchmarks/rollout_speed.json

16 samples a question at temperature 1 of the larger tiny model. `generate(num_return_sequences=16)` is timed one
question at a time and in left-padded batches, and the best is taken. Runs alternate, so that a noisy
machine troubles all alike.
The floor is 2 x parameters x tokens (prompt once, completion tokens once) at the rate of a large float32 matrix
product.
"""

from __future__ import annotations

import statistics
import time

import torch
from record import parser, save

from medvlt_lib.models.loading import load_model, shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine

SAMPLES, LIMIT, ROUNDS = 16, 128, 3
TEXT, IMAGE = "curb65,apgar", "cardiothoracic_ratio,nodule_count,cup_to_disc_ratio"


def matmul_rate() -> float:
    """Floating-point operations a second of a 2048 x 2048 matrix product."""
    a = torch.randn(2048, 2048)
    a @ a
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    return 10 * 2 * 2048**3 / (time.perf_counter() - started)


def plain(engine: TransformersEngine, questions, batch: int) -> tuple[float, int]:
    """(seconds, completion tokens) of `generate`, `batch` questions at a time."""
    prompts, tokens, started = prompts_of(questions), 0, time.perf_counter()
    for i in range(0, len(prompts), batch):
        inputs = engine.inputs(prompts[i : i + batch])
        out = engine.model.generate(
            **inputs,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=SAMPLES,
            max_new_tokens=LIMIT,
            suppress_tokens=engine.suppressed,
            eos_token_id=engine.end,
            pad_token_id=engine.pad,
        )[:, inputs["input_ids"].shape[1] :]
        tokens += int((out != engine.pad).sum())
    return time.perf_counter() - started, tokens


def ours(engine: TransformersEngine, questions) -> tuple[float, int]:
    started = time.perf_counter()
    tokens = sum(len(c.token_ids) for c in engine.generate(prompts_of(questions), Sampling(SAMPLES, 1.0, LIMIT)))
    return time.perf_counter() - started, tokens


def measure(engine: TransformersEngine, families: str, count: int, rate: float) -> dict:
    questions = make_questions(families, "train", count, seed=21)
    rollouts = count * SAMPLES
    ways = {
        "generate, 1 question": lambda: plain(engine, questions, 1),
        "generate, 8 questions": lambda: plain(engine, questions, 8),
        "generate, 32 questions": lambda: plain(engine, questions, 32),
        "engine": lambda: ours(engine, questions),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            took, tokens[name] = way()
            seconds[name].append(took)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    best = min((n for n in median if n != "engine"), key=median.get)
    prompt = sum(len(c.prompt_ids) for c in engine.generate(prompts_of(questions), Sampling(1, 0.0, 1)))
    weights = sum(p.numel() for p in engine.model.parameters())
    floor = 2 * weights * (tokens["engine"] + prompt) / rate
    return {
        "questions": count,
        "rollouts": rollouts,
        "mean_completion_tokens": round(tokens["engine"] / rollouts, 1),
        "milliseconds_a_rollout": {n: round(1000 * s / rollouts, 2) for n, s in median.items()},
        "all_seconds": {n: [round(x, 2) for x in s] for n, s in seconds.items()},
        "rollouts_per_second": round(rollouts / median["engine"], 1),
        "tokens_per_second": round(tokens["engine"] / median["engine"]),
        "times_the_best_generate": round(median[best] / median["engine"], 2),
        "best_generate": best,
        "share_of_the_arithmetic_floor": round(floor / median["engine"], 3),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--questions", type=int, default=64)
    given = options.parse_args()
    engine = TransformersEngine(load_model(shipped("base")).eval(), load_processor(shipped("base")))
    rate = matmul_rate()
    hardware = f"{torch.get_num_threads()} threads, matmul {rate / 1e9:.0f} GFLOP/s"
    figures = {
        kind: measure(engine, families, given.questions, rate) for kind, families in (("text", TEXT), ("image", IMAGE))
    }
    save(given.out, ("torch", "transformers"), hardware, **figures)


if __name__ == "__main__":
    main()
