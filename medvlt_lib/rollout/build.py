"""The rollout engine of a profile."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.rollout.engine import Engine


def build_engine(profile: Profile, checkpoint: Path | None = None, keep_failures: bool = False) -> Engine:
    """The rollout engine of a profile, on its base model or on an arm's checkpoint.

    `keep_failures`: what a server does not answer is an answer without a word, as in `OpenAIEngine`.
    Raises UserError for a checkpoint on a server.
    """
    if profile.engine.kind == "openai":
        from medvlt_lib.rollout.chat_client import ChatClient
        from medvlt_lib.rollout.openai_engine import OpenAIEngine

        if checkpoint is not None:
            raise UserError(f"engine.kind openai cannot load {checkpoint}; serve it there and name it as model.name.")
        e = profile.engine
        client = ChatClient(e.url, profile.model.name, prices=(e.prompt_price, e.completion_price), max_cost=e.max_cost)
        return OpenAIEngine(client, e.concurrency, keep_failures)
    if profile.engine.kind == "vllm":
        from medvlt_lib.rollout.vllm_start import build_vllm_engine

        return build_vllm_engine(profile, checkpoint)
    from medvlt_lib.rollout.transformers_engine import TransformersEngine

    say_on_a_gpu(profile, "transformers samples, as engine.kind says.")
    return TransformersEngine(
        load_policy(profile, checkpoint).eval(), profile_processor(profile), profile.engine.batch_tokens
    )


def say_on_a_gpu(profile: Profile, sentence: str) -> None:
    """Say once for all processes which engine samples, where another one could: vLLM says so itself."""
    if profile.model.device == "cuda" and os.environ.get("RANK", "0") == "0":
        print(sentence, file=sys.stderr)
