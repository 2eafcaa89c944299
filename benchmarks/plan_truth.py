"""How well `medvlt plan` counts: its peaks against those that torch's profiler sees when the same steps really run.

    python benchmarks/plan_truth.py --out results/memory-tiny.json

SFT and GRPO steps of the shipped larger tiny model on a CPU, with rows so many and long that activations are larger
than weights. Both sides build the stage's trainer on the same rows (medvlt_lib/tools/plan_steps.py). "seen" is the
highest running sum of the allocations that torch's profiler reports (profile_memory=True), from before the model's
weights were made. TRL's output layer works in tiles of 1,024 tokens of the vocabulary, on both sides: its own 32,768
would outweigh everything, and this model has 896. "resident" is what the process grew by meanwhile, at its highest,
which is stated and not compared: it holds freed memory, too. Each step runs in a process of its own (Linux).
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
import trl.trainer.utils as trl_utils
from record import parser, save
from torch.profiler import ProfilerActivity, profile

from medvlt_lib.core.config import Profile, load_profile
from medvlt_lib.models.loading import load_policy
from medvlt_lib.tools import plan_steps
from medvlt_lib.tools.longest_rows import completions_batch

ROWS = {
    "sft.micro_batch": 32, "sft.batch": 32, "sft.max_length": 512, "grpo.micro_batch": 64, "grpo.prompts": 8,
    "grpo.group_size": 8, "grpo.max_prompt_length": 256, "grpo.max_completion_length": 128, "grpo.updates": 1,
}  # fmt: skip
WEIGHTS = {"full": {}, "lora": {"model.lora": {"rank": 16, "alpha": 32}}, "nf4": {}}


def profile_of(weights: str, checkpointing: bool) -> Profile:
    own = {f"{stage}.gradient_checkpointing": checkpointing for stage in ("sft", "grpo")}
    return load_profile("tiny-qlora" if weights == "nf4" else "tiny", {**ROWS, **WEIGHTS[weights], **own})


@contextmanager
def small_tiles() -> Iterator[None]:
    with mock.patch.object(trl_utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 1024):
        yield


@small_tiles()
def counted(weights: str, stage: str, checkpointing: bool) -> dict:
    own = profile_of(weights, checkpointing)
    count = {"sft": plan_steps.count_sft, "grpo": plan_steps.count_grpo}[stage]
    found = count(own, plan_steps.shape_for(own), "cpu")
    return {"peak": found.peak, "parts": found.parts}


@small_tiles()
def seen(weights: str, stage: str, checkpointing: bool) -> dict:
    """The same step with real tensors."""
    own = plan_steps.alone(profile_of(weights, checkpointing))
    gc.collect()  # what was there before and is freed meanwhile would be taken off
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(own, stage, Path(tempfile.mkdtemp()))
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return {"peak": peak, "resident": 1024 * (status("VmHWM") - before)}


def step(own: Profile, stage: str, folder: Path) -> None:
    model = load_policy(own, trainable=True)
    with torch.no_grad():  # weights of a file are in memory that the allocator has not given
        for weight in model.parameters():
            weight.data = weight.data.clone()
    if stage == "sft":
        trainer = plan_steps.make_sft_trainer(own, model, folder)
        batch, loss = plan_steps.sft_batch(trainer), plan_steps.sft_loss
    else:
        trainer = plan_steps.make_grpo_trainer(own, model, folder)
        batch, loss = completions_batch(own, trainer.processing_class), plan_steps.grpo_loss
    batch = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    plan_steps.ready(trainer)
    if stage == "grpo":
        plan_steps.score(trainer, batch)
    plan_steps.update(trainer, loss(trainer, batch))


def status(name: str) -> int:
    """Kilobytes of /proc/self/status."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1])


def compared(*case: str) -> dict:
    """Both sides of one case, each in a process of its own."""
    sides = {}
    for side in ("counted", "seen"):
        command = [sys.executable, __file__, "--one", side, *case, "--out", "none"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        sides[side] = json.loads(done.stdout.splitlines()[-1])
    ratio = sides["counted"]["peak"] / sides["seen"]["peak"]
    megabytes = {part: round(size / 2**20, 1) for part, size in sides["counted"]["parts"].items()}
    return {
        "weights": case[0], "stage": case[1], "checkpointing": case[2] == "yes",
        "counted_mb": round(sides["counted"]["peak"] / 2**20, 1), "seen_mb": round(sides["seen"]["peak"] / 2**20, 1),
        "counted / seen": round(ratio, 3), "resident_mb": round(sides["seen"]["resident"] / 2**20),
        "parts_mb": megabytes,
    }  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--one", nargs=4, help="used by the benchmark itself")
    given = options.parse_args()
    if given.one:
        side, weights, stage, checkpointing = given.one
        print(json.dumps({"counted": counted, "seen": seen}[side](weights, stage, checkpointing == "yes")))
        return
    cases = [(weights, stage, on) for weights in WEIGHTS for stage in ("sft", "grpo") for on in ("no", "yes")]
    rows = [compared(*case) for case in cases]
    save(given.out, ("torch", "transformers", "trl", "peft", "bitsandbytes"), "", rows_of=ROWS, steps=rows)


if __name__ == "__main__":
    main()
