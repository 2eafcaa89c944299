"""Pretraining a tiny model from scratch on the phantom world, to a middling level.

The steps are a tokenizer, sequences from the teacher (tiny/lessons.py), a plain training loop with checkpoints, and the
model folder.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.threads import watch_cores
from medvlt_lib.tiny.architecture import build_tiny_processor, checked_size, tiny_config
from medvlt_lib.tiny.lessons import RECIPES, Lessons, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


def weighted_loss(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Next-token cross-entropy, summed by weight. logits (B, T, V), ids and weights (B, T)."""
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
    )
    return (loss * weights[:, 1:].flatten()).sum()


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up at the start of the run; in every cycle a cosine down to a twentieth."""
    cycle, inside = recipe.cycle_at(step)
    if step < recipe.warmup:
        return cycle.learning_rate * (step + 1) / recipe.warmup
    warmed = recipe.warmup if cycle is recipe.cycles[0] else 0
    done = (inside - warmed) / max(1, (cycle.horizon or cycle.steps) - warmed)
    return cycle.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def pretrain(size: str, out: str | Path, recipe: Recipe | None = None) -> None:
    """Train a tiny model and write its folder; continues from `out`/training.pt when that is there."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    recipe = recipe or RECIPES[checked_size(size)]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    processor = build_tiny_processor()
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(size, processor.tokenizer))
    embed_patches_by_matrix(model)
    watch_cores(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.05)
    step, log = 0, []
    if state := read_training(out, recipe):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, log = state["step"], state["log"]
    lessons = Lessons(processor, recipe)
    bar = tqdm(
        total=recipe.steps,
        initial=step,
        desc=f"pretraining {size} ({sum(p.numel() for p in model.parameters()):,} weights)",
    )
    started = time.monotonic() - (log[-1]["seconds"] if log else 0)
    while step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        loss = train_step(model, optimizer, lessons.batch(step))
        step += 1
        bar.update()
        if step % 25 == 0:
            log.append({"step": step, "loss": round(loss, 4), "seconds": round(time.monotonic() - started, 1)})
            bar.set_postfix(loss=f"{loss:.3f}")
        if step % recipe.save_every == 0 and step < recipe.steps:
            save_training(out, recipe, model.state_dict(), optimizer, step, log)
    save_folder(model, processor, out)
    (out / "training_log.json").write_text(json.dumps(log))
    (out / "training.pt").unlink(missing_ok=True)


def embed_patches_by_matrix(model: PreTrainedModel) -> None:
    """The convolution that embeds patches is one matrix product, and on a CPU quicker as such."""
    patches = model.model.visual.patch_embed

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(pixels, patches.proj.weight.flatten(1))

    patches.forward = forward


def train_step(model: PreTrainedModel, optimizer: torch.optim.Optimizer, parts: list[dict[str, torch.Tensor]]) -> float:
    """One update on a batch in parts. Returns its loss, the mean over all tokens by weight."""
    total = sum(part["weights"][:, 1:].sum() for part in parts)

    def loss_of(part: dict[str, torch.Tensor]) -> torch.Tensor:
        weights = part.pop("weights")
        return weighted_loss(model(**part, use_cache=False).logits, part["input_ids"], weights) / total

    return update(optimizer, parts, loss_of)


def update(
    optimizer: torch.optim.Optimizer,
    parts: list[dict[str, torch.Tensor]],
    loss_of: Callable[[dict[str, torch.Tensor]], torch.Tensor],
) -> float:
    """One step of the optimizer on the sum of the parts' losses, which is returned; gradients are clipped at norm 1."""
    loss = 0.0
    optimizer.zero_grad(set_to_none=True)
    for part in parts:
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16()):
            part_loss = loss_of(part)
        part_loss.backward()
        loss += part_loss.item()
    torch.nn.utils.clip_grad_norm_([weight for group in optimizer.param_groups for weight in group["params"]], 1.0)
    optimizer.step()
    return loss


def in_bf16() -> bool:
    """Whether bf16 is quicker than float32 here: only where the CPU multiplies it in tiles."""
    return torch.cpu._is_amx_tile_supported()


def save_folder(model: PreTrainedModel, processor: ProcessorMixin, out: str | Path) -> None:
    """A folder that plain transformers loads: bf16 safetensors, tokenizer and processor."""
    model.to(torch.bfloat16).save_pretrained(out)
    processor.save_pretrained(out)


def save_training(
    out: Path, recipe: Recipe, model: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, step: int, log: list
) -> None:
    """Write `out`/training.pt, from which an interrupted run continues. `model`: its weights by name."""
    state = {
        "recipe": asdict(recipe),
        "model": model,
        "optimizer": optimizer.state_dict(),
        "step": step,
        "log": log,
    }
    atomic_write(out / "training.pt", lambda temporary: torch.save(state, temporary))


def read_training(out: Path, recipe: Recipe) -> dict[str, Any] | None:
    """What `save_training` wrote; None where nothing is. Raises UserError where it is torn or of another recipe."""
    path = out / "training.pt"
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read; delete it to start again.") from error
    if state["recipe"] != asdict(recipe):
        raise UserError(f"{path} belongs to another recipe; delete it or choose another --out.")
    return state
