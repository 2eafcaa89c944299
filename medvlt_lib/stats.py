"""Intervals for accuracies and paired differences. Thin over numpy and scipy; no torch."""

from __future__ import annotations

import numpy as np


def accuracy_interval(right: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval for `right` of `total` (Wilson EB. J Am Stat Assoc 1927;22:209-212)."""
    from scipy.stats import binomtest

    low, high = binomtest(int(right), int(total)).proportion_ci(level, method="wilson")
    return float(low), float(high)


def macro(values, strata) -> float:
    """Mean over strata (families, data sets) of the mean value in each: the papers' unweighted average."""
    values, strata = np.asarray(values, dtype=float), np.asarray(strata)
    return float(np.mean([values[strata == s].mean() for s in np.unique(strata)]))


def macro_interval(values, strata, clusters, rounds: int = 2000, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the macro mean; whole clusters (questions on one image) are resampled in strata.

    values, strata, clusters: one entry a question. For a paired comparison give differences as values.
    Source: Field CA, Welsh AH. J R Stat Soc B 2007;69:369-390 (cluster bootstrap).
    """
    values, strata, clusters = np.asarray(values, dtype=float), np.asarray(strata), np.asarray(clusters)
    rng = np.random.default_rng(seed)
    means = []
    for stratum in np.unique(strata):
        inside = strata == stratum
        _, index = np.unique(clusters[inside], return_inverse=True)
        sums = np.bincount(index, weights=values[inside])
        sizes = np.bincount(index)
        draw = rng.integers(len(sums), size=(rounds, len(sums)))
        means.append(sums[draw].sum(1) / sizes[draw].sum(1))
    low, high = np.percentile(np.mean(means, axis=0), [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
