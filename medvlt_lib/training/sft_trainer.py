"""TRL's SFT trainer for a profile: its rows, with the loss on the answers alone, and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import messages, target
from medvlt_lib.core.records import Question
from medvlt_lib.models.adapters import lora_to_float32
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
        data_collator=Collator(processor, questions, profile.model.prompt_style, profile.sft.max_length),
        processing_class=processor,
        callbacks=list(callbacks),
    )
    lora_to_float32(trainer.model)
    return trainer


class Collator:
    """Row numbers to model inputs, right-padded, with labels on the answer and its end token only."""

    def __init__(self, processor, questions: Sequence[Question], style: str, max_length: int) -> None:
        self.processor, self.questions, self.style, self.max_length = processor, questions, style, max_length

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        questions = [self.questions[row["row"]] for row in rows]
        prompts = [
            self.processor.apply_chat_template(messages(q, self.style), tokenize=False, add_generation_prompt=True)
            for q in questions
        ]
        answers = [target(q.reasoning, q.answer_label, self.style) + "<|im_end|>" for q in questions]
        pictures = [load_image(i) for q in questions for i in q.images] or None
        whole = [p + a for p, a in zip(prompts, answers, strict=True)]
        batch = self.processor(text=whole, images=pictures, padding=True, padding_side="right", return_tensors="pt")
        lengths = batch["attention_mask"].sum(1)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            if lengths[i] > self.max_length:
                raise UserError(
                    f"question {question.id} is {lengths[i]} tokens long, sft.max_length is {self.max_length}; "
                    "raise it or leave the question out."
                )
            labels[i, : lengths[i] - len(self.processor.tokenizer(answer).input_ids)] = -100
        return {**batch, "labels": labels}


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
