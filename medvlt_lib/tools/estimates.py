"""Minutes and dollars of a profile's stages, host memory, disk and downloads: estimates, from counted operations and
bytes, a GPU's data sheet and the assumptions below. Nothing here was measured on a GPU.

Training: the counted operations of an update, at `TRAINING` of the GPU's bf16 rate. Sampling: every step of a batch of
answers reads the weights and the batch's cache, at `READING` of the memory's rate, or multiplies, at `TRAINING` of the
bf16 rate, whichever takes longer. Texts are taken to fill `FILLED` of their limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medvlt_lib.tools.gpus import GIB

if TYPE_CHECKING:
    from medvlt_lib.core.config import Profile
    from medvlt_lib.tools.plan import Plan

TRAINING = 0.35  # of the bf16 rate
READING = 0.6  # of the memory's rate, for vLLM
PLAIN_READING = 0.15  # the same for the transformers engine, which waits for Python between two tokens
FILLED = 0.5  # of a limit, that a text fills
KEPT = 0.7  # of the training questions, that filtering keeps (MedVLThinker's text set: 16,500 of 23,456)
AT_ONCE = 256  # answers that vLLM samples at once, at most
PYTHON = 4 * GIB  # host memory of the process and its libraries
SHARD = 5 * GIB  # host memory that a file of weights takes while it is loaded


@dataclass(frozen=True)
class Hours:
    """A stage's estimate on all its devices together."""

    stage: str
    minutes: float
    dollars: float


def times(plan: Plan) -> list[Hours]:
    """Filtering, one arm of SFT and GRPO each, and evaluation of three models; empty where the GPU's speed is not
    known."""
    if plan.gpu.flops is None:
        return []
    p = plan.profile
    engine = p.engine.kind == "vllm"
    asked = (p.data.train_text_size + p.data.train_image_size) * p.filtering.samples
    seconds = {
        "filter": _sampling(plan, asked, p.filtering.max_new_tokens, engine) / p.launch.devices,
        "sft": sft_updates(p) * _update(plan, "sft"),
        "grpo": grpo_updates(p) * (_update(plan, "grpo") + _rollouts(plan)),
        "eval, 3 models": 3 * _sampling(plan, p.data.test_size, p.eval.max_new_tokens, engine) / p.launch.devices,
    }
    cost = plan.gpu.price * p.launch.devices / 3600
    return [Hours(stage, second / 60, second * cost) for stage, second in seconds.items()]


def sft_updates(p: Profile) -> int:
    """Optimizer steps of an SFT arm on text."""
    updates = int(p.sft.epochs * p.data.train_text_size) // p.sft.batch
    return min(updates, p.sft.max_steps or updates)


def grpo_updates(p: Profile) -> int:
    """Optimizer steps of a GRPO arm on text."""
    updates = int(p.grpo.epochs * KEPT * p.data.train_text_size) // p.grpo.prompts * p.grpo.updates
    return min(updates, p.grpo.max_steps or updates)


def _update(plan: Plan, stage: str) -> float:
    """Seconds of one optimizer update, with the scoring before it."""
    from medvlt_lib.tools.plan_steps import scores_before

    step, section = plan.steps[stage], getattr(plan.profile, stage)
    forward = step.flops / (4 if section.gradient_checkpointing else 3)
    scoring = scores_before(plan.profile) * forward if stage == "grpo" else 0
    return FILLED * (step.flops + scoring) * step.passes / (TRAINING * plan.gpu.flops)


def _rollouts(plan: Plan) -> float:
    """Seconds of sampling for one optimizer update."""
    g = plan.profile.grpo
    vllm = g.sampler != "engine"
    own = plan.profile.launch.devices if g.sampler == "engine" else 1
    return _sampling(plan, plan.profile.completions() / g.updates / own, g.max_completion_length, vllm)


def _sampling(plan: Plan, answers: float, limit: int, vllm: bool) -> float:
    """Seconds in which one device samples so many answers of up to `limit` tokens."""
    p, gpu = plan.profile, plan.gpu
    length, prompt = FILLED * limit, FILLED * p.grpo.max_prompt_length
    at_once = max(1, min(answers, AT_ONCE if vllm else p.engine.batch_tokens / (limit + prompt)))
    bytes_read = 2 * plan.weights + at_once * (prompt + length / 2) * plan.cache_bytes
    reading = bytes_read / (gpu.bandwidth * (READING if vllm else PLAIN_READING))
    multiplying = 2 * plan.weights * at_once / (TRAINING * gpu.flops)
    return answers / at_once * length * max(reading, multiplying)


def storage(plan: Plan) -> dict[str, tuple[int, str]]:
    """Bytes of host memory, disk and downloads, each with what they are for."""
    p, weights = plan.profile, 2 * plan.weights
    devices = p.launch.devices // p.launch.machines
    trained = plan.steps["grpo"].trained
    # With FSDP the first process alone reads the weights; TRL reads those of a reference model in every process.
    spread = p.launch.strategy == "fsdp"
    readers = (1 + devices * (p.grpo.beta > 0)) if spread else devices
    held = 4 * plan.weights * readers if p.model.lora is None and p.launch.strategy != "single" else 0
    saved = trained * (4 + 8)  # float32 weights and AdamW's moments
    packed = p.model.quantization == "nf4" and p.grpo.sampler == "vllm"
    dequantized = weights if packed and getattr(p.grpo, "sampler_base", "") == "dequantized" else 0
    arms = 2 * (4 * trained) + 2 * saved
    kept = "weights, and for an SFT and a GRPO arm a checkpoint in work and a result"
    return {
        "host memory": (devices * PYTHON + SHARD + held, "each process, and a file of weights while it is loaded"),
        "disk": (weights + dequantized + arms, kept),
        "download": (weights, "the model's weights in bf16; the data sets come on top, their sizes are not known here"),
    }
