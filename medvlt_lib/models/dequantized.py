"""What an NF4 model really computes with: its 4-bit weights unpacked, on disk, for engines without 4-bit weights."""

from __future__ import annotations

import gc
import hashlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import cache_folder
from medvlt_lib.models.loading import load_nf4, resolve, weights_id
from medvlt_lib.models.processor import load_processor

if TYPE_CHECKING:
    from medvlt_lib.core.config import Profile


def dequantized(profile: Profile) -> Path:
    """The folder of a profile's base model, quantized to NF4 and unpacked again, in the profile's dtype.

    Written once for each base model, into this user's cache, and as large as the unquantized weights, which is
    said. Raises UserError where the disk has no room for it.
    """
    m = profile.model
    name = hashlib.sha256(f"{weights_id(profile)} {m.dtype}".encode()).hexdigest()[:16]
    target = cache_folder() / "dequantized" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            _write(profile, target)
    return target


def _write(profile: Profile, target: Path) -> None:
    import torch

    m = profile.model
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    model = load_nf4(resolve(m.name), m.device, m.revision).dequantize().to(getattr(torch, m.dtype))
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if shutil.disk_usage(target.parent).free < size:
        raise UserError(
            f"the unpacked 4-bit weights of {m.name} need {size / 1e9:.1f} GB in {target.parent}, which has less; "
            "free some, or set grpo.sampler_base original."
        )
    print(f"the 4-bit weights of {m.name} are unpacked once into {target} ({size / 1e9:.2f} GB).", file=sys.stderr)
    model.save_pretrained(temporary)
    load_processor(resolve(m.name), revision=m.revision).save_pretrained(temporary)
    temporary.rename(target)
    del model  # vLLM starts next, and needs the memory that torch would keep for itself
    gc.collect()
    torch.cuda.empty_cache()
