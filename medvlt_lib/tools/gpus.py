"""GPUs by name: memory, speed and price, for plans. No torch here, but where this machine's own GPU is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import yaml

from medvlt_lib.core.errors import UserError

FACTS = Path(__file__).parents[1] / "assets" / "planning" / "gpus.yaml"
GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """`memory` in bytes. `flops` (bf16, dense) and `bandwidth` (bytes) a second, and `price` (US dollars an hour), are
    None where only the memory is known."""

    name: str
    memory: int
    flops: float | None = None
    bandwidth: float | None = None
    price: float | None = None


@cache
def known_gpus() -> dict[str, Gpu]:
    """The GPUs of assets/planning/gpus.yaml, which says where each figure comes from."""
    rows = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    return {
        name: Gpu(name, int(row["memory"] * GIB), row["tflops"] * 1e12, row["bandwidth"] * 1e9, row["price"])
        for name, row in rows.items()
    }


def gpu_named(name: str) -> Gpu:
    """A GPU of the table, in any case and with or without spaces; or `24GB`, for memory of that size (in GiB) alone.

    Raises UserError for a name that is neither.
    """
    plain = re.sub(r"[\s_-]", "", name).upper()
    for known, gpu in known_gpus().items():
        if plain == known.replace("-", "").upper():
            return gpu
    size = re.fullmatch(r"([1-9]\d*)GI?B", plain)
    if size is None:
        raise UserError(f"--gpu {name} is not known; write its memory, such as 24GB, or {', '.join(known_gpus())}.")
    return Gpu(f"{size[1]}GB", int(size[1]) * GIB)


def chosen_gpu(name: str | None) -> Gpu:
    """The GPU of that name, or this machine's. Raises UserError for an unknown name, or where there is neither."""
    gpu = own_gpu() if name is None else gpu_named(name)
    if gpu is None:
        raise UserError("this machine has no GPU that torch sees; say which one to plan for, such as --gpu 24GB.")
    return gpu


def own_gpu() -> Gpu | None:
    """The first GPU of this machine, with the memory that it reports; None where torch sees none."""
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    fitting = [gpu for name, gpu in known_gpus().items() if _is_named(found.name, name.partition("-")[0])]
    near = min(fitting, key=lambda gpu: abs(gpu.memory - found.total_memory), default=None)
    if near is None:
        return Gpu(found.name, found.total_memory)
    return Gpu(found.name, found.total_memory, near.flops, near.bandwidth, near.price)


def _is_named(found: str, known: str) -> bool:
    """Whether a GPU's own name, such as `NVIDIA GeForce RTX 4090`, is one of the table: whole words of it, since an L40
    is no L4."""
    words = re.split(r"[\s_-]+", found.upper())
    return known in words or known in [first + second for first, second in pairwise(words)]
