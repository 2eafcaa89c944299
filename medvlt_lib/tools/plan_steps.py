"""The training stages' own steps, on fake tensors in the largest shape that a profile allows, with their bytes counted.

The trainer, its batch, forward, loss and optimizer are those of the stage: `training.sft_trainer.make_trainer` with its
collator and TRL's loss, `training.grpo_trainer.make_trainer` with the shared prompt. Every row is as long as it may be
and has one picture of the largest size (medvlt_lib.tools.longest_rows). Only the model's weights do not exist
(medvlt_lib.tools.fake_models), and a GPU is pretended (medvlt_lib.tools.on_gpu).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import trl.trainer.utils as trl_utils
from accelerate import Accelerator
from transformers import Trainer

from medvlt_lib.core.config import Profile, checked
from medvlt_lib.tools.counting import Counting
from medvlt_lib.tools.fake_models import Shape, fake_policy, shape_of
from medvlt_lib.tools.longest_rows import completions_batch, longest_question, stand_in_processor
from medvlt_lib.tools.on_gpu import BLOCK, autocast, on_gpu
from medvlt_lib.training import grpo_trainer, sft_trainer
from medvlt_lib.training.shared_prompt import switch_on


@dataclass(frozen=True)
class Counted:
    """A training step. `peak`: bytes at its highest moment, of which `parts` says what they were for. `resting`: bytes
    between two steps. `flops` of one forward and backward pass; `passes` of them make an update. `trained`: how
    many weights are trained."""

    peak: int
    parts: dict[str, int]
    resting: int
    flops: int
    passes: int
    trained: int


def alone(profile: Profile) -> Profile:
    """A profile's share of one device, as settings that need neither a GPU nor a server."""
    values, devices = profile.model_dump(), profile.launch.devices
    values["model"] |= {"device": "cpu"}
    values["launch"] |= {"devices": 1, "machines": 1, "strategy": "single", "tracker": "none"}
    values["sft"]["batch"] //= devices
    values["grpo"]["prompts"] //= devices
    values["grpo"] |= {"sampler": "engine", "order": "shuffled", "dynamic_sampling": 0, "validate_every": None}
    values["engine"]["kind"] = "transformers"
    return checked(values)


def shape_for(profile: Profile) -> Shape:
    """The shape of a profile's model. Raises UserError as `shape_of`."""
    return shape_of(profile.model.name, stand_in_processor(profile))


def count_sft(profile: Profile, shape: Shape, device: str = "cuda") -> Counted:
    """One SFT step of a profile on one device."""
    own = alone(profile)
    with _pretending(device) as counting, tempfile.TemporaryDirectory() as folder:
        model = fake_policy(own, shape.config, counting, _type_of_weights(profile, device))
        with counting:
            trainer = make_sft_trainer(own, model, Path(folder))
        batch = sft_batch(trainer)
        _watch(counting, trainer, batch)
        with counting:
            update(trainer, sft_loss(trainer, batch))
        return _counted(counting, trainer, own.sft_accumulation())


def _type_of_weights(profile: Profile, device: str) -> torch.dtype:
    """As `load_policy` has them; where FSDP or ZeRO-3 spread them, as a module sees them when it is its turn."""
    m = profile.model
    if m.quantization == "nf4":
        return torch.float32 if device == "cpu" else torch.bfloat16
    spread = profile.launch.strategy in ("fsdp", "zero3")
    return torch.float32 if m.lora is None and not spread else getattr(torch, m.dtype)


def make_sft_trainer(own: Profile, model: Any, folder: Path) -> Any:
    """The stage's trainer, on one micro-batch of the longest question there may be."""
    processor = stand_in_processor(own)
    style, s = own.model.prompt_style, own.sft
    answer = "no-think" if s.target == "answer_only" else style
    questions = [longest_question(processor, style, s.max_length, answer)]
    return sft_trainer.make_trainer(own, model, processor, questions * own.sft.micro_batch, folder)


def sft_batch(trainer: Any) -> dict[str, Any]:
    """A micro-batch as the stage's collator makes it."""
    return trainer.data_collator([{"row": row} for row in range(trainer.args.per_device_train_batch_size)])


def sft_loss(trainer: Any, batch: dict[str, Any]) -> torch.Tensor:
    answer_tokens = (batch["labels"] != -100).sum() * trainer.args.gradient_accumulation_steps
    with trainer.accelerator.autocast():
        return trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=answer_tokens)


def count_grpo(profile: Profile, shape: Shape, device: str = "cuda") -> Counted:
    """One GRPO update of a profile on one device: where TRL does so, the scoring before it, and one micro-batch."""
    own, dtype = alone(profile), _type_of_weights(profile, device)
    with _pretending(device) as counting, tempfile.TemporaryDirectory() as folder:
        model = fake_policy(own, shape.config, counting, dtype)
        with_reference = own.grpo.beta and own.model.lora is None
        reference = fake_policy(own, shape.config, counting, dtype) if with_reference else None
        with counting:
            trainer = make_grpo_trainer(own, model, Path(folder))
            if reference is not None:
                _add_reference(trainer, reference)
        batch = completions_batch(own, trainer.processing_class)
        kept = _rest_of_the_step(counting, own, batch, shape.config.get_text_config().hidden_size)
        _watch(counting, trainer, batch)
        with counting:
            score(trainer, batch)
            counting.flops = 0
            update(trainer, grpo_loss(trainer, batch))
        del kept
        return _counted(counting, trainer, own.grpo_accumulation())


def make_grpo_trainer(own: Profile, model: Any, folder: Path) -> Any:
    """The stage's trainer; without a reference model, which TRL would load from the model's name."""
    processor = stand_in_processor(own)
    question = longest_question(processor, own.model.prompt_style, own.grpo.max_prompt_length)
    values = own.model_dump()
    values["grpo"]["beta"] = 0.0
    trainer = grpo_trainer.make_trainer(checked(values), model, processor, [question] * own.grpo.prompts, folder)
    trainer.beta = own.grpo.beta
    for features in getattr(trainer, "picture_features", ()):  # TRL's own path keeps none
        features.keep()
    return trainer


def scores_before(own: Profile) -> int:
    """How often TRL asks for log-probabilities before an update: of the old policy, where a batch serves several
    updates or another engine's ratios are corrected, and of the reference."""
    g = own.grpo
    corrected = g.sampler != "engine" and g.importance_cap is not None
    return (g.updates > 1 or corrected) + (g.beta > 0)


def score(trainer: Any, batch: dict[str, Any]) -> None:
    """Log-probabilities as TRL takes them before an update. The first time, our trainer compares its way with TRL's."""
    pictures = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
    with torch.no_grad():
        trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].shape[1],
            trainer.args.per_device_train_batch_size,
            **{key: batch[key] for key in pictures},
        )


def grpo_loss(trainer: Any, batch: dict[str, Any]) -> torch.Tensor:
    return trainer.compute_loss(trainer.model, dict(batch))


# --- what lies around a step ---


@contextmanager
def _pretending(device: str) -> Iterator[Counting]:
    """A counter. The model stays where it is (transformers would move it to the CPU), and what TRL's output layer and
    the vision tower allocate is told apart."""
    counting = Counting(BLOCK if device == "cuda" else 1)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Trainer, "_move_model_to_device", lambda *_: None))
        stack.enter_context(mock.patch.object(trl_utils, "_ChunkedLogProbFunction", _counted_head(counting)))
        if device == "cuda":
            stack.enter_context(on_gpu(counting))
            stack.enter_context(mock.patch.object(Accelerator, "autocast", lambda *_, **__: autocast()))
        yield counting


def _counted_head(counting: Counting) -> type:
    """TRL's output layer, with what it allocates counted as logits."""
    head = trl_utils._ChunkedLogProbFunction

    class CountedHead(head):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            with counting.part("logits"):
                return head.forward(ctx, *args)

        @staticmethod
        def backward(ctx: Any, *args: Any) -> Any:
            with counting.part("logits"):
                return head.backward(ctx, *args)

    return CountedHead


def _watch(counting: Counting, trainer: Any, batch: dict[str, Any]) -> None:
    """Say what everything is for, make the trainer ready, and look for the peak from here on."""
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            counting.add(value, "pictures" if name == "pixel_values" else "rows")
    tower = next(module for name, module in trainer.model.named_modules() if name.endswith("visual"))
    tower.register_forward_pre_hook(lambda *_: counting.switch("pictures"))
    tower.register_forward_hook(lambda *_: counting.switch("activations"))
    for name, weight in trainer.model.named_parameters():
        counting.add(weight, "adapters" if "lora_" in name else "weights")
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(lambda own: counting.add(own.grad, "gradients"))
    with counting, counting.part("optimizer"):
        ready(trainer)
    for weight in trainer.model.parameters():
        if weight.grad is not None:
            counting.add(weight.grad, "gradients")
    counting.restart()


def ready(trainer: Any) -> None:
    """A trainer as it is in the middle of training: its optimizer has its state, and where several passes make an
    update, the gradients of the first one are there."""
    model, args = trainer.model, trainer.args
    if args.gradient_checkpointing:  # as transformers' trainer does it when training begins
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs)
    model.train()
    trainer.current_gradient_accumulation_steps = args.gradient_accumulation_steps
    trainer.create_optimizer()
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight)
    trainer.optimizer.step()
    if args.gradient_accumulation_steps == 1:
        trainer.optimizer.zero_grad()


def update(trainer: Any, loss: torch.Tensor) -> None:
    """Backward pass and optimizer step, as the trainer takes them."""
    loss.backward()
    trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def _counted(counting: Counting, trainer: Any, passes: int) -> Counted:
    parts = {part: size for part, size in counting.peak.items() if size}
    trained = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    return Counted(sum(parts.values()), parts, counting.total, counting.flops, passes, trained)


def _add_reference(trainer: Any, model: Any) -> None:
    """The reference model that TRL loads where all weights are trained: as many weights, of the same type, frozen."""
    trainer.ref_model = model.requires_grad_(False).eval()
    trl_utils.add_fused_lm_head(trainer.ref_model, temperature=trainer.temperature)
    switch_on(trainer.ref_model)


def _rest_of_the_step(counting: Counting, own: Profile, batch: dict[str, Any], width: int) -> list[torch.Tensor]:
    """What lies on the device during a micro-batch: the other rows of the step, each with a copy of its picture, and,
    where the vision tower is frozen, what it has seen in every picture of the step (`width`: of a token)."""
    rows, patches = own.completions(), len(batch["pixel_values"]) // own.grpo.micro_batch
    others = (rows - own.grpo.micro_batch) * patches
    kept = [counting.empty((others, batch["pixel_values"].shape[1]), torch.float32, "pictures")]
    if own.model.lora is not None:
        tokens = (own.grpo.prompts - 1) * patches // 4
        kept.append(counting.empty((tokens, width), torch.bfloat16, "pictures"))
    return kept
