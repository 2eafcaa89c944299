"""Checks of the exercises in notebook 06."""

from __future__ import annotations

import math
import statistics
from typing import Any

from medvlt_lib.course.simulated import STEPS, WORKING
from medvlt_lib.course.telling import tell, tell_names


def verdict(function: Any) -> None:
    """verdict(mean, low, high, p, matters): what the rule of the studies says of a claim that one side is more."""
    holds, does_not, open_ = "holds here", "does not hold here", "cannot tell"
    cases = [
        ((0.10, 0.05, 0.15, 0.01, 0.03), holds, "Above 0, and p below 0.05: the first clause of the rule."),
        ((0.10, -0.05, 0.25, 0.20, 0.03), open_, "Neither clause is met: the interval holds much and nothing."),
        ((0.02, -0.04, 0.08, 0.50, 0.03), open_, "The mean is small, but the interval reaches beyond what matters."),
        ((0.01, -0.01, 0.02, 0.30, 0.03), does_not, "The whole interval is below what matters: the second clause."),
        ((-0.10, -0.18, -0.02, 0.01, 0.03), does_not, "A small p says that there is a difference. In which direction?"),
        ((0.05, 0.01, 0.09, 0.08, 0.03), open_, "The interval leaves out 0, but the rule asks for p after Holm."),
        ((0.02, 0.015, 0.025, 0.001, 0.03), holds, "Small but sure: which clause of the rule stands first?"),
        ((0.02, -0.01, 0.05, 0.20, 0.06), does_not, "The smallest difference that matters is an argument."),
        ((0.04, -0.01, 0.09, 0.05, 0.03), open_, "0.05 is not below 0.05."),
    ]
    tell(function, cases, "The rule was there before the runs, so nobody can choose the verdict afterwards.")


def holm(function: Any) -> None:
    """holm(p_values): for each claim, in the order given, whether it holds at 5 % by Holm's procedure."""
    cases = [
        (([0.01, 0.2, 0.03, 0.005],), [True, False, False, True],
         "Sort: the smallest p must be below 0.05 / 4, the next below 0.05 / 3. Answer in the order given."),
        (([0.001, 0.03, 0.04],), [True, False, False],
         "After the first that fails, all larger ones fail, whatever their own limit."),
        (([0.02, 0.015, 0.01],), [True, True, True], "The limit grows from step to step; it is not always 0.05 / m."),
        (([0.04, 0.04],), [False, False], "Two equal values: the first must be below 0.05 / 2."),
        (([0.04],), [True], "A single comparison needs no correction."),
        (([0.3, 0.02, 0.9, 0.01],), [False, False, False, True], "The second smallest is held against 0.05 / 3."),
        (([],), [], "Without claims there is nothing to decide, and nothing goes wrong."),
    ]  # fmt: skip
    tell(function, cases, "Any false claim among them all comes with a chance of at most 5 %.")


def seed_interval(function: Any) -> None:
    """seed_interval(differences): (low, high), the 95 % t-interval of the mean of one difference a seed."""
    quantiles = {2: 12.7062, 3: 4.30265, 5: 2.77645, 10: 2.26216}  # of n - 1 degrees of freedom

    def case(differences: list[float], look: str) -> tuple:
        n, mean = len(differences), statistics.fmean(differences)
        half = quantiles[n] * statistics.stdev(differences) / math.sqrt(n)
        return (differences,), [mean - half, mean + half], look

    cases = [
        case([0.10, 0.16, 0.13], "Three seeds: the quantile is about 4.3; the deviation has n - 1, its error a root."),
        case([0.10, 0.16, 0.13, 0.11, 0.15], "Five seeds have a smaller quantile; it depends on their number."),
        case([-0.20, -0.10, -0.15], "A loss has an interval, too; the lower end comes first."),
        case([0.05, 0.15], "Two seeds: one degree of freedom, and an interval that says so."),
        case([0.01 * i for i in range(10)], "Ten seeds have nine degrees of freedom."),
    ]
    tell(function, cases, "Few seeds cost twice: the root of n, and the quantile.", within=1e-4)


def working(answer: Any) -> None:
    """working(answer): {model: cause} for the five models of WORKING in `simulated.py`."""
    tell_names(answer, WORKING, STEPS, "Four equal accuracies, five causes: the steps tell them apart.")
