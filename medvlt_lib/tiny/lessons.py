"""What a tiny model is taught in pretraining: which questions and pictures at which step, and the answers to them.

The model first learns to find a value among options, then to answer questions and to describe pictures. The last two
are mixed, because one after the other the model forgets.

The mixture is what the course works on. Some traces are worked out step by step. Others are a glance that names a value
without working and is often wrong. With few options the glance is the rule, with five the exception. So the finished
model can reason but often does not, and reinforcement can bring it out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch

from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import messages, target
from medvlt_lib.core.records import LETTERS, Question
from medvlt_lib.models.supervised import chat_prompt, supervised_rows
from medvlt_lib.phantom.questions import FAMILIES, OPTION_COUNTS, make_questions
from medvlt_lib.phantom.teacher import own_trace
from medvlt_lib.tiny.architecture import TAUGHT, TAUGHT_IMAGE, TAUGHT_TEXT

if TYPE_CHECKING:
    from transformers import ProcessorMixin

STYLE_SHARES = {"medvlthinker": 0.76, "medvlm-r1": 0.12, "no-think": 0.12}
GLANCE_SHARES = {2: 0.7, 3: 0.7, 4: 0.7, 5: 0.25}  # by number of options
GLANCE_ERROR = 0.3  # share of glances that name a wrong option
PROMPT_WEIGHT = 0.2
DESCRIBE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe."}]}]


@dataclass(frozen=True)
class Cycle:
    """A stretch of training with its own mixture (rows a step) and its own cosine of the learning rate.

    Cosines that start again: SGDR, arXiv 1608.03983.
    """

    steps: int
    captions: int = 24  # pictures with a description: learning to see
    text_questions: int = 20
    image_questions: int = 20
    learning_rate: float = 1.5e-3
    horizon: int | None = None  # steps the cosine is laid out for, when the next cycle begins before its end
    glances: float = 1.0  # times GLANCE_SHARES: below 1, more is worked out
    text_families: tuple[str, ...] = TAUGHT_TEXT
    image_families: tuple[str, ...] = TAUGHT_IMAGE


@dataclass(frozen=True)
class Recipe:
    """One pretraining run. In its first `lookup_steps` the model learns to name a letter, on short sequences."""

    cycles: tuple[Cycle, ...]
    lookup_steps: int = 200
    lookup_batch: int = 128
    warmup: int = 100
    save_every: int = 200
    seed: int = 0

    @property
    def steps(self) -> int:
        return sum(cycle.steps for cycle in self.cycles)

    def cycle_at(self, step: int) -> tuple[Cycle, int]:
        """The cycle a step belongs to, and the steps since it began."""
        for cycle in self.cycles:
            if step < cycle.steps:
                return cycle, step
            step -= cycle.steps
        return self.cycles[-1], self.cycles[-1].steps + step


RECIPES = {
    "small": Recipe((Cycle(1000),)),
    "base": Recipe(
        (
            Cycle(1200, horizon=2000),
            Cycle(800, captions=32, text_questions=16, learning_rate=1.2e-3, horizon=1400),
            Cycle(  # practise what lags
                200,
                captions=8,
                text_questions=36,
                learning_rate=5e-4,
                text_families=("qsofa", "anion_gap", "shock_index"),
                image_families=("cardiothoracic_ratio", "dark_nuclei"),
            ),
        )
    ),
}


def lookup_question(rng: Random) -> Question:
    """`Find V.` among options of one family, which teaches to name a letter on the shortest sequences."""
    family = FAMILIES[rng.choice(TAUGHT)]
    values = [family.text(v) for v in family.values]
    count = min(rng.choices(list(OPTION_COUNTS), list(OPTION_COUNTS.values()))[0], len(values))
    options = dict(zip(LETTERS, rng.sample(values, count), strict=False))
    label = rng.choice(list(options))
    return Question(
        id="lookup",
        dataset="phantom",
        split="train",
        modality="text",
        question=f"Find {options[label]}.",
        options=options,
        answer_label=label,
        answer=options[label],
        reasoning=own_trace([f"find {options[label]}"], options, options[label]),
    )


def own_glance(options: dict[str, str], guess: str) -> str:
    """A glance in the model's own style."""
    return own_trace([f"at a glance {guess}"], options, guess)


def lesson(
    question: Question, rng: Random, glance: Callable[[dict[str, str], str], str] = own_glance, glances: float = 1.0
) -> tuple[str, str]:
    """(style, answer text) for one question: worked out, or at a glance; see the module's head. `glance`: how a glance
    that names a value is written, from the options and the value. `glances`: as Cycle's."""
    style = rng.choices(list(STYLE_SHARES), list(STYLE_SHARES.values()))[0]
    reasoning, label = question.reasoning, question.answer_label
    if (
        question.id != "lookup"
        and style != "no-think"
        and rng.random() < glances * GLANCE_SHARES[len(question.options)]
    ):
        if rng.random() < GLANCE_ERROR:
            label = rng.choice([k for k in question.options if k != label])
        reasoning = glance(question.options, question.options[label])
    return style, target(reasoning, label, style)


def steps_of_pictures(questions: list[Question]) -> list[tuple[Question, list[str]]]:
    """One (question, steps) a picture: the working of every question on it, one after the other."""
    pictures: dict[str, tuple[Question, list[str]]] = {}
    for question in questions:
        pictures.setdefault(question.image_ids[0], (question, []))[1].extend(question.extra["steps"])
    return list(pictures.values())


def captions(questions: list[Question]) -> list[tuple[Question, str]]:
    """One (question, description) a picture, in the model's own style."""
    return [(question, ". ".join(steps) + ".") for question, steps in steps_of_pictures(questions)]


class Lessons:
    """Batches of lessons: token ids, weights and pixels. Batch k is the same however the run was interrupted."""

    def __init__(self, processor: ProcessorMixin, recipe: Recipe) -> None:
        self.processor, self.recipe = processor, recipe

    def batch(self, step: int) -> list[dict[str, torch.Tensor]]:
        """The step's rows as one or two parts of like length, so that little is padding."""
        recipe, rng = self.recipe, Random(f"lessons:{self.recipe.seed}:{step}")
        seed, (cycle, _) = 1_000_000 * (recipe.seed + 1) + step, recipe.cycle_at(step)
        described: list[tuple[Question, str]] = []
        if step < recipe.lookup_steps:
            questions = [lookup_question(rng) for _ in range(recipe.lookup_batch)]
        else:
            questions = make_questions(cycle.text_families, "train", cycle.text_questions, seed)
            questions += make_questions(cycle.image_families, "train", cycle.image_questions, seed)
            shown = make_questions(TAUGHT_IMAGE, "train", 2 * cycle.captions, seed + 500_000)
            described = captions(shown)[: cycle.captions]
        rows = [(q, *lesson(q, rng, glances=cycle.glances)) for q in questions]
        parts = [
            self.collate(
                [chat_prompt(self.processor, messages(q, s)) for q, s, _ in rows],
                [a for _, _, a in rows],
                [q.images for q in questions],
            )
        ]
        if described:
            texts = [text for _, text in described]
            parts.append(
                self.collate(
                    [chat_prompt(self.processor, DESCRIBE)] * len(texts), texts, [q.images for q, _ in described]
                )
            )
        return parts

    def collate(self, prompts: list[str], answers: list[str], images: list[list]) -> dict[str, torch.Tensor]:
        """Right-padded rows; `weights` (B, T) is 1 on the answer, PROMPT_WEIGHT on the prompt's text, 0 elsewhere."""
        pictures = [load_image(picture) for row in images for picture in row]
        batch, answered = supervised_rows(self.processor, prompts, answers, pictures)
        picture = self.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        read = (batch["attention_mask"] == 1) & (batch["input_ids"] != picture)
        return {**batch, "weights": torch.where(answered, 1.0, PROMPT_WEIGHT * read)}
