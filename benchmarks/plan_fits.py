"""What fits where, as `medvlt plan` counts it: profiles for one GPU and their variants. Nothing is run on a GPU.

    python benchmarks/plan_fits.py --out results/memory-plan.json

Peaks are of the largest rows that the settings allow, in GiB. "trains": SFT step and GRPO update fit, with the reserve.
"vLLM": it fits beside the update, too, with bf16 weights and the cache of one group. Each line is planned in a process
of its own; its seconds and resident memory (Linux) are those of the whole process. README.md's table is made of this.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from record import parser, save

from medvlt_lib.core.config import load_profile
from medvlt_lib.tools.gpus import GIB, Gpu
from medvlt_lib.tools.plan import plan_profile

SIZES = (16, 24, 40, 80)
OFF = {"sft.gradient_checkpointing": "false", "grpo.gradient_checkpointing": "false"}
LONG = {"grpo.max_completion_length": "4096"}
SMALL_PASSES = {"grpo.micro_batch": "1"}
VARIANTS: dict[str, dict[str, str]] = {
    "as in the profile": {},
    "answers of 4096 tokens": LONG,
    "answers of 4096 tokens, micro_batch 1": LONG | SMALL_PASSES,
    "no checkpointing": OFF,
    "no checkpointing, micro_batch 1": OFF | SMALL_PASSES,
}


def planned(profile: str, variant: str) -> dict:
    """Peaks of one line, and on which sizes of GPU it trains, and with vLLM beside it."""
    resolved = load_profile(profile, {**VARIANTS[variant], "model.device": "cuda"})
    fits = {}
    for size in SIZES:
        plan = plan_profile(resolved, Gpu(f"{size}GB", size * GIB))
        steps = plan.phases[:2]
        trains = all(plan.fit(phase) for phase in steps)
        beside = plan.learner + sum(plan.vllm.values()) + plan.reserve <= size * GIB
        fits[size] = "with vLLM" if trains and beside else "trains" if trains else "no"
    return {
        "sft_gib": round(plan.phases[0].peak / GIB, 1), "grpo_gib": round(plan.phases[1].peak / GIB, 1),
        "vllm_gib": round(sum(plan.vllm.values()) / GIB, 1), "fits": fits,
    }  # fmt: skip


def measured(profile: str, variant: str) -> dict:
    """A line, with the seconds and the memory that planning it took."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, __file__, "--one", profile, variant, "--out", "none"], stdout=-1, text=True
    )
    text = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, text
    took = {"seconds": round(time.perf_counter() - started, 1), "cpu_seconds": round(used.ru_utime + used.ru_stime, 1)}
    took["resident_gb"] = round(used.ru_maxrss / 2**20, 2)
    return {"profile": profile, "settings": variant, **json.loads(text.splitlines()[-1]), **took}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--one", nargs=2, help="used by the benchmark itself")
    given = options.parse_args()
    if given.one:
        print(json.dumps(planned(*given.one)))
        return
    profiles = ("qlora-3b", "lora-3b", "qlora-7b", "lora-7b")
    lines = [measured(profile, variant) for profile in profiles for variant in VARIANTS]
    lines += [measured(profile, "as in the profile") for profile in ("medvlm-r1-2b", "full-3b", "full-7b", "full-32b")]
    note = "counted, not run"
    save(given.out, ("torch", "transformers", "trl", "peft", "bitsandbytes"), "", note=note, lines=lines)


if __name__ == "__main__":
    main()
