"""vLLM as GRPO's sampler, in the training process: after every update it gets the learner's new weights.

An adapter is written to a folder and read again in place; full weights are handed over. With an NF4 learner vLLM holds
the base in full precision: as it was published (`grpo.sampler_base: original`), or what the learner really computes
with, its 4-bit weights unpacked (`dequantized`).

Sampler and learner never agree to the last bit: other kernels, other precision, another base. What the policy gradient
needs is the learner's probability, so every token's part in the loss is weighted by learner over sampler, cut at
`grpo.importance_cap` (truncated importance sampling: Espeholt et al., IMPALA, arXiv 1802.01561, section 4.1, with one
step). TRL computes these ratios for its own vLLM engine; here it is given ours in that place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import Completion
from medvlt_lib.models.dequantized import dequantized
from medvlt_lib.models.loading import resolve
from medvlt_lib.rollout.engine import Prompt, Sampling
from medvlt_lib.rollout.vllm_engine import VllmEngine, engine_keywords
from medvlt_lib.rollout.vllm_start import start_vllm

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel
    from trl import GRPOTrainer


class VllmSampler:
    """An engine that answers with the weights of a model that is being trained.

    folder: where adapters are written. Raises UserError in `sync_weights` when the weights did not arrive.
    """

    def __init__(self, engine: VllmEngine, model: PreTrainedModel | PeftModel, folder: Path) -> None:
        self.engine, self.model, self.folder = engine, model, folder
        self.probe = list(engine.processor.tokenizer("The answer to the question is the letter").input_ids)
        self.synced: tuple[torch.Tensor, list[float]] | None = None  # the learner's weights, the sampler's answer

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        return self.engine.generate(prompts, sampling)

    def sync_weights(self) -> None:
        """Hand the learner's weights over; TRL calls this before the first sampling of every step."""
        if hasattr(self.model, "peft_config"):
            self.model.save_pretrained(str(self.folder), selected_adapters=["default"], save_embedding_layers=False)
            self.engine.swap(self.folder)
        else:
            self.engine.reload(published_names(self.model))
        self._check_that_they_moved()

    def _check_that_they_moved(self) -> None:
        """A learner that changed must have a sampler that answers otherwise."""
        weights, answer = fingerprint(self.model), self.engine.prompt_logprobs(self.probe)
        if self.synced is not None and not weights.equal(self.synced[0]) and answer == self.synced[1]:
            raise UserError(
                "vLLM still answers with the weights of the step before, so training would learn from stale samples; "
                "set grpo.sampler engine, and report vLLM's version."
            )
        self.synced = weights, answer


def fingerprint(model: PreTrainedModel | PeftModel) -> torch.Tensor:
    """The sums of all trained weights, (number of them,): they change when training changes anything."""
    return torch.stack([p.detach().double().sum().cpu() for p in model.parameters() if p.requires_grad])


def published_names(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's weights under the names that its checkpoint has on disk, which vLLM reads."""
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    for name, weight in model.state_dict().items():
        if name not in tied:
            yield name, weight.detach()


def start_sampler(profile: Profile, model: PreTrainedModel | PeftModel, folder: Path) -> VllmSampler:
    """vLLM beside the learner on one device. Raises UserError where it does not start."""
    g = profile.grpo
    base: str | Path = resolve(profile.model.name)
    if profile.model.quantization == "nf4" and g.sampler_base == "dequantized":
        base = dequantized(profile)
    keywords = {
        **engine_keywords(profile),
        "model": str(base),
        "revision": profile.model.revision if base == profile.model.name else None,
        "gpu_memory_utilization": g.sampler_memory,
        "max_model_len": g.max_prompt_length + g.max_completion_length,
    }
    engine = start_vllm(profile, keywords, "grpo.sampler", "grpo.sampler_memory")
    return VllmSampler(engine, model, folder / "training" / "sampler")


def sample_with(trainer: GRPOTrainer, sampler: Any) -> None:
    """Let TRL treat `sampler` as its vLLM engine: weights are handed over at each step, ratios correct the loss."""
    trainer.use_vllm, trainer.vllm_generation, trainer._last_loaded_step = True, sampler, -1


def stop_sampling(trainer: GRPOTrainer) -> None:
    """Give vLLM's memory back, for what comes after training."""
    sampler: Any = trainer.vllm_generation
    sampler.engine.close()
