"""Checks of the exercises in notebook 02."""

from __future__ import annotations

import math
from typing import Any

from medvlt_lib.course.telling import tell


def keep(function: Any) -> None:
    """keep(counts, low, high): the names whose pass count lies in the band, easy first; from {name: count}."""
    cases = [
        (({"a": 3, "b": 16}, 1, 7), ["a"], "Only what lies inside the band is kept."),
        (({"a": 7, "b": 8}, 1, 7), ["a"], "The upper end belongs to the band."),
        (({"a": 1, "b": 0}, 1, 7), ["a"], "The lower end belongs to the band."),
        (({"a": 3, "b": 6, "c": 5}, 1, 7), ["b", "c", "a"], "Easy questions come first. Which count is an easy one's?"),
        (({"z": 4, "a": 4, "m": 4}, 1, 7), ["z", "a", "m"], "Questions with equal counts stay in their order."),
        (({"a": 0, "b": 16}, 0, 16), ["b", "a"], "A count of 0 is a count like any other."),
        (({}, 1, 7), [], "Without questions nothing is kept, and nothing goes wrong."),
    ]
    tell(function, cases, "The band with both its ends, easy before hard.")


def pass_at_k(function: Any) -> None:
    """pass_at_k(right, answers, k): the chance that k answers drawn from `answers` hold at least one right one."""

    def case(right: int, answers: int, k: int, look: str) -> tuple:
        return (right, answers, k), 1 - math.comb(answers - right, k) / math.comb(answers, k), look

    cases = [
        case(4, 16, 1, "One draw: this is the share of right answers."),
        case(1, 16, 4, "The answers are drawn without putting any back."),
        case(2, 4, 2, "Count the draws that hold wrong answers alone, among all draws."),
        case(0, 16, 4, "Where nothing is right, no draw holds a right answer."),
        case(13, 16, 4, "With fewer than k wrong answers every draw holds a right one."),
        case(16, 16, 1, "Where all are right, every draw is."),
        case(2, 400, 100, "Large numbers: factorials outgrow a float, whole numbers do not."),
    ]
    tell(function, cases, "This is pass@k, at the ends and for large numbers, too.")


def smallest_group(function: Any) -> None:
    """smallest_group(p, share): the smallest G from 2 to 256 with at most that share of silent groups, or None."""
    cases = [
        ((0.5, 0.05), 6, "The share of groups without signal for G = 2, 3, 4 and so on: where does it get so small?"),
        ((0.05, 0.5), 14, "Groups that are all wrong are silent, too."),
        ((0.95, 0.5), 14, "Groups that are all right are silent, too."),
        ((0.5, 0.5), 2, "A share that is just reached is enough."),
        ((0.3, 1.0), 2, "A group of one has nothing to compare with: begin at 2."),
        ((0.0, 0.5), None, "A question that is never right is silent in every group, so None."),
        ((1.0, 0.5), None, "A question that is always right is silent in every group, so None."),
        ((0.001, 0.5), None, "No group may be larger than 256."),
    ]
    tell(function, cases, "The harder, or the easier, the question, the larger the group it needs.")
