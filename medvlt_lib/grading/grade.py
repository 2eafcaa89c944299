"""One response graded by one paper's rules, or tolerantly: the one way to a verdict."""

from __future__ import annotations

from typing import Any, get_args

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import LETTERS, Question, Verdict
from medvlt_lib.core.sections import GraderName
from medvlt_lib.grading.published import (
    in_form,
    medvlm_r1_letter,
    medvlm_r1_reward,
    medvlthinker_reward,
    online_answer,
    regrade_answer,
    same_answer,
)
from medvlt_lib.grading.tolerant import read_response, tolerant_answer

GRADERS = get_args(GraderName)
SHOWN = 200  # characters of a piece of evidence


def well_formed(response: str, style: str = "medvlthinker") -> bool:
    """Whether the whole response has the form its prompt style asks for."""
    if style != "no-think":
        return in_form(response)
    bare = response.strip()
    return bare.startswith("<answer>") and bare.endswith("</answer>") and len(bare) >= len("<answer></answer>")


def truncated(response: str, finish_reason: str | None = None) -> bool:
    """A think or answer block that was opened and never closed, or generation that ran into its limit."""
    if finish_reason == "length" or response.rfind("<think>") > response.rfind("</think>"):
        return True
    return response.rfind("<answer>") > response.rfind("</answer>")


def grade(
    response: str,
    question: Question,
    grader: str = "published",
    style: str = "medvlthinker",
    finish_reason: str | None = None,
) -> Verdict:
    """Grade one response to a question (see `grade_response`)."""
    return grade_response(response, question.options, question.answer_label, grader, style, finish_reason)


def grade_response(
    response: str,
    options: dict[str, str],
    label: str,
    grader: str = "published",
    style: str = "medvlthinker",
    finish_reason: str | None = None,
) -> Verdict:
    """Grade one response by one paper's rules, or tolerantly. Raises UserError for an unknown grader.

    `published`: `correct` is the re-grade, `reward` the training reward, `online` the grade that filtering counts.
    `published-medvlm-r1`: `correct` is its evaluation rule, `reward` runs from 0 to 2.
    `tolerant`: any clearly stated answer counts (see medvlt_lib.grading.tolerant); it has no reward of its own.
    """
    shape = {"well_formed": well_formed(response, style), "truncated": truncated(response, finish_reason)}
    if grader == "published":
        text, how = regrade_answer(response)
        letter = next((k for k, option in options.items() if same_answer(text, k, option)), None)
        answer = options[label]
        return Verdict(
            letter,
            same_answer(text, label, answer),
            how if letter else "no answer",
            reward=medvlthinker_reward(response, label, answer),
            online=same_answer(online_answer(response), label, answer),
            **shape,
        )
    if grader == "published-medvlm-r1":
        letter = medvlm_r1_letter(response)
        letter = letter if letter is None or letter in LETTERS else None
        return Verdict(
            letter, letter == label, "tag" if letter else "no answer", reward=medvlm_r1_reward(response, label), **shape
        )
    if grader == "tolerant":
        letter, how = tolerant_answer(response, options, finish_reason)
        return Verdict(letter, letter == label, how, **shape)
    raise UserError(f"unknown grader '{grader}'; choose one of {', '.join(GRADERS)}.")


def evidence(response: str, options: dict[str, str], grader: str, finish_reason: str | None = None) -> dict[str, Any]:
    """Why a response was graded as it was: `piece`, the words that were read; `rule`, by which they were; for
    `tolerant` also `others`, the other statements in order, and `put_aside`, what was not read, by kind.
    """
    if grader == "published":
        piece, rule = regrade_answer(response)
        return {"piece": piece[:SHOWN], "rule": rule}
    if grader == "published-medvlm-r1":
        letter = medvlm_r1_letter(response)
        return {"piece": letter or "", "rule": "tag" if letter else "no tag with one capital letter"}
    reading = read_response(response, options, finish_reason)
    aside = {kind: text.strip()[:SHOWN] for kind, text in reading.aside.items() if text.strip()}
    if finish_reason == "length":
        aside["what is not closed, of a response that was cut"] = response[-SHOWN:]
    none = "no answer: what is stated is no one option" if reading.statements else "no answer: nothing is stated"
    return {
        "piece": reading.standing.piece.strip()[:SHOWN] if reading.standing else "",
        "rule": reading.how if reading.standing else none,
        "others": [f"{s.rule}: {s.piece.strip()[:80]}" for s in reading.statements if s is not reading.standing],
        "put_aside": aside,
    }
