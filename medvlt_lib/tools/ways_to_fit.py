"""Settings that make a profile fit on a GPU, each counted, and what it costs. No guess: every one is planned again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.config import checked
from medvlt_lib.core.errors import UserError
from medvlt_lib.tools.plan import BESIDE, Phase, Plan, plan_profile, vllm_memory_share

if TYPE_CHECKING:
    from medvlt_lib.core.config import Profile

MOST = 3  # settings that are named
SMALL_PICTURE = 200_704  # pixels: 256 tokens


@dataclass(frozen=True)
class Change:
    """A setting, such as {"grpo.micro_batch": 2}, what it costs, and the plan with it and those before it."""

    settings: dict[str, Any]
    cost: str
    plan: Plan


def ways_to_fit(plan: Plan) -> list[Change]:
    """Up to three settings, to be set together, with which the last of the plans fits; empty where none will do.

    Those that change no result come first. A setting with which the phase does not fit, and which frees less than a
    fiftieth of it, is left out.
    """
    changes: list[Change] = []
    now = plan
    while not now.fits and len(changes) < MOST:
        fits = now.fit
        worst = max(now.phases, key=lambda phase: (not fits(phase), phase.peak))
        tried = (_tried(now, worst, values) for values in _candidates(now, worst))
        change = next((found for found in tried if found and _helps(found.plan, worst)), None)
        if change is None:
            return []
        changes.append(change)
        now = change.plan
    return changes if now.fits else []


def _tried(plan: Plan, worst: Phase, values: list[tuple[dict[str, Any], str]]) -> Change | None:
    """The first of several values of a setting with which a phase fits, or the last one."""
    found = None
    for settings, cost in values:
        try:
            found = Change(settings, cost, plan_profile(changed(plan.profile, settings), plan.gpu))
        except UserError:  # a combination that cannot work
            continue
        if _fits(found.plan, worst):
            break
    return found


def _fits(plan: Plan, phase: Phase) -> bool:
    """Whether a plan's phase of that name fits; one that it no longer has does."""
    return all(plan.fit(own) for own in plan.phases if own.name == phase.name)


def _helps(plan: Plan, worst: Phase) -> bool:
    peaks = [own.peak for own in plan.phases if own.name == worst.name]
    return _fits(plan, worst) or peaks[0] < 0.98 * worst.peak


def changed(profile: Profile, settings: dict[str, Any]) -> Profile:
    """A profile with other values of dotted keys. Raises UserError for a combination that cannot work."""
    values = profile.model_dump()
    for key, value in settings.items():
        section, _, name = key.partition(".")
        values[section][name] = value
    return checked(values)


def _candidates(plan: Plan, worst: Phase) -> Iterator[list[tuple[dict[str, Any], str]]]:
    """Settings that may make a phase smaller, each with its values to be tried in turn, and what they cost."""
    p = plan.profile
    if worst.name == "sampling":
        room = plan.gpu.memory - plan.reserve - (worst.peak - worst.parts["cache"])
        tokens = room // plan.cache_bytes // 1000 * 1000
        if tokens > p.grpo.max_prompt_length + p.grpo.max_completion_length:
            yield [({"engine.batch_tokens": tokens}, "fewer answers are sampled at once: sampling takes longer")]
        return
    if worst.name == BESIDE:
        share = vllm_memory_share(plan)
        if share is not None:
            less = "vLLM has less cache: fewer answers are sampled at once"
            cost = less if share < p.grpo.sampler_memory else "none: vLLM gets all that the update leaves"
            yield [({"grpo.sampler_memory": share}, cost)]
        yield [({"grpo.sampler": "engine"}, "sampling with transformers instead of vLLM: several times slower")]
    stage = "sft" if worst.name == "SFT step" else "grpo"
    section = getattr(p, stage)
    if not section.gradient_checkpointing:
        twice = "the forward pass is done twice: a third more time an update"
        yield [({f"{stage}.gradient_checkpointing": True}, twice)]
    same = "the result is the same" if stage == "grpo" else "the loss is averaged otherwise"
    rows = [section.micro_batch >> halved for halved in range(1, section.micro_batch.bit_length())]
    yield [
        ({f"{stage}.micro_batch": n}, f"{section.micro_batch // n} times the passes an update; {same}") for n in rows
    ]
    yield from changing_results(p, stage)


def changing_results(p: Profile, stage: str) -> Iterator[list[tuple[dict[str, Any], str]]]:
    """Settings that change what a model learns."""
    if p.model.lora is None:
        rate = {f"{own}.learning_rate": float(f"{10 * getattr(p, own).learning_rate:.6g}") for own in ("sft", "grpo")}
        adapters = {"model.lora": {"rank": 16, "alpha": 32}, **rate}
        yield [(adapters, "adapters are trained instead of all weights: another result")]
    elif p.model.quantization == "none" and p.launch.strategy == "single":
        yield [({"model.quantization": "nf4"}, "the base in 4 bits: another result, and a slower update")]
    if stage == "sft":
        shorter = [p.sft.max_length >> halved for halved in (1, 2, 3)]
        yield [({"sft.max_length": n}, f"questions over {n} tokens are refused") for n in shorter]
    else:
        shorter = [p.grpo.max_completion_length >> halved for halved in (1, 2, 3)]
        yield [({"grpo.max_completion_length": n}, f"answers are cut after {n} tokens") for n in shorter]
    if p.model.max_pixels is None or p.model.max_pixels > SMALL_PICTURE:
        yield [({"model.max_pixels": SMALL_PICTURE}, "a picture becomes 256 tokens at most: the model sees less")]
