"""TRL's SFT trainer for a profile: its rows, with the loss on the answers alone, and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import messages, target
from medvlt_lib.core.records import Question
from medvlt_lib.models.adapters import lora_to_float32
from medvlt_lib.models.supervised import chat_prompt, supervised_rows
from medvlt_lib.training.trainer import shared_arguments

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback
    from trl import SFTConfig, SFTTrainer


def make_trainer(
    profile: Profile,
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    questions: Sequence[Question],
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> SFTTrainer:
    """TRL's trainer for a profile; LoRA weights, which TRL may have cast to bf16, are put back to float32."""
    from datasets import Dataset
    from trl import SFTTrainer

    trainer = SFTTrainer(
        model=model,
        args=sft_arguments(profile, folder),
        train_dataset=Dataset.from_dict({"row": list(range(len(questions)))}),
        data_collator=Collator(
            processor, questions, profile.model.prompt_style, profile.sft.max_length, profile.sft.target
        ),
        processing_class=processor,
        callbacks=list(callbacks),
    )
    lora_to_float32(trainer.model)
    return trainer


class Collator:
    """Row numbers to model inputs, right-padded, with labels on the assistant's answer and its end token only.

    Text and image questions may stand in one batch. `max_length` and `wanted` are the settings sft.max_length (in
    tokens) and sft.target. Raises UserError for a longer row.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        questions: Sequence[Question],
        style: str,
        max_length: int,
        wanted: Literal["full", "answer_only"] = "full",
    ) -> None:
        self.processor, self.questions, self.max_length = processor, questions, max_length
        self.style, self.answer_style = style, "no-think" if wanted == "answer_only" else style

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        questions = [self.questions[row["row"]] for row in rows]
        prompts = [chat_prompt(self.processor, messages(question, self.style)) for question in questions]
        answers = [target(q.reasoning or "", q.answer_label, self.answer_style) for q in questions]
        pictures = [load_image(picture) for question in questions for picture in question.images]
        batch, answered = supervised_rows(self.processor, prompts, answers, pictures)
        for question, length in zip(questions, batch["attention_mask"].sum(1).tolist(), strict=True):
            if length > self.max_length:
                raise UserError(
                    f"question {question.id} is {length} tokens long, sft.max_length is {self.max_length}; "
                    "raise it or leave the question out."
                )
        return {**batch, "labels": batch["input_ids"].masked_fill(~answered, -100)}


def sft_arguments(profile: Profile, folder: Path) -> SFTConfig:
    """A profile's sft section in TRL's terms."""
    from trl import SFTConfig

    s = profile.sft
    return SFTConfig(
        **shared_arguments(profile, s, folder),
        per_device_train_batch_size=s.micro_batch,
        gradient_accumulation_steps=profile.sft_accumulation(),
        max_length=None,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
