"""From text to verdict: the published reward and grading rules of both papers, rule for rule.

MedVLThinker (arXiv 2508.02669) has three different functions, kept apart here as they are in its release: the
training reward (train/my_reward.py), the grade counted during inference and filtering (eval/run_offline_inference.py)
and the re-grade behind the reported numbers (analysis/regrade_eval_results.py).
MedVLM-R1 (arXiv 2502.19634) has an accuracy and a format reward (open_r1/grpo.py) and an evaluation rule
(eval/test_qwen2vl_med.py). All are strict: "B." is wrong wherever the release says so.
"""

from __future__ import annotations

import re

from medvlt_lib.records import LETTERS, Question, UserError, Verdict

GRADERS = ("published", "published-medvlm-r1")
_FORM = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
_NO_THINK_FORM = re.compile(r"\s*<answer>.*?</answer>\s*", re.DOTALL)
_ANSWER_ONE_LINE = re.compile(r"<answer>(.*?)</answer>")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_ANSWER_ANY_CASE = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_FALLBACKS = [re.compile(p, re.IGNORECASE) for p in (r"answer:\s*(.*)", r"answer is:\s*(.*)", r"answer is\s*(.*)", r"is:\s*(.*)")]
_TAGS = re.compile(r"</?(?:think|answer)>")
_SINGLE_LETTER = re.compile(r"<answer>\s*([A-Z])\s*</answer>")


def same_answer(prediction: str, label: str, answer: str) -> bool:
    """MedVLThinker's three-way equality: the label, the text or "label. text", whatever the case."""
    prediction = prediction.strip().lower()
    return prediction in (label.strip().lower(), answer.strip().lower(), f"{label}. {answer}".strip().lower())


def medvlthinker_reward(response: str, label: str, answer: str) -> float:
    """1.0 or 0.0: the whole response in form, and its first answer, on one line, right (train/my_reward.py)."""
    if not _FORM.fullmatch(response):
        return 0.0
    found = _ANSWER_ONE_LINE.search(response)
    return float(same_answer(found.group(1) if found else response, label, answer))


def online_answer(response: str) -> str:
    """The first answer tag's content, or the whole text (MedVLThinker, during inference)."""
    found = _ANSWER.search(response)
    return (found.group(1) if found else response).strip()


def regrade_answer(response: str) -> tuple[str, str]:
    """(answer, how) by MedVLThinker's re-grading: last tag's first line, else a phrase's last match, else all."""
    tags = _ANSWER.findall(response)
    if tags:
        lines = [line.strip() for line in tags[-1].splitlines() if line.strip()]
        text, how = (lines[0] if lines else ""), "tag"
    else:
        text, how = response, "whole text"
        for pattern in _FALLBACKS:
            if matches := pattern.findall(response):
                text, how = matches[-1], "phrase"
                break
    return _TAGS.sub("", text).strip(), how


def medvlm_r1_accuracy(response: str, label: str) -> float:
    """1.0, 0.5 or 0.0: exactly one A-J character inside the first answer tag, right; 0.5 with other text about it."""
    found = _ANSWER_ANY_CASE.search(response)
    content = found.group(1).strip() if found else ""
    letters = re.findall("[A-J]", content.upper())
    if len(letters) != 1 or letters[0] != label.strip().upper():
        return 0.0
    return 1.0 if len(content) == 1 else 0.5


def medvlm_r1_format(response: str) -> float:
    """1.0 when the whole response is a think block and an answer block, else 0.0."""
    return float(bool(_FORM.fullmatch(response)))


def medvlm_r1_reward(response: str, label: str) -> float:
    """Accuracy plus format, 0 to 2 (MedVLM-R1, open_r1/grpo.py)."""
    return medvlm_r1_accuracy(response, label) + medvlm_r1_format(response)


def medvlm_r1_letter(response: str) -> str | None:
    """The evaluation's letter: one capital in an answer tag, no fallback (MedVLM-R1, test_qwen2vl_med.py)."""
    found = _SINGLE_LETTER.search(response)
    return found.group(1) if found else None


def well_formed(response: str, style: str = "medvlthinker") -> bool:
    """Whether the whole response has the form its prompt style asks for."""
    form = _NO_THINK_FORM if style == "no-think" else _FORM
    return bool(form.fullmatch(response))


def truncated(response: str, finish_reason: str | None = None) -> bool:
    """A think or answer block that was opened and never closed, or generation that ran into its limit."""
    unclosed = any(response.rfind(f"<{t}>") > response.rfind(f"</{t}>") for t in ("think", "answer"))
    return unclosed or finish_reason == "length"


def grade(
    response: str, question: Question, grader: str = "published", style: str = "medvlthinker", finish_reason: str | None = None
) -> Verdict:
    """Grade one response by one paper's rules. Raises UserError for an unknown grader.

    `published`: `correct` is the re-grade, `reward` the training reward, `online` the grade that filtering counts.
    `published-medvlm-r1`: `correct` is its evaluation rule, `reward` runs from 0 to 2.
    """
    label, answer = question.answer_label, question.answer
    shape = {"well_formed": well_formed(response, style), "truncated": truncated(response, finish_reason)}
    if grader == "published":
        text, how = regrade_answer(response)
        letter = next((k for k, option in question.options.items() if same_answer(text, k, option)), None)
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
        return Verdict(letter, letter == label, "tag" if letter else "no answer", reward=medvlm_r1_reward(response, label), **shape)
    raise UserError(f"unknown grader '{grader}'; choose one of {', '.join(GRADERS)}.")
