"""What phantom:smol is taught: pictures with descriptions first, then questions with their working, in plain sentences.

As for the tiny models (medvlt_lib/tiny/lessons.py) some answers are worked out and others are a glance that names a
value and is often wrong, so that the model can reason but often does not, and reinforcement has something to bring out.
The loss is on the answers alone: the language model knows English.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import torch

from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import messages
from medvlt_lib.core.records import Question
from medvlt_lib.models.supervised import chat_prompt, supervised_rows
from medvlt_lib.phantom.plain import plain_trace
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.tiny.architecture import TAUGHT_IMAGE
from medvlt_lib.tiny.lessons import Cycle, Recipe, lesson, steps_of_pictures

if TYPE_CHECKING:
    from transformers import ProcessorMixin

PART = 8  # rows in memory at once
DESCRIBE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the picture."}]}]
RECIPE = Recipe(
    (
        Cycle(120, captions=32, text_questions=0, image_questions=0, learning_rate=1e-3),
        Cycle(260, captions=8, text_questions=10, image_questions=14, learning_rate=5e-4, horizon=320),
        # Then what lags, most of it worked out: the scores' rules, the pictures. The last steps bring the glances back.
        Cycle(130, captions=6, text_questions=16, image_questions=8, learning_rate=8e-4, horizon=380, glances=0.35),
        Cycle(240, captions=14, text_questions=6, image_questions=10, learning_rate=8e-4, glances=0.35),
        Cycle(
            70,
            captions=0,
            text_questions=4,
            image_questions=28,
            learning_rate=8e-4,
            glances=0.2,
            image_families=("nodule_count", "cardiothoracic_ratio", "dark_nuclei"),
        ),
        Cycle(50, captions=6, text_questions=8, image_questions=14, learning_rate=2e-4, glances=0.75),
    ),
    lookup_steps=0,
    warmup=40,
    save_every=10,
)
Row = tuple[str, str, Question]  # prompt, answer and the question with its pictures


def plain_glance(options: dict[str, str], guess: str) -> str:
    """A glance in a plain sentence."""
    return f"At a glance it is {guess}."


def described(count: int, seed: int) -> list[tuple[Question, str]]:
    """(question, description) of so many pictures: the working of every question on it, without the options."""
    shown = steps_of_pictures(make_questions(TAUGHT_IMAGE, "train", 2 * count, seed))
    return [(question, plain_trace(steps, {}, "")) for question, steps in shown[:count]]


class Lessons:
    """Batches of lessons: model inputs and labels. Batch k is the same however the run was interrupted."""

    def __init__(self, processor: ProcessorMixin, recipe: Recipe) -> None:
        self.processor, self.recipe = processor, recipe

    def batch(self, step: int) -> list[dict[str, torch.Tensor]]:
        """The step's rows in parts of like length: little padding, and PART rows in memory at once."""
        cycle, rng = self.recipe.cycle_at(step)[0], Random(f"smol:{self.recipe.seed}:{step}")
        seed = 1_000_000 * (self.recipe.seed + 1) + step
        plain = {"trace_style": "plain", "wording": "plain"}
        questions = []
        if cycle.text_questions:
            questions += make_questions(cycle.text_families, "train", cycle.text_questions, seed, **plain)
        if cycle.image_questions:
            questions += make_questions(cycle.image_families, "train", cycle.image_questions, seed, **plain)
        rows: list[Row] = []
        for question in questions:
            style, answer = lesson(question, rng, plain_glance, cycle.glances)
            rows.append((chat_prompt(self.processor, messages(question, style)), answer, question))
        if cycle.captions:
            prompt = chat_prompt(self.processor, DESCRIBE)
            rows += [(prompt, text, question) for question, text in described(cycle.captions, seed + 500_000)]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        return [self._part(rows[i : i + PART]) for i in range(0, len(rows), PART)]

    def _part(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Right-padded rows; `labels` (B, T) are the answers' tokens, and -100 elsewhere."""
        prompts, answers, questions = zip(*rows, strict=True)
        pictures = [load_image(picture) for question in questions for picture in question.images]
        batch, answered = supervised_rows(self.processor, list(prompts), list(answers), pictures)
        return {**batch, "labels": batch["input_ids"].masked_fill(~answered, -100)}
