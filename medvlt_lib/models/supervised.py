"""Rows of a prompt and the answer to it, as a model that learns from answers reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import ProcessorMixin

END = "<|im_end|>"  # ends a turn in Qwen's chat layout


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
