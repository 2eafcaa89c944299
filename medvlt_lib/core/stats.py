"""Intervals for accuracies and paired differences. Thin over numpy and scipy; no torch."""

from __future__ import annotations

import math

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


def macro_interval(
    values, strata, clusters, rounds: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the macro mean; whole clusters (all questions on one image) are resampled.

    values, strata, clusters: one entry a question. Clusters are drawn among those that touch the same strata, so that
    every stratum keeps its size; an image with questions in two strata moves both. For a paired comparison give
    differences as values. Source: Field CA, Welsh AH. J R Stat Soc B 2007;69:369-390 (cluster bootstrap).
    """
    values = np.asarray(values, dtype=float)
    _, stratum = np.unique(np.asarray(strata), return_inverse=True)
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    shape = (cluster.max() + 1, stratum.max() + 1)
    sums, sizes = np.zeros(shape), np.zeros(shape)  # (clusters, strata)
    np.add.at(sums, (cluster, stratum), values)
    np.add.at(sizes, (cluster, stratum), 1)
    rng = np.random.default_rng(seed)
    drawn_sums, drawn_sizes = np.zeros((rounds, shape[1])), np.zeros((rounds, shape[1]))
    for kind in np.unique(sizes > 0, axis=0):
        own = np.flatnonzero(((sizes > 0) == kind).all(1))
        times = rng.multinomial(
            len(own), np.full(len(own), 1 / len(own)), size=rounds
        )  # how often each cluster is drawn
        drawn_sums += times @ sums[own]
        drawn_sizes += times @ sizes[own]
    low, high = np.percentile((drawn_sums / drawn_sizes).mean(1), [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def pass_at_k(right: int, samples: int, k: int) -> float:
    """Unbiased estimate that one of k answers is right, from `right` of `samples` (Chen et al. 2021, arXiv 2107.03374, eq. 1)."""
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)
