"""Short SFT trainings that are broken on purpose, for an exercise of notebook 03.

The base tiny model learns from the teacher's answers about drawn pictures, and is asked other questions afterwards.
`benchmarks/broken.py` recorded what `trained` gives; here a training takes some ten seconds, when it is asked for.
"""

from __future__ import annotations

from typing import Any

import torch

from medvlt_lib.core.errors import first_line
from medvlt_lib.core.files import read_json
from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import messages, prompt_text, target
from medvlt_lib.core.records import Question
from medvlt_lib.course.lesson import RESULTS, show_table
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_model, shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.models.supervised import END, chat_prompt, supervised_rows
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine

WAYS = ("healthy", "images expanded twice", "no chat template", "rate too high", "label noise")
# Of each run what was done to it, and where to look when it is taken for another.
RUNS = {
    "A": ("label noise", "at first, does its loss lie on the form or on what is said? And does it lose the form?"),
    "B": ("rate too high", "before the first step it equals the healthy one. What does the first step do?"),
    "C": ("images expanded twice", "how many places for pictures are there, and how many features to put there?"),
    "D": ("healthy", "which run has the lowest loss at the start, and at the end, too?"),
    "E": ("no chat template", "which tokens surprise the model before the first step, and not any more at the end?"),
}
FAMILY, RATE, BATCH, STEPS, ASKED = "nodule_count", 3e-4, 16, 12, 200
IMAGE = "<|image_pad|>"
FORM = ("<think>", "</think>", "<answer>", "</answer>", END)


def show() -> None:
    """Show what was done, and the recorded trainings."""
    print("what was done:", ", ".join(WAYS))
    show_table(recorded())


def recorded() -> list[tuple]:
    """A table of the recorded trainings under the letters of RUNS; the first row is its head."""
    rows = read_json(RESULTS / "broken-tiny.json")["runs"]
    table: list[tuple] = [
        ("run", "first loss: form", "the rest", "loss at the end", "right afterwards, %", "stopped by")
    ]
    for letter, (way, _) in RUNS.items():
        row = rows[way]
        if row["error"]:
            table.append((letter, "", "", "", "", row["error"]))
        else:
            first, last, right = row["first"], row["losses"][-1], 100 * row["right"]
            table.append((letter, *(f"{x:.2f}" for x in (*first, last)), f"{right:.0f}", ""))
    return table


def trained(way: str, steps: int = STEPS, asked: int = ASKED, seed: int = 0) -> dict[str, Any]:
    """What is seen of one training in one of WAYS.

    `losses`: before every step; `first`: the first of them, in two parts that add up to it, of the tokens of the form
    and of all others; `right`: the share of `asked` other questions that is answered rightly afterwards, in the model's
    usual prompt; `error`: the sentence with which the training stopped, or None.
    """
    noise = 0.6 if way == "label noise" else 0.0
    questions = make_questions(FAMILY, "train", BATCH * steps, seed, label_noise=noise)
    model, processor = load_model(shipped("base")).train(), load_processor(shipped("base"))
    rate = 30 * RATE if way == "rate too high" else RATE
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    form = torch.tensor(processor.tokenizer.convert_tokens_to_ids(FORM))
    seen: dict[str, Any] = {"first": None, "losses": [], "right": None, "error": None}
    for start in range(0, len(questions), BATCH):
        batch = _rows(processor, questions[start : start + BATCH], way)
        try:
            out = model(**batch)
        except ValueError as error:
            return seen | {"error": first_line(error)}
        seen["first"] = seen["first"] or _parts(out.logits, batch["labels"], form)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        seen["losses"].append(out.loss.item())
    fresh = make_questions(FAMILY, "validation", asked, seed)
    answers = TransformersEngine(model.eval(), processor).generate(prompts_of(fresh), Sampling(1, 0.0, 96, seed))
    right = [grade(c.text, q, "tolerant").correct for c, q in zip(answers, fresh, strict=True)]
    return seen | {"right": sum(right) / len(right)}


def _parts(logits: torch.Tensor, labels: torch.Tensor, form: torch.Tensor) -> list[float]:
    """The loss of the form's tokens and of the others, each over the number of all."""
    wanted = labels[:, 1:]  # (rows, T - 1)
    costs = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), wanted, reduction="none")
    of_form, all_ = torch.isin(wanted, form), wanted >= 0
    return [(costs[of_form].sum() / all_.sum()).item(), (costs[all_ & ~of_form].sum() / all_.sum()).item()]


def _rows(processor: Any, questions: list[Question], way: str) -> dict[str, torch.Tensor]:
    """Model inputs and labels of a batch; two of the ways spoil the prompt."""
    prompts = [chat_prompt(processor, messages(question)) for question in questions]
    if way == "no chat template":
        prompts = [f"<|vision_start|>{IMAGE}<|vision_end|>{prompt_text(question)}" for question in questions]
    answers = [target(q.reasoning or "", q.answer_label) for q in questions]
    pictures = [load_image(picture) for question in questions for picture in question.images]
    batch, answered = supervised_rows(processor, prompts, answers, pictures)
    batch["labels"] = batch["input_ids"].masked_fill(~answered, -100)
    if way == "images expanded twice":  # each picture has its places already, and every place is expanded again
        places = batch["input_ids"][0] == processor.tokenizer.convert_tokens_to_ids(IMAGE)  # the same in every row
        times = torch.where(places, places.sum(), 1)
        batch = {k: v.repeat_interleave(times, 1) if v.shape[1:] == places.shape else v for k, v in batch.items()}
    return batch
