"""Teaching phantom:smol to see and to answer in form: vision tower and merger, and a LoRA on the language model.

A plain training loop on the lessons of smol/lessons.py. Only what is trained is saved: in training.pt, from which an
interrupted run continues, and at the end in trained.safetensors, in bf16, which `medvlt smol build` puts into the model
(models/smol.py says how its weights are named).
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from medvlt_lib.core.files import atomic_write, write_json
from medvlt_lib.core.sections import Lora
from medvlt_lib.core.threads import watch_cores
from medvlt_lib.models import smol
from medvlt_lib.models.adapters import lora_config
from medvlt_lib.models.supervised import summed_loss
from medvlt_lib.smol.lessons import RECIPE, Lessons
from medvlt_lib.tiny import pretrain
from medvlt_lib.tiny.lessons import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

LORA = Lora(rank=12, alpha=24)
MEASURED = 3  # steps of each cycle that an estimate of the time is made from


def train(out: str | Path, recipe: Recipe = RECIPE) -> Path:
    """Train, and write `out`/trained.safetensors; continues from `out`/training.pt when that is there.

    Starts from the untrained model, whatever weights are shipped. Returns the file. Raises UserError as
    `checked_package`, and for a training.pt that is torn or of another recipe.
    """
    # Stage 1: the model, and where an interrupted run stopped.
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    grafted, processor = smol.untrained(smol.checked_package())
    model, lessons = learner(grafted, recipe.seed), Lessons(processor, recipe)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    step, log = 0, []
    if state := pretrain.read_training(out, recipe):
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(state["model"][name])
        optimizer.load_state_dict(state["optimizer"])
        step, log = state["step"], state["log"]

    # Stage 2: lessons. A step's time is said, and what is left with it.
    bar = tqdm(total=recipe.steps, initial=step, desc=f"smol ({sum(w.numel() for w in trained.values()):,} weights)")
    started = time.monotonic() - (log[-1]["seconds"] if log else 0)
    while step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = pretrain.learning_rate(recipe, step)
        loss = train_step(model, optimizer, lessons.batch(step))
        step += 1
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}")
        log.append({"step": step, "loss": round(loss, 4), "seconds": round(time.monotonic() - started, 1)})
        if step % recipe.save_every == 0 and step < recipe.steps:
            weights = {name: weight.detach() for name, weight in trained.items()}
            pretrain.save_training(out, recipe, weights, optimizer, step, log)

    # Stage 3: what ships.
    file = write_trained(out / "trained.safetensors", trained)
    kept = [entry for entry in log if entry["step"] % recipe.save_every == 0 or entry["step"] == recipe.steps]
    write_json(out / "training_log.json", kept)
    (out / "training.pt").unlink(missing_ok=True)
    return file


def learner(model: PreTrainedModel, seed: int) -> PeftModel:
    """The model with a new LoRA, of which LoRA, vision tower and merger are trained, in float32.

    The rest is in bf16 where the CPU multiplies that in tiles: autocast would cast it again at every use. There a step
    takes less than half the time: attention as matrix products instead of torch's fused kernel, whose backward pass
    is slow on a CPU, no casts around the LoRA, and the layers compiled where a C++ compiler is.
    """
    from peft import get_peft_model

    pretrain.embed_patches_by_matrix(model)
    if pretrain.in_bf16():
        for weight in model.model.language_model.parameters():  # not the buffers: rotary frequencies stay in float32
            weight.data = weight.data.bfloat16()
    torch.manual_seed(seed)
    model = get_peft_model(model, lora_config(LORA))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
        weight.requires_grad_("lora_" in name or ".visual." in name)
    model.get_base_model().set_attn_implementation("eager")
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False
    if can_compile():
        for layer in model.get_base_model().model.language_model.layers:
            layer.compile(dynamic=True)
    watch_cores(model)
    return model.train()


def can_compile() -> bool:
    """Whether torch finds what it compiles with."""
    return shutil.which("g++") is not None


def train_step(model: PeftModel, optimizer: torch.optim.Optimizer, parts: list[dict[str, torch.Tensor]]) -> float:
    """One update on a batch in parts. Returns its loss, the mean over the answers' tokens."""
    inner, total = model.get_base_model(), sum((part["labels"] != -100).sum() for part in parts)

    def loss_of(part: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = {name: value for name, value in part.items() if name != "labels"}
        return summed_loss(inner, inputs, part["labels"]) / total

    return pretrain.update(optimizer, parts, loss_of)


def estimate(recipe: Recipe = RECIPE) -> float:
    """Seconds that `train` would take here, from MEASURED steps of each cycle after one that is not counted."""
    grafted, processor = smol.untrained(smol.checked_package())
    model, lessons = learner(grafted, recipe.seed), Lessons(processor, recipe)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, seconds, begin = torch.optim.AdamW(weights, lr=0.0), 0.0, 0
    for cycle in recipe.cycles:
        train_step(model, optimizer, lessons.batch(begin))
        started = time.monotonic()
        for step in range(begin + 1, begin + 1 + MEASURED):
            train_step(model, optimizer, lessons.batch(step))
        seconds += (time.monotonic() - started) / MEASURED * cycle.steps
        begin += cycle.steps
    return seconds


def write_trained(file: Path, trained: dict[str, torch.nn.Parameter]) -> Path:
    """The trained weights in bf16, under the names that models/smol.py reads."""
    from safetensors.torch import save_file

    tensors = {
        name.removeprefix("base_model.model.").removesuffix(".default.weight"): weight.detach().bfloat16().contiguous()
        for name, weight in trained.items()
    }
    atomic_write(file, lambda temporary: save_file(tensors, temporary, {"scale": str(LORA.alpha / LORA.rank)}))
    return file
