"""An answer as people look at it: the thinking sentence by sentence, each true or false, and what was answered.

The report, the comparison page and the widget show the same. No torch here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from medvlt_lib.core.images import load_image, png_address
from medvlt_lib.core.records import Question
from medvlt_lib.phantom.rationale import has_facts, judge
from medvlt_lib.phantom.true_steps import FIRST_ERRORS, true_steps

TRUE, FALSE, UNJUDGED = "true", "false", ""
SIDE = 360  # pixels of a shown picture's longest side


@dataclass(frozen=True)
class ShownAnswer:
    """An answer in parts. `thinking`: sentences, each TRUE, FALSE or UNJUDGED; without facts one piece that nobody
    judged. `correct`: None where the question has no known answer. `first_error`: in words; None where there is none.
    """

    thinking: list[tuple[str, str]]
    answer: str
    letter: str | None
    option: str | None
    correct: bool | None
    first_error: str | None


def shown_answer(
    text: str, letter: str | None, correct: bool | None, question: Question, formed: bool = True
) -> ShownAnswer:
    """What an answer to a question says. `letter`, `correct`, `formed`: what its grader read (see core/records.py)."""
    thinking, answer = parted(text)
    pieces, error = [(thinking, UNJUDGED)] if thinking else [], None
    if has_facts(question):
        family, facts = question.family or "", question.extra["facts"]
        verdicts = {"true": TRUE, "false": FALSE}
        steps = judge(text.partition("<answer>")[0], family, facts, question.options).steps
        pieces = [(step.text, verdicts.get(step.verdict, UNJUDGED)) for step in steps]
        first = true_steps(text, letter, formed, family, facts, question.options).first_error
        error = FIRST_ERRORS[first] if first else None
    return ShownAnswer(pieces, answer, letter, question.options.get(letter or ""), correct, error)


def parted(text: str) -> tuple[str, str]:
    """(thinking, answer) of a response; thinking that is never closed has no answer after it."""
    before, closed, after = text.partition("</think>")
    if not closed:
        thinking, answer = (text, "") if text.lstrip().startswith("<think>") else ("", text)
    else:
        thinking, answer = before, after
    return thinking.replace("<think>", "").strip(), re.sub(r"</?answer>", "", answer).strip()


def picture_url(image: str | bytes) -> str:
    """A picture as an address that holds it, at most SIDE pixels long. Raises UserError where it cannot be read."""
    pixels = load_image(image)
    pixels.thumbnail((SIDE, SIDE))
    return png_address(pixels, optimize=True)
