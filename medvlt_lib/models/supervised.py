"""Rows of a prompt and the answer to it, as a model that learns from answers reads them, and what they cost it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import PreTrainedModel, ProcessorMixin

END = "<|im_end|>"  # ends a turn in Qwen's chat layout
ROWS = 256  # tokens whose logits are in memory at once


def chat_prompt(processor: ProcessorMixin, chat: list[dict]) -> str:
    """A chat as text, with the opening of the assistant's turn."""
    return processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def supervised_rows(
    processor: ProcessorMixin, prompts: list[str], answers: list[str], pictures: list[Image.Image]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(model inputs, answer mask) of prompts, each with its answer and END after it.

    Rows are padded on the right to (rows, tokens). `pictures`: those of all rows, in order. The mask is True on the
    answer's tokens and its END, False on the prompt and the padding.
    """
    import torch

    whole = [f"{prompt}{answer}{END}" for prompt, answer in zip(prompts, answers, strict=True)]
    inputs = processor(text=whole, images=pictures or None, padding=True, padding_side="right", return_tensors="pt")
    ends = inputs["attention_mask"].sum(1, keepdim=True)
    own = torch.tensor([[len(processor.tokenizer(f"{answer}{END}").input_ids)] for answer in answers])
    place = torch.arange(inputs["input_ids"].shape[1])
    return dict(inputs), (place >= ends - own) & (place < ends)


def summed_loss(model: PreTrainedModel, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of the tokens of `labels` (B, T; -100: not one of them), each given those before it, summed.

    Only they reach the output layer, ROWS at a time, each with its logits made again for the backward pass: tokens x
    vocabulary numbers are never in memory together. `model`: without a wrapper of PEFT around it.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]  # (B, T - 1, H)
    wanted = labels[:, 1:] != -100

    def loss_of(rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model.lm_head(rows).float(), targets, reduction="sum")

    pairs = zip(hidden[wanted].split(ROWS), labels[:, 1:][wanted].split(ROWS), strict=True)
    return torch.stack([checkpoint(loss_of, rows, targets, use_reentrant=False) for rows, targets in pairs]).sum()
