"""What machine-written questions get wrong, put into phantom questions on purpose: labels, steps, options.

A wrong label is `random` (another option) or `systematic`: the same mistake wherever it is made, as a writer with a
habit makes it (a family's `mistaken`: one step too far on the scale, left for right, one kind of blood for another).
A wrong step has its last number changed. A question that is given away can be answered without its picture, since
only the right option answers what is asked. Facts stay as they are: they say what is true. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from medvlt_lib.core.records import Question

if TYPE_CHECKING:
    from medvlt_lib.phantom.image_families import ImageFamily
    from medvlt_lib.phantom.text_family import TextFamily

NOISE_KINDS = ("random", "systematic")


def wrong_label(question: Question, rng: Random) -> Question:
    """The same question labelled with another of its options; its steps stay."""
    return _labelled(question, rng.choice([k for k in question.options if k != question.answer_label]))


def mistaken_label(question: Question, family: TextFamily | ImageFamily, rng: Random) -> Question:
    """The same question as a writer with the family's habit labels it, whose last steps lead there. Where no option
    holds what the writer concludes, one that is wrong is replaced by it. Without a habit for its value, unchanged."""
    facts, options = question.extra["facts"], dict(question.options)
    value = family.rule(facts)
    if (mistake := family.mistaken(value)) is None:
        return question
    concluded, true = family.text(mistake), family.text(value)
    if concluded not in options.values():
        options[rng.choice([k for k in options if k != question.answer_label])] = concluded
    label = next(letter for letter, text in options.items() if text == concluded)
    *working, last = question.extra["steps"]
    steps = [*(_of_side(step, concluded) for step in working), f"{last.removesuffix(true)}{concluded}"]
    changed = replace(question, options=options, extra={**question.extra, "steps": steps})
    return _labelled(changed, label)


def wrong_step(question: Question, rng: Random) -> Question:
    """The same question with one wrong step; its label stays."""
    steps = question.extra["steps"]
    which = rng.randrange(len(steps))
    steps = [_slip(step, rng) if i == which else step for i, step in enumerate(steps)]
    return replace(question, noise={**question.noise, "trace": True}, extra={**question.extra, "steps": steps})


def given_away(question: Question, others: Sequence[str], rng: Random) -> Question:
    """The same question with wrong options that answer no question of its kind, drawn from `others`."""
    wrong = iter(rng.sample(others, len(question.options) - 1))
    options = {k: text if k == question.answer_label else next(wrong) for k, text in question.options.items()}
    return replace(question, options=options, extra={**question.extra, "given_away": True})


def _labelled(question: Question, label: str) -> Question:
    noise = {**question.noise, "label": True}
    return replace(question, answer_label=label, answer=question.options[label], noise=noise)


def _of_side(step: str, concluded: str) -> str:
    """The step that says which side of the patient is meant, for the conclusion's side; others as they are."""
    sides = [side for side in ("left", "right") if side in concluded.split()]
    return f"patient {sides[0]}" if sides and step in ("patient left", "patient right") else step


def _slip(step: str, rng: Random) -> str:
    """A step with its last number changed, or, without a number, turned into its denial."""
    numbers = list(re.finditer(r"\d+", step))
    if not numbers:
        return f"not {step}"
    last = numbers[-1]
    wrong = int(last.group()) + rng.choice([d for d in (-3, -2, -1, 1, 2, 3) if int(last.group()) + d >= 0])
    return step[: last.start()] + str(wrong) + step[last.end() :]
