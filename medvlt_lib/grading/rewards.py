"""Rewards: what a completion earns, by the graders of medvlt_lib.grading. Plain functions, one number a completion.

They take what TRL hands over: completions as texts or message lists, and the columns of the questions by name. A
completion without a closing answer tag earns nothing from any of them. `grounded`, which needs the phantom world's
rules, is in medvlt_lib/phantom/rationale.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from medvlt_lib.grading.grade import truncated
from medvlt_lib.grading.published import medvlm_r1_reward, medvlthinker_reward
from medvlt_lib.grading.tolerant import tolerant_answer

Completions = Sequence[str | list[dict]]


def text_of(completion: str | list[dict]) -> str:
    """TRL hands over message lists for conversational prompts, plain strings otherwise."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def published(completions: Completions, answer_label: Sequence[str], answer: Sequence[str], **_: Any) -> list[float]:
    """MedVLThinker's training reward, 0 or 1 (RECIPE: train/my_reward.py)."""
    return [medvlthinker_reward(text_of(c), k, a) for c, k, a in zip(completions, answer_label, answer, strict=True)]


def published_signed(
    completions: Completions, answer_label: Sequence[str], answer: Sequence[str], **_: Any
) -> list[float]:
    """The same as the paper's text has it, -1 or 1 (arXiv 2508.02669, section 3)."""
    return [2 * value - 1 for value in published(completions, answer_label, answer)]


def published_medvlm_r1(completions: Completions, answer_label: Sequence[str], **_: Any) -> list[float]:
    """MedVLM-R1's accuracy and format rewards, 0 to 2."""
    return [medvlm_r1_reward(text_of(c), k) for c, k in zip(completions, answer_label, strict=True)]


def tolerant(completions: Completions, answer_label: Sequence[str], options: Sequence[str], **_: Any) -> list[float]:
    """1 for the right answer in any common wording, else 0. `options` are JSON texts."""
    values = []
    for completion, label, choices in zip(completions, answer_label, options, strict=True):
        text = text_of(completion)
        closed = "</answer>" in text.lower() and not truncated(text)
        values.append(float(closed and tolerant_answer(text, json.loads(choices))[0] == label))
    return values


def overlong(completion_ids: Sequence[Sequence[int]], soft_limit: float, cap: int, **_: Any) -> list[float]:
    """0 up to `soft_limit` tokens, then falling in a line to -1 at `cap` (DAPO, arXiv 2503.14476, equation 13)."""
    return [max(-1.0, min(0.0, (soft_limit - len(ids)) / (cap - soft_limit))) for ids in completion_ids]
