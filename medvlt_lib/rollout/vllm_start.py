"""vLLM's start in this process: what it waits for is said, and where it does not start, which setting to change."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.rollout.vllm_engine import VllmEngine, close_running, engine_keywords

OLDEST = (0, 26, 0)  # of vLLM, whose keywords are those used here


def build_vllm_engine(profile: Profile, checkpoint: Path | None = None) -> VllmEngine:
    """The engine on a profile's base model or an arm's checkpoint.

    Raises UserError where vLLM is not installed or does not start.
    """
    from medvlt_lib.models.loading import is_adapter

    engine = start_vllm(profile, engine_keywords(profile, checkpoint), "engine.kind", "engine.gpu_memory")
    if checkpoint is not None and is_adapter(checkpoint):
        engine.swap(checkpoint)
    return engine


def start_vllm(profile: Profile, keywords: dict[str, Any], asked_by: str, memory_key: str) -> VllmEngine:
    """vLLM started with `keywords`; it says what it waits for. Errors name the settings `asked_by` and `memory_key`.

    One that ran in this process before is stopped: it holds memory, and would take the new one's groups with it later.

    Raises UserError where vLLM is not installed, is too old or does not start.
    """
    from medvlt_lib.models.loading import profile_processor

    cpu = profile.model.device == "cpu"
    mend = f"set {asked_by} {'transformers' if asked_by == 'engine.kind' else 'engine'}"
    # Its engine in this process: tensors can then be handed over, whatever an engine before this one has set; and a
    # CPU gains nothing from a second process.
    if asked_by == "grpo.sampler":
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0" if cpu else "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if cpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB, for the tiny models of a CPU
    try:
        import vllm
    except Exception as error:  # an import that fails on CUDA, torch or torchvision raises each its own kind
        raise UserError(
            f"{asked_by} is vllm, but vLLM does not load ({first_line(error)}); install requirements/gpu.txt or {mend}."
        ) from None
    if version_of(vllm.__version__) < OLDEST:
        raise UserError(
            f"{asked_by} is vllm, and vLLM {vllm.__version__} is older than {'.'.join(map(str, OLDEST))}; "
            f"install requirements/gpu.txt or {mend}."
        )
    close_running()
    compiles = "" if keywords["enforce_eager"] else " and compiles them, which takes a minute or more the first time"
    print(f"vLLM {vllm.__version__} starts: it loads the weights of {keywords['model']}{compiles}.", file=sys.stderr)
    try:
        llm = vllm.LLM(**keywords)
    except (RuntimeError, ValueError, OSError, TypeError) as error:
        reason = next((line for line in str(error).splitlines() if "alidation error" not in line), repr(error)).strip()
        figure = f"{memory_key}, now {keywords['gpu_memory_utilization']}"
        raise UserError(f"vLLM does not start ({reason}); {memory_advice(reason, figure)}{mend}.") from error
    return VllmEngine(llm, profile_processor(profile))


def memory_advice(reason: str, figure: str) -> str:
    """Which way to move vLLM's share of the memory, `figure`, by what vLLM says of its start; empty where the memory
    had no part in it."""
    says = reason.lower()
    if "engine core initialization failed" in says:  # a second process, whose own error is only printed
        return f"its own error stands above; where that is about memory, change {figure}, as it says, or "
    if "no available memory" in says or "to serve at least one request" in says:  # for its cache
        return f"raise {figure}, or "
    return f"lower {figure}, or " if "memory" in says else ""


def version_of(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (0, 31, 0) of 0.31.0+cpu."""
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3])
