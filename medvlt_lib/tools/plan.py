"""What a profile needs of a GPU, before anything is loaded: memory that is counted, time and money that are estimated.

Counted (medvlt_lib/tools/plan_steps.py): the peak of an SFT step and of a GRPO update, in the largest rows that the
profile allows. Computed from the model's shape: vLLM's weights and cache, the sampler's cache, downloads. Assumed: the
constants below, and everything in medvlt_lib/tools/estimates.py. Where several devices share the weights, what they
share is divided, which is approximate.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medvlt_lib.core.errors import UserError
from medvlt_lib.tools.gpus import GIB, Gpu, gpu_named

if TYPE_CHECKING:
    from medvlt_lib.core.config import Profile
    from medvlt_lib.tools.fake_models import Shape
    from medvlt_lib.tools.plan_steps import Counted

CONTEXT = GIB  # bytes: CUDA's context and libraries' workspaces; an assumption
FRAGMENTS = 0.05  # of the peak, that the allocator cannot use; an assumption
VLLM_WORKSPACE = 1.5 * GIB  # bytes: vLLM's activations and graphs; an assumption
BESIDE = "update beside vLLM"  # a phase's name
BYTES = {"float32": 4, "bfloat16": 2}
SAMPLER_WORKSPACE = GIB  # bytes: reading prompts, and the cache of one layer while it grows; an assumption


@dataclass(frozen=True)
class Phase:
    """A time in a stage when memory is highest: its name, bytes on one device, and the parts that they are for."""

    name: str
    peak: int
    parts: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """What a profile needs on each of its devices. `learner`: bytes of GRPO's update at its highest; `resting`: between
    two updates. `vllm`: what vLLM needs beside the learner, by part. `reasons`: why the figures are approximate."""

    profile: Profile
    gpu: Gpu
    phases: tuple[Phase, ...]
    steps: dict[str, Counted]
    learner: int
    resting: int
    vllm: dict[str, int]
    weights: int
    cache_bytes: int
    reasons: tuple[str, ...]

    @property
    def peak_bytes(self) -> int:
        """The highest phase on one device, without the reserve."""
        return max(phase.peak for phase in self.phases)

    @property
    def reserve(self) -> int:
        """Bytes that are kept free of what is counted: CUDA's own, and what torch's allocator cannot use. None for
        vLLM, which takes its part once, and whole."""
        return int(CONTEXT + FRAGMENTS * max(phase.peak - phase.parts.get("vLLM", 0) for phase in self.phases))

    @property
    def starved(self) -> bool:
        """Whether grpo.sampler_memory gives vLLM less than it needs."""
        g = self.profile.grpo
        return g.sampler == "vllm" and g.sampler_memory * self.gpu.memory < sum(self.vllm.values())

    @property
    def fits(self) -> bool:
        return all(map(self.fit, self.phases))

    def fit(self, phase: Phase) -> bool:
        return phase.peak + self.reserve <= self.gpu.memory and not (phase.name == BESIDE and self.starved)


def plan_profile(profile: Profile, gpu: Gpu | str) -> Plan:
    """A profile's plan on a GPU, or on a GPU's name as `gpu_named` takes it. Nothing is downloaded or loaded.

    Raises UserError for an unknown GPU, for a model whose shape is not known, and for a profile of a CPU.
    """
    if profile.model.device == "cpu":
        raise UserError(
            f"profile {profile.profile} trains on the CPU, and a plan is for a GPU; choose another profile, "
            "or set model.device=cuda."
        )
    gpu = gpu_named(gpu) if isinstance(gpu, str) else gpu
    shape, steps = _shape(profile.model.name), {stage: _counted(profile, stage) for stage in ("sft", "grpo")}
    weights, cache = shape.weights(), shape.cache_bytes()
    phases = [_phase(profile, "SFT step", steps["sft"], shape), _phase(profile, "GRPO update", steps["grpo"], shape)]
    learner, resting = phases[1].peak, _resting(profile, steps["grpo"], shape)
    size = BYTES[profile.model.dtype]
    vllm = {"weights": size * weights, "cache": _smallest_cache(profile) * cache * size // 2}
    vllm["workspace"] = int(VLLM_WORKSPACE)
    phases += _sampling(profile, gpu, learner, resting, vllm, cache)
    reasons = [] if shape.confirmed else ["the model's shape is not confirmed"]
    if profile.launch.strategy in ("fsdp", "zero3"):
        reasons.append(
            f"what {profile.launch.strategy} spreads over {profile.launch.devices} devices is divided evenly"
        )
    return Plan(profile, gpu, tuple(phases), steps, learner, resting, vllm, weights, cache, tuple(reasons))


def vllm_memory_share(plan: Plan) -> float | None:
    """The largest share of the GPU that vLLM may take beside the learner's peak and the reserve (vLLM's
    gpu_memory_utilization); None where that is less than vLLM needs."""
    share = math.floor(100 * (plan.gpu.memory - plan.learner - plan.reserve) / plan.gpu.memory) / 100
    return share if share * plan.gpu.memory >= sum(plan.vllm.values()) else None


def _sampling(profile: Profile, gpu: Gpu, learner: int, resting: int, vllm: dict[str, int], cache: int) -> list[Phase]:
    """How GRPO samples: with the model itself between two updates, with vLLM beside it, or on GPUs of a server."""
    if profile.grpo.sampler == "engine":
        parts = {"learner": resting, "cache": profile.engine.batch_tokens * cache}
        parts["workspace"] = int(SAMPLER_WORKSPACE)
        return [Phase("sampling", sum(parts.values()), parts)]
    if profile.grpo.sampler == "vllm":
        share = max(sum(vllm.values()), int(profile.grpo.sampler_memory * gpu.memory))
        return [Phase(BESIDE, learner + share, {"learner": learner, "vLLM": share})]
    return []


def _smallest_cache(profile: Profile) -> int:
    """Tokens of one group's prompt and completions: less cache than that would sample a group in pieces."""
    return profile.grpo.max_prompt_length + profile.grpo.group_size * profile.grpo.max_completion_length


def _phase(profile: Profile, name: str, step: Counted, shape: Shape) -> Phase:
    parts = dict(step.parts)
    if profile.launch.strategy in ("fsdp", "zero3"):
        parts |= _sharded(profile, step, shape, name)
    if profile.launch.strategy == "ddp":
        parts["DDP's buckets"] = _buckets(step)
    return Phase(name, sum(parts.values()), parts)


def _resting(profile: Profile, step: Counted, shape: Shape) -> int:
    if profile.launch.strategy in ("fsdp", "zero3"):
        return sum(_sharded(profile, step, shape, "GRPO update").values())
    return step.resting + (_buckets(step) if profile.launch.strategy == "ddp" else 0)


def _buckets(step: Counted) -> int:
    """Bytes in which DDP sums the gradients of all devices: a copy of them in float32, kept from step to step."""
    return 4 * step.trained


def _sharded(profile: Profile, step: Counted, shape: Shape, name: str) -> dict[str, int]:
    """A device's part of the weights (float32 where all are trained, with those of the reference model), and in float32
    of what is trained the gradients and AdamW's two moments; and in bf16 the modules that are whole for a moment:
    embeddings and output layer, and three layers."""
    weights, devices, text = shape.weights(), profile.launch.devices, shape.config.get_text_config()
    full = profile.model.lora is None
    reference = full and name == "GRPO update" and profile.grpo.beta > 0
    size = 4 if full else BYTES[profile.model.dtype]
    ends = (1 if shape.config.tie_word_embeddings else 2) * text.vocab_size * text.hidden_size
    layer = (weights - ends) // text.num_hidden_layers
    return {
        "weights": size * weights * (2 if reference else 1) // devices + 2 * (ends + 3 * layer),
        "gradients": 4 * step.trained // devices,
        "optimizer": 8 * step.trained // devices,
    }


@functools.cache
def _shape(name: str) -> Shape:
    from medvlt_lib.models.loading import shipped
    from medvlt_lib.models.processor import load_processor
    from medvlt_lib.tools.fake_models import shape_of

    return shape_of(name, load_processor(shipped("base")))


_COUNTED: dict[str, Counted] = {}  # of this process, by the settings that decide it


def _counted(profile: Profile, stage: str) -> Counted:
    """A stage's step, counted once in a process for equal settings."""
    from medvlt_lib.tools.plan_steps import count_grpo, count_sft

    deciding = [getattr(profile, section).model_dump_json() for section in ("model", "launch", stage)]
    key = "\n".join([stage, *deciding])
    if key not in _COUNTED:
        count = count_sft if stage == "sft" else count_grpo
        _COUNTED[key] = count(profile, _shape(profile.model.name))
    return _COUNTED[key]
