"""Rules that read only the options: what a question must not give away."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from medvlt_lib.core.records import LETTERS, Question


def _number(text: str) -> float | None:
    found = re.search(r"\d+(\.\d+)?", text)
    return float(found.group()) if found else None


def _by_value(question: Question) -> list[str]:
    """The letters, sorted by the number in their option, and by its text where there is none."""
    return sorted(question.options, key=lambda k: (_number(question.options[k]) or 0.0, question.options[k]))


def _fixed(letter: str) -> Callable[[Question], str]:
    return lambda question: letter if letter in question.options else "A"


# A rule takes a question and names a letter. Of several longest or shortest options the first counts.
RULES: dict[str, Callable[[Question], str]] = {
    "lowest value": lambda q: _by_value(q)[0],
    "middle value": lambda q: _by_value(q)[len(q.options) // 2],
    "highest value": lambda q: _by_value(q)[-1],
    "longest text": lambda q: max(q.options, key=lambda k: len(q.options[k])),
    "shortest text": lambda q: min(q.options, key=lambda k: len(q.options[k])),
    **{f"always {letter}": _fixed(letter) for letter in LETTERS[:5]},
}


def shortcut_scores(questions: list[Question]) -> dict[str, float]:
    """Accuracy of every rule, and of always preferring the value that was most often right in the question's family,
    which also finds wrong options that answer no question of its kind.

    That value is learned on one half of the questions and tested on the other, both ways round: on the same questions
    it would flatter itself.
    """
    scores = {name: sum(rule(q) == q.answer_label for q in questions) / len(questions) for name, rule in RULES.items()}
    half, right = len(questions) // 2, 0
    for learn, test in ((questions[:half], questions[half:]), (questions[half:], questions[:half])):
        counts = Counter((q.family, q.answer) for q in learn)
        right += sum(max(q.options, key=lambda k: counts[q.family, q.options[k]]) == q.answer_label for q in test)
    return {**scores, "most frequent value": right / len(questions)}


def best_shortcut(questions: list[Question]) -> tuple[str, float]:
    """The rule that scores highest and its accuracy."""
    return max(shortcut_scores(questions).items(), key=lambda item: item[1])
