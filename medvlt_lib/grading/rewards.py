"""The graders of medvlt_lib.grading as TRL reward functions."""

from __future__ import annotations

from medvlt_lib.grading.published import medvlm_r1_reward, medvlthinker_reward


def _text(completion: str | list[dict]) -> str:
    """TRL hands over message lists for conversational prompts, plain strings otherwise."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def published(completions: list, answer_label: list[str], answer: list[str], **_: object) -> list[float]:
    """MedVLThinker's training reward, 0 or 1 (RECIPE: train/my_reward.py)."""
    return [medvlthinker_reward(_text(c), k, a) for c, k, a in zip(completions, answer_label, answer, strict=True)]


def published_medvlm_r1(completions: list, answer_label: list[str], **_: object) -> list[float]:
    """MedVLM-R1's accuracy and format rewards, 0 to 2."""
    return [medvlm_r1_reward(_text(c), k) for c, k in zip(completions, answer_label, strict=True)]
