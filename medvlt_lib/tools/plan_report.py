"""A plan as tables: what is counted, what is estimated, and what would make it fit."""

from __future__ import annotations

import json
import shlex
from itertools import starmap
from typing import Any

from medvlt_lib.tools.estimates import FILLED, READING, TRAINING, storage, times
from medvlt_lib.tools.gpus import GIB
from medvlt_lib.tools.plan import Plan, vllm_memory_share
from medvlt_lib.tools.ways_to_fit import Change

ORDER = ("weights", "adapters", "optimizer", "gradients", "activations", "logits", "pictures", "rows")
ROW = tuple[str, ...]


def gib(size: float) -> str:
    return f"{size / GIB:.1f}"


def memory_rows(plan: Plan) -> list[ROW]:
    """A column for each phase, a row for each part, in GiB on one device."""
    named = [part for part in ORDER if any(part in phase.parts for phase in plan.phases)]
    others = [part for phase in plan.phases for part in phase.parts if part not in named]
    parts = [*named, *dict.fromkeys(others)]
    rows = [("GiB on one device", *(phase.name for phase in plan.phases))]
    rows += [(part, *(gib(p.parts[part]) if part in p.parts else "" for p in plan.phases)) for part in parts]
    rows.append(("peak", *(gib(phase.peak) for phase in plan.phases)))
    rows.append(("with the reserve", *(gib(phase.peak + plan.reserve) for phase in plan.phases)))
    rows.append((f"fits in {gib(plan.gpu.memory)}", *("yes" if plan.fit(phase) else "NO" for phase in plan.phases)))
    return rows


def memory_caption(plan: Plan) -> str:
    kind = "approximate: " + "; ".join(plan.reasons) if plan.reasons else "counted, not run"
    return f"{kind}. Reserve: 1 GiB for CUDA and 5 % of the peak (of vLLM's part none), an assumption."


def vllm_sentence(plan: Plan) -> str:
    """What vLLM needs beside the learner, and the share of the GPU that it may have."""
    need = sum(plan.vllm.values())
    parts = ", ".join(f"{name} {gib(size)}" for name, size in plan.vllm.items())
    says = f"vLLM beside the learner needs {gib(need)} GiB at least ({parts})"
    share = vllm_memory_share(plan)
    if share is None:
        return f"{says}, which this GPU has not beside GRPO's update."
    least = need / plan.gpu.memory
    return f"{says}; its part, grpo.sampler_memory, may be {least:.2f} to {share:.2f}."


def estimate_rows(plan: Plan) -> list[ROW]:
    rows: list[ROW] = [("estimate", "minutes", "US dollars")]
    rows += [(own.stage, f"{own.minutes:.0f}", f"{own.dollars:.2f}") for own in times(plan)]
    return rows


def estimate_caption() -> str:
    return (
        f"Estimates, never measured: {TRAINING:.0%} of the bf16 rate, {READING:.0%} of the memory's rate in vLLM, "
        f"texts that fill {FILLED:.0%} of their limits, prices of medvlt_lib/assets/planning/gpus.yaml."
    )


def storage_rows(plan: Plan) -> list[ROW]:
    rows: list[ROW] = [("estimate", "GiB", "for")]
    return rows + [(name, gib(size), what) for name, (size, what) in storage(plan).items()]


def change_rows(changes: list[Change]) -> list[ROW]:
    rows: list[ROW] = [("--set", "peak then, GiB", "cost")]
    for change in changes:
        settings = "\n".join(starmap(as_option, change.settings.items()))
        rows.append((settings, gib(change.plan.peak_bytes), change.cost))
    return rows


def as_option(key: str, value: Any) -> str:
    """A setting as it is typed behind --set, quoted for a shell where it must be."""
    return shlex.quote(f"{key}={value if isinstance(value, str) else json.dumps(value)}")


def misfit(plan: Plan, changes: list[Change]) -> str:
    """That a plan does not fit, and what to do."""
    need, g = plan.peak_bytes + plan.reserve, plan.profile.grpo
    says = f"{plan.profile.profile} needs {gib(need)} GiB and {plan.gpu.name} has {gib(plan.gpu.memory)}"
    if plan.starved:
        has, need = g.sampler_memory * plan.gpu.memory, sum(plan.vllm.values())
        says = (
            f"{plan.profile.profile}: grpo.sampler_memory {g.sampler_memory} gives vLLM {gib(has)} of the "
            f"{gib(plan.gpu.memory)} GiB of {plan.gpu.name}, and it needs {gib(need)}"
        )
    if changes:
        return f"{says}; set what the last table names, or choose a larger GPU."
    return f"{says}, and no three settings make it fit; choose a larger GPU, a smaller model or more devices."
