"""What a claim measures of a cell's answers: accuracy, pass@k, and what the steps of the answers are worth; and the
perplexity on plain language.

Every figure but the last is the unweighted mean over families. No torch here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medvlt_lib.core.records import Question
from medvlt_lib.core.stats import pass_at_k
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.phantom.rationale import judge
from medvlt_lib.study.cells import cell
from medvlt_lib.study.results import answers_of


def value(
    folder: Path, result: dict[str, Any], families: Sequence[str], measure: str = "accuracy", look: str = "greedy"
) -> float | None:
    """A figure in [0, 1] of one cell; None where it was not asked that look. Of perplexity, which has no families, the
    logarithm: a difference of 0.03 is 3 % more, so that the smallest difference that matters fits it too."""
    if measure == "perplexity":
        return math.log(result["language"]["perplexity"]) if "language" in result else None
    if look not in result["right"] or (measure == "looking" and "grey" not in result["right"]):
        return None
    if measure == "accuracy":
        return _accuracy(result, look, families)
    if measure == "looking":
        return _accuracy(result, look, families) - _accuracy(result, "grey", families)
    rows = [row for row in answers_of(folder, result) if row["look"] == look and row["dataset"] in families]
    name, _, k = measure.partition("@")
    if name == "pass":
        return _by_family(_pass_at(rows, int(k)), families)
    return _by_family(_steps(rows, measure, _questions(result)), families)


def accuracies(folder: Path, results: Iterable[dict[str, Any]], families: Sequence[str]) -> list[float]:
    """The accuracy of each of some cells that was asked the test questions."""
    found = (value(folder, result, families) for result in results)
    return [share for share in found if share is not None]


@lru_cache(maxsize=8)
def _test_questions(families: str, size: int, seed: int) -> dict[str, Question]:
    return {q.id: q for q in make_questions(families, "test", size, seed)}


def _questions(result: dict[str, Any]) -> dict[str, Question]:
    """The test questions of a cell by id, made again from its settings."""
    data = cell(result["label"], result["seed"], result["profile"]).resolved().data
    return _test_questions(data.test.partition(":")[2], data.test_size, data.seed)


def _steps(rows: list[dict], measure: str, questions: dict[str, Question]) -> dict[str, list[float]]:
    """By family, one figure an answer. works: a working is stated. grounded: the answer is right, by true steps that
    lead there."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        q = questions[row["id"]]
        said = judge(row["text"].partition("<answer>")[0], q.family, q.extra["facts"], q.options)
        led = row["correct"] and said.grounded and said.letter == q.answer_label
        values[row["dataset"]].append(float({"works": said.works, "grounded": led}[measure]))
    return values


def _accuracy(result: dict[str, Any], look: str, families: Sequence[str]) -> float:
    counts = [result["right"][look][family] for family in families]
    return float(np.mean([right / asked for right, asked in counts]))


def _pass_at(rows: list[dict], k: int) -> dict[str, list[float]]:
    """By family: pass@k of every question."""
    own: dict[str, list[bool]] = defaultdict(list)
    family = {}
    for row in rows:
        own[row["id"]].append(row["correct"])
        family[row["id"]] = row["dataset"]
    values: dict[str, list[float]] = defaultdict(list)
    for question, right in own.items():
        values[family[question]].append(pass_at_k(sum(right), len(right), k))
    return values


def _by_family(values: dict[str, list[float]], families: Sequence[str]) -> float:
    return float(np.mean([np.mean(values[family]) for family in families]))
