"""Checks of the exercises in notebook 05."""

from __future__ import annotations

import math
import statistics
from typing import Any

from medvlt_lib.course.simulated import CONTROLLED, LOOKS
from medvlt_lib.course.telling import tell, tell_names


def paired_interval(function: Any) -> None:
    """paired_interval(before, after): (low, high), 1.96 standard errors around the mean difference; 0 or 1 each."""

    def case(before: list[int], after: list[int], look: str) -> tuple:
        gaps = [b - a for a, b in zip(before, after, strict=True)]
        middle, half = statistics.fmean(gaps), 1.96 * statistics.stdev(gaps) / math.sqrt(len(gaps))

        def off(got: Any) -> str:
            got = got.tolist() if hasattr(got, "tolist") else got
            pair = isinstance(got, list | tuple) and len(got) == 2
            if not pair or not all(isinstance(end, int | float) for end in got):
                return "Two numbers are asked for, the lower and the upper end."
            if got[0] > got[1]:
                return "The lower end comes first."
            if not math.isclose(sum(got) / 2, middle, abs_tol=1e-6):
                return "The middle of the interval is the mean difference, after minus before, as a share."
            return look

        return (before, after), (middle - half, middle + half), off

    width = "The width: take each question's difference first. How much do these spread (n - 1), and what divides it?"
    cases = [
        case([1, 0, 0, 1, 0, 1, 0, 0], [1, 1, 0, 1, 1, 0, 0, 1], width),
        case([1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], "Models that agree on most questions have a narrow interval."),
        case([1, 0, 1, 0], [1, 0, 1, 0], "Where nothing changes, the interval is the point 0."),
        case([1, 1, 1, 0, 1], [0, 0, 1, 0, 0], "A loss has an interval, too: both ends may be negative."),
        case([0] * 50 + [1] * 50, [0] * 40 + [1] * 60, "More questions make it narrower."),
    ]
    tell(function, cases, "The interval of a paired difference, from the questions' own differences.")


def mcnemar_p(function: Any) -> None:
    """mcnemar_p(before, after): the exact two-sided p of the questions on which two models disagree; 1 without any."""

    def case(gained: int, lost: int, both: int, look: str) -> tuple:
        n, fewer = gained + lost, min(gained, lost)
        tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
        before, after = [1] * both + [0] * gained + [1] * lost, [1] * both + [1] * gained + [0] * lost
        return (before, after), min(1.0, 2 * tail), look

    cases = [
        case(7, 1, 0, "How probable are so few losses, or fewer, among the questions that changed? Both sides count."),
        case(7, 1, 20, "Questions on which both are right, or both wrong, say nothing of the difference."),
        case(1, 7, 3, "A loss is as surprising as an equal gain."),
        case(5, 0, 2, "None lost is an outcome like any other."),
        case(3, 3, 4, "A probability is never above 1."),
        case(0, 0, 5, "Where no question changes, nothing speaks against equality: 1."),
        case(620, 500, 0, "Large numbers: 0.5 to the power of n becomes 0, whole numbers do not."),
    ]
    tell(function, cases, "McNemar's exact p: a coin that is thrown once for each question that changed.")


def wilson(function: Any) -> None:
    """wilson(right, n): (low, high), all true shares p that lie within 1.96 of their own standard errors."""

    def case(right: int, n: int, look: str) -> tuple:
        z, share = 1.96, right / n
        middle, room = share + z * z / 2 / n, z * math.sqrt(share * (1 - share) / n + z * z / 4 / n / n)
        return (right, n), [(middle - room) / (1 + z * z / n), (middle + room) / (1 + z * z / n)], look

    cases = [
        case(7, 10, "The standard error is that of the share p that is tried, not that of what was seen."),
        case(5, 5, "Five of five: section 3 says 57 to 100 percent, as shares."),
        case(0, 5, "None of five is the mirror of five of five."),
        case(50, 100, "Half of a hundred: both ends are equally far away."),
        case(3, 2000, "With many questions the interval becomes narrow; it stays above 0."),
    ]
    tell(function, cases, "Wilson's interval never leaves 0 to 1, and five of five prove little to it.", within=1e-4)


def looks(answer: Any) -> None:
    """looks(answer): {model: cause} for the five models of CONTROLLED in `simulated.py`."""
    tell_names(answer, CONTROLLED, LOOKS, "No row alone says it: you read how the rows differ.")
