"""Intervals for accuracies. Thin over scipy; no torch."""

from __future__ import annotations


def accuracy_interval(right: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval for `right` of `total` (Wilson EB. J Am Stat Assoc 1927;22:209-212)."""
    from scipy.stats import binomtest

    low, high = binomtest(right, total).proportion_ci(level, method="wilson")
    return float(low), float(high)
