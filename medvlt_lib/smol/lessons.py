"""What phantom:smol is taught: workings alone first, then questions with their working, in plain sentences.

A working alone has neither options nor the form of an answer: the description of a picture, or a sum. Its row takes a
third of a question's time, and where the loss is on its figures alone, the model learns to count and to measure from a
few thousand pictures. A stretch of few families is quicker still; what it costs the others, the
next brings back.
As for the tiny models (medvlt_lib/tiny/lessons.py) some answers are worked out and others are a glance that names a
value and is often wrong, so that the model can reason but often does not, and reinforcement has something to bring out.
The loss is on the answers alone: the language model knows English.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch

from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import messages
from medvlt_lib.core.records import Question
from medvlt_lib.models.supervised import chat_prompt, supervised_rows
from medvlt_lib.phantom.plain import plain_trace
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.tiny.architecture import TAUGHT_IMAGE, TAUGHT_TEXT
from medvlt_lib.tiny.lessons import Cycle, Recipe, lesson, steps_of_pictures

if TYPE_CHECKING:
    from transformers import ProcessorMixin

PART = 8  # rows in memory at once
DESCRIBE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the picture."}]}]
FIGURES = (  # the families whose working is told by its figures
    *TAUGHT_TEXT,
    "cardiothoracic_ratio",
    "nodule_count",
    "lesion_size",
    "cup_to_disc_ratio",
    "dark_nuclei",
)


@dataclass(frozen=True)
class Stretch(Cycle):
    """A cycle of phantom:smol's lessons; its `captions` are workings alone."""

    described_families: tuple[str, ...] = TAUGHT_IMAGE  # whose pictures `captions` are of
    sums: int = 0  # questions in text with their working alone
    figures_only: bool = False  # of the workings of FIGURES, only the figures are taught


def _alone(steps: int, horizon: int, captions: int, sums: int, *families: str) -> Stretch:
    """Workings alone, and of those of FIGURES the figures alone."""
    return Stretch(steps, captions, 0, 0, 8e-4, horizon, described_families=families, sums=sums, figures_only=True)


RECIPE = Recipe(
    (
        Stretch(70, captions=24, sums=8, text_questions=0, image_questions=0, learning_rate=1e-3),
        _alone(100, 200, 32, 0, "nodule_count"),
        _alone(80, 160, 32, 0, "cardiothoracic_ratio", "nodule_count", "dark_nuclei"),
        _alone(90, 150, 20, 12, *TAUGHT_IMAGE),
        _alone(60, 90, 32, 0, "cardiothoracic_ratio", "nodule_count"),
        _alone(60, 90, 32, 0, "lesion_size", "cup_to_disc_ratio", "dark_nuclei"),
        _alone(60, 80, 28, 6, *TAUGHT_IMAGE),
        # Then questions with options, in form, with some workings alone; first most of them worked out, then middling.
        Stretch(100, 12, 7, 9, 6e-4, 120, glances=0.25, sums=4, figures_only=True),
        _alone(60, 90, 32, 0, "midline_shift", "bleed_type", "lesion_size", "dark_nuclei"),
        Stretch(70, 12, 6, 12, 5e-4, 90, glances=0.25, sums=2, figures_only=True),
        _alone(60, 90, 32, 0, "dark_nuclei"),
        _alone(50, 90, 32, 0, "dark_nuclei"),
        _alone(30, 50, 28, 6, *TAUGHT_IMAGE),
        Stretch(30, 12, 6, 12, 5e-4, 45, glances=0.25, sums=2, figures_only=True),
        Stretch(25, 4, 8, 12, 3e-4, 35, glances=0.68, sums=2, figures_only=True),
    ),
    lookup_steps=0,
    warmup=40,
    save_every=10,
)
Row = tuple[str, str, Question, bool]  # prompt, answer, the question with its pictures, whether only figures are taught


def plain_glance(options: dict[str, str], guess: str) -> str:
    """A glance in a plain sentence."""
    return f"At a glance it is {guess}."


def described(families: tuple[str, ...], count: int, seed: int) -> list[tuple[Question, str]]:
    """(question, description) of so many pictures: the working of every question on it, without the options."""
    shown = steps_of_pictures(make_questions(families, "train", 2 * count, seed))
    return [(question, plain_trace(steps, {}, "")) for question, steps in shown[:count]]


def worked(question: Question) -> list[dict]:
    """The chat that asks for the working of a question in text, without options."""
    return [{"role": "user", "content": [{"type": "text", "text": f"{question.question} Work it out."}]}]


class Lessons:
    """Batches of lessons: model inputs and labels. Batch k is the same however the run was interrupted."""

    def __init__(self, processor: ProcessorMixin, recipe: Recipe[Stretch]) -> None:
        self.processor, self.recipe = processor, recipe
        self.figures = torch.tensor(processor.tokenizer.convert_tokens_to_ids(list("0123456789")))

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
            rows.append((chat_prompt(self.processor, messages(question, style)), answer, question, False))
        alone = []
        if cycle.captions:
            shown = described(cycle.described_families, cycle.captions, seed + 500_000)
            alone += [(DESCRIBE, text, question) for question, text in shown]
        if cycle.sums:
            asked = make_questions(cycle.text_families, "train", cycle.sums, seed + 700_000, wording="plain")
            alone += [(worked(q), plain_trace(q.extra["steps"], {}, ""), q) for q in asked]
        rows += [
            (chat_prompt(self.processor, chat), text, q, cycle.figures_only and q.family in FIGURES)
            for chat, text, q in alone
        ]
        rows.sort(key=lambda row: len(self.processor.tokenizer(row[0] + row[1]).input_ids))
        return [self._part(rows[i : i + PART]) for i in range(0, len(rows), PART)]

    def _part(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Right-padded rows; `labels` (B, T) are the answers' tokens that are taught, and -100 elsewhere."""
        prompts, answers, questions, figures_only = zip(*rows, strict=True)
        pictures = [load_image(picture) for question in questions for picture in question.images]
        batch, answered = supervised_rows(self.processor, list(prompts), list(answers), pictures)
        taught = answered & (torch.isin(batch["input_ids"], self.figures) | ~torch.tensor(figures_only)[:, None])
        return {**batch, "labels": batch["input_ids"].masked_fill(~taught, -100)}
