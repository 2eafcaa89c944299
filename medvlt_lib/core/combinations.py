"""Settings that each are well and together cannot work: a sentence for every such combination. No torch here.

`p` is a Profile everywhere, of medvlt_lib/core/config.py, which asks here and so cannot be imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def impossible(p: Any) -> Iterator[str]:
    """A sentence for every combination of settings that cannot work."""
    yield from _impossible_places(p)
    yield from _uneven_batches(p)
    yield from _caps_without_prices(p)
    if not p.filtering.keep_from <= p.filtering.keep_to < p.filtering.samples:
        yield (
            f"filtering keeps {p.filtering.keep_from} to {p.filtering.keep_to} of {p.filtering.samples} samples; "
            "the band must lie below the number of samples"
        )
    if p.grpo.update == "stock" and (p.grpo.order != "shuffled" or p.grpo.dynamic_sampling):
        yield "grpo.order and grpo.dynamic_sampling choose questions for grpo.update shared; set that, or neither"
    if p.grpo.dynamic_sampling and p.grpo.scale_rewards == "batch":
        yield "grpo.dynamic_sampling cannot scale a batch as one; set grpo.scale_rewards group or none"
    if p.grpo.reward.keys() == {"overlong"}:
        yield "grpo.reward is overlong alone, which pays for no answer; add published"
    if not {p.filtering.grader, p.eval.grader} <= p.grpo.fitting_graders():
        yield (
            "filtering.grader and eval.grader must be grpo.reward's paper, or tolerant, "
            "so that filter, reward and evaluation fit together"
        )
    yield from _teachers_that_cannot(p)
    if p.engine.kind == "openai" and p.engine.url is None:
        yield "engine.kind is openai without engine.url; give the server's address, ending in /v1"


def _uneven_batches(p: Any) -> Iterator[str]:
    """Rows that cannot be shared evenly by updates, micro-batches and devices."""
    g, devices = p.grpo, p.launch.devices
    rows = g.updates * g.micro_batch * devices
    if p.completions() % rows:
        yield (
            f"grpo.prompts x grpo.group_size = {p.completions()} completions do not divide into "
            f"grpo.updates x grpo.micro_batch x launch.devices = {rows}; change one of them"
        )
    if g.micro_batch % g.group_size and g.group_size % g.micro_batch:
        yield (
            f"grpo.micro_batch {g.micro_batch} and grpo.group_size {g.group_size} do not divide each other; "
            "make one a multiple of the other"
        )
    for key, every in (("save_every", g.save_every), ("validate_every", g.validate_every)):
        if every and every % g.updates:
            not_multiple = f"grpo.{key} {every} is not a multiple of grpo.updates {g.updates}"
            yield f"{not_multiple}; a checkpoint must not fall inside a step"
    if g.prompts % devices:
        yield f"grpo.prompts {g.prompts} cannot be shared by launch.devices {devices}; make it a multiple"
    if p.sft.batch % (p.sft.micro_batch * devices):
        yield (
            f"sft.batch {p.sft.batch} is not a multiple of sft.micro_batch x launch.devices = "
            f"{p.sft.micro_batch * devices}; change one of them"
        )


def _impossible_places(p: Any) -> Iterator[str]:
    """Weights that cannot be trained, or sampled from, where they lie."""
    devices, strategy, sampler = p.launch.devices, p.launch.strategy, p.grpo.sampler
    if devices > 1 and strategy == "single":
        yield f"launch.devices is {devices} with launch.strategy single; choose ddp, fsdp or zero3"
    if devices % p.launch.machines:
        yield (
            f"launch.devices {devices} cannot be shared evenly by launch.machines {p.launch.machines}; "
            "devices counts those of all machines together"
        )
    if p.model.quantization != "none" and p.model.lora is None:
        yield (
            "model.quantization is nf4 without model.lora, and 4-bit weights cannot be trained; "
            "set model.lora or quantization none"
        )
    if p.model.quantization != "none" and strategy in ("fsdp", "zero3"):
        yield (
            f"model.quantization is nf4 with launch.strategy {strategy}, which cannot spread packed 4-bit weights; "
            "set launch.strategy ddp, where every device holds all of them, or model.quantization none"
        )
    if sampler == "engine" and strategy in ("fsdp", "zero3"):
        yield (
            f"grpo.sampler engine samples with all weights, and launch.strategy {strategy} leaves every device a part "
            "of them, so training would wait for ever; set launch.strategy ddp, or grpo.sampler trl-vllm-server"
        )
    if sampler == "vllm" and devices > 1:
        yield (
            "grpo.sampler vllm samples beside training on one device; "
            "on several set grpo.sampler trl-vllm-server, or engine with launch.strategy ddp"
        )
    if sampler == "trl-vllm-server" and p.grpo.validate_every:
        yield "with grpo.sampler trl-vllm-server no process holds all weights to validate; set grpo.validate_every null"
    if p.sft.validate_every and strategy in ("fsdp", "zero3"):
        yield (
            f"sft.validate_every {p.sft.validate_every} asks the model questions while it trains, and with "
            f"launch.strategy {strategy} no process holds all weights; set sft.validate_every null"
        )
    if sampler == "trl-vllm-server" and strategy == "single":
        yield "grpo.sampler trl-vllm-server is for training on many devices; set grpo.sampler engine or vllm"


def _caps_without_prices(p: Any) -> Iterator[str]:
    """A cap on spending counts nothing where the prices are not known."""
    engine, data = p.engine, p.data
    caps = [
        ("engine.max_cost", engine.max_cost, engine.prompt_price, engine.completion_price,
         "engine.prompt_price and engine.completion_price"),
        ("data.endpoint_max_cost", data.endpoint_max_cost, data.endpoint_prompt_price, data.endpoint_completion_price,
         "data.endpoint_prompt_price and data.endpoint_completion_price"),
        *((f"distill.teachers.{label}.max_cost", teacher.max_cost, teacher.prompt_price, teacher.completion_price,
           "its prompt_price and completion_price") for label, teacher in p.distill.teachers.items()),
    ]  # fmt: skip
    for name, cap, prompt_price, completion_price, prices in caps:
        if cap is not None and min(prompt_price, completion_price) == 0:
            yield f"{name} needs {prices}, dollars a million tokens; set both"


def _teachers_that_cannot(p: Any) -> Iterator[str]:
    """Teachers whose answers nobody can read, or that nothing can load."""
    for label, teacher in p.distill.teachers.items():
        if teacher.prompt == "boxed" and teacher.grader != "tolerant":
            yield (
                f"distill.teachers.{label} is asked for answers in a box, which the grader {teacher.grader} does not "
                "read; set its grader tolerant, or its prompt medvlthinker"
            )
        if teacher.url is None and p.engine.kind == "openai" and not teacher.name.startswith("phantom:"):
            yield f"distill.teachers.{label} has no url, and engine.kind openai loads no model; give its server's url"
