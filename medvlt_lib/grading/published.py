"""From text to verdict: the published reward and grading rules of both papers, rule for rule.

MedVLThinker (arXiv 2508.02669) has three different functions, kept apart here as they are in its release: the
training reward (train/my_reward.py), the grade counted during inference and filtering (eval/run_offline_inference.py)
and the re-grade behind the reported numbers (analysis/regrade_eval_results.py).
MedVLM-R1 (arXiv 2502.19634) has an accuracy and a format reward (open_r1/grpo.py) and an evaluation rule
(eval/test_qwen2vl_med.py). All are strict: "B." is wrong wherever the release says so.
The third grader, `tolerant`, is this project's own (medvlt_lib/grading/tolerant.py) and stands beside
them, never instead.
"""

from __future__ import annotations

import re

_THINK_TO_ANSWER = re.compile(r"</think>\s*<answer>")
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_FALLBACKS = [
    re.compile(p, re.IGNORECASE) for p in (r"answer:\s*(.*)", r"answer is:\s*(.*)", r"answer is\s*(.*)", r"is:\s*(.*)")
]
_TAGS = re.compile(r"</?(?:think|answer)>")
_SINGLE_LETTER = re.compile(r"<answer>\s*([A-Z])\s*</answer>")


def in_form(response: str) -> bool:
    """What `fullmatch(<think>.*?</think>\\s*<answer>.*?</answer>)` over lines says, in time linear in the length."""
    if not (response.startswith("<think>") and response.endswith("</answer>")):
        return False
    turn = _THINK_TO_ANSWER.search(response, len("<think>"))
    return turn is not None and turn.end() <= len(response) - len("</answer>")


def _first_block(response: str, one_line: bool = False) -> str | None:
    """The first `<answer>(.*?)</answer>`, over lines or within one, in time linear in the length; None without one."""
    start = response.find("<answer>")
    close = -1
    while start >= 0:
        begin = start + len("<answer>")
        close = close if close >= begin else response.find("</answer>", begin)
        if close < 0:
            return None
        newline = response.rfind("\n", begin, close) if one_line else -1
        if newline < 0:
            return response[begin:close]
        start = response.find("<answer>", newline)
    return None


def same_answer(prediction: str, label: str, answer: str) -> bool:
    """MedVLThinker's three-way equality: the label, the text or "label. text", whatever the case."""
    prediction = prediction.strip().lower()
    return prediction in (label.strip().lower(), answer.strip().lower(), f"{label}. {answer}".strip().lower())


def medvlthinker_reward(response: str, label: str, answer: str) -> float:
    """1.0 or 0.0: the whole response in form, and its first answer, on one line, right (train/my_reward.py)."""
    if not in_form(response):
        return 0.0
    found = _first_block(response, one_line=True)
    return float(same_answer(response if found is None else found, label, answer))


def _last_block(response: str) -> str | None:
    """The last of the blocks that `findall(<answer>(.*?)</answer>)` finds over lines, in linear time; None without."""
    block, start = None, response.find("<answer>")
    while start >= 0 and (close := response.find("</answer>", start + len("<answer>"))) >= 0:
        block = response[start + len("<answer>") : close]
        start = response.find("<answer>", close)
    return block


def online_answer(response: str) -> str:
    """The first answer tag's content, or the whole text (MedVLThinker, during inference)."""
    found = _first_block(response)
    return (response if found is None else found).strip()


def regrade_answer(response: str) -> tuple[str, str]:
    """(answer, how) by MedVLThinker's re-grading: last tag's first line, else a phrase's last match, else all."""
    block = _last_block(response)
    if block is not None:
        lines = [line.strip() for line in block.splitlines() if line.strip()]
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
    content, begin = "", None
    for tag in _ANSWER_TAG.finditer(response):
        if tag.group(1) and begin is not None:
            content = response[begin : tag.start()].strip()
            break
        if not tag.group(1) and begin is None:
            begin = tag.end()
    letters = re.findall("[A-J]", content.upper())
    if len(letters) != 1 or letters[0] != label.strip().upper():
        return 0.0
    return 1.0 if len(content) == 1 else 0.5


def medvlm_r1_format(response: str) -> float:
    """1.0 when the whole response is a think block and an answer block, else 0.0."""
    return float(in_form(response))


def medvlm_r1_reward(response: str, label: str) -> float:
    """Accuracy plus format, 0 to 2 (MedVLM-R1, open_r1/grpo.py)."""
    return medvlm_r1_accuracy(response, label) + medvlm_r1_format(response)


def medvlm_r1_letter(response: str) -> str | None:
    """The evaluation's letter: one capital in an answer tag, no fallback (MedVLM-R1, test_qwen2vl_med.py)."""
    found = _SINGLE_LETTER.search(response)
    return found.group(1) if found else None
