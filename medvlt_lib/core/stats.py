"""Intervals and tests for accuracies and paired differences. Thin over numpy and scipy; no torch.

A cluster is what shares its luck: all questions on one picture, or all sampled answers to one question. A stratum is
a data set or family; the macro mean gives every stratum the same weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

FEW = 5  # fewer clusters than this are not drawn from on their own; see macro_interval
WILSON = "Wilson"
BOOTSTRAP = "cluster bootstrap"
CLUSTER_WILSON = "cluster Wilson"
MIXED = "cluster bootstrap and cluster Wilson"


class Interval(NamedTuple):
    """An interval, and in words which kind it is."""

    low: float
    high: float
    kind: str


def accuracy_interval(right: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval for `right` of `total` (Wilson EB. J Am Stat Assoc 1927;22:209-212)."""
    from scipy.stats import binomtest

    low, high = binomtest(int(right), int(total)).proportion_ci(level, method="wilson")
    return float(low), float(high)


def wilson_of_set(right: Sequence[float], clusters: Sequence[str]) -> Interval | None:
    """Wilson's interval for the answers to one data set; None where some share a cluster, so that it does not hold."""
    if len(set(clusters)) < len(right):
        return None
    return Interval(*accuracy_interval(int(sum(right)), len(right)), WILSON)


def macro(values: ArrayLike, strata: ArrayLike) -> float:
    """Mean over strata (families, data sets) of the mean value in each: the papers' unweighted average."""
    values, strata = np.asarray(values, dtype=float), np.asarray(strata)
    return float(np.mean([values[strata == s].mean() for s in np.unique(strata)]))


def macro_interval(
    values: ArrayLike,
    strata: ArrayLike,
    clusters: ArrayLike,
    bounds: tuple[float, float] = (0, 1),
    rounds: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the macro mean: an expanded percentile bootstrap that draws whole clusters again.

    values, strata, clusters: one entry an answer. For a paired comparison give differences as values, and the
    `bounds` that one value can reach, (-1, 1). Clusters are drawn among those that touch the same strata, so that every
    stratum keeps its size, and a picture with questions in two strata moves both. Among fewer than FEW clusters hardly
    anything can be drawn (among n, only (n - 1) / n of their variance is seen), so small groups are drawn from
    together; a stratum that a round then leaves out keeps its observed mean in that round.
    Percentiles are too narrow where clusters are few, so both ends move out by the ratio of what a t-test with
    `clustered_error` would reach to what the drawn spread does.
    Sources: Field CA, Welsh AH. J R Stat Soc B 2007;69:369-390 (cluster bootstrap); Hesterberg TC. Am Stat
    2015;69:371-386 (expanded percentiles).

    Where all clusters of a stratum agree, drawing shows no spread at all. Wilson's interval takes its place there: with
    n clusters that agree, up to the share u of all others may not, where (0, u) is Wilson's interval for 0 of n, and
    those may lie anywhere within the bounds. For accuracies this is Wilson's interval for n of n, or 0 of n.
    """
    sums, sizes = _by_cluster(values, strata, clusters)
    means, outer = sums.sum(0) / sizes.sum(0), [50 * (1 - level), 50 * (1 + level)]
    each = sums / np.where(sizes > 0, sizes, np.nan)  # the mean of each cluster in each stratum, where it touches it
    alike = np.nanmin(each, axis=0) == np.nanmax(each, axis=0)
    drawn, center = _drawn_macros(sums, sizes, rounds, seed), means.mean()
    wider = 1.0 if alike.all() else _expansion(drawn, *_clustered_error(sums, sizes, ~alike), level)
    low, high = np.clip(center + wider * (np.percentile(drawn, outer) - center), *bounds)
    if not alike.any():
        return Interval(float(low), float(high), BOOTSTRAP)
    touched = sizes[:, alike] > 0
    other = np.array([accuracy_interval(0, n, level)[1] for n in touched.sum(0)])
    below = _joined(center - low, other * (means[alike] - bounds[0]) / len(means), touched)
    above = _joined(high - center, other * (bounds[1] - means[alike]) / len(means), touched)
    return Interval(float(center - below), float(center + above), CLUSTER_WILSON if alike.all() else MIXED)


def clustered_error(values: ArrayLike, strata: ArrayLike, clusters: ArrayLike) -> tuple[float, float]:
    """(standard error of the macro mean, its degrees of freedom).

    values, strata, clusters: one entry an answer, as in `macro_interval`. What a cluster's answers are off the mean of
    their stratum is widened for how much that cluster moved this mean itself (CR2), so that few clusters of unlike size
    do not look too certain. Degrees of freedom are Satterthwaite's, for clusters whose answers go alike.
    Source: Bell RM, McCaffrey DF. Survey Methodology 2002;28:169-181.
    """
    sums, sizes = _by_cluster(values, strata, clusters)
    return _clustered_error(sums, sizes, np.ones(sizes.shape[1], dtype=bool))


def _clustered_error(sums: np.ndarray, sizes: np.ndarray, moving: np.ndarray) -> tuple[float, float]:
    """`clustered_error` where only the strata that are `moving` have any spread."""
    number, sums, sizes = sizes.shape[1], sums[:, moving], sizes[:, moving]
    total = sizes.sum(0)
    off = (sums - sizes * (sums.sum(0) / total)) / np.sqrt(np.maximum(1 - sizes / total, 1e-12))
    influence = (off / total / number).sum(1)
    weight = ((sizes / total / number) ** 2).sum(1)
    freedom = max(1.0, weight.sum() ** 2 / (weight**2).sum() - len(total))
    return float(np.sqrt((influence**2).sum())), float(freedom)


def paired_p(differences: ArrayLike, strata: ArrayLike, clusters: ArrayLike) -> float:
    """The two-sided p-value of a macro difference of 0: a t-test with `clustered_error`. 1 where nothing differs."""
    return two_sided_p(macro(differences, strata), *clustered_error(differences, strata, clusters))


def two_sided_p(difference: float, error: float, freedom: float) -> float:
    """The t-test's p-value of a true difference of 0, for one that was seen with this error; 1 without an error."""
    from scipy.stats import t

    return float(2 * t.sf(abs(difference) / error, freedom)) if error else 1.0


def mcnemar(before: ArrayLike, after: ArrayLike) -> tuple[int, int, float]:
    """(only `after` right, only `before` right, exact two-sided p) of answers to the same questions, each by itself.

    Source: McNemar Q. Psychometrika 1947;12:153-157, with the exact binomial p-value. 1 where none differ.
    """
    from scipy.stats import binomtest

    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return gained, lost, float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p_values: ArrayLike) -> list[float]:
    """p-values of one family of claims, adjusted so that any false one is found in at most the level's share.

    Source: Holm S. Scand J Stat 1979;6:65-70.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()


def detectable(error: float, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest true difference that a two-sided test at `level` finds with probability `power`, for a difference
    with this standard error (Bloom HS. Eval Rev 1995;19:547-556)."""
    from scipy.stats import norm

    return float((norm.isf(level / 2) + norm.isf(1 - power)) * error)


def _by_cluster(values: ArrayLike, strata: ArrayLike, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each cluster in each stratum, both (clusters, strata)."""
    _, stratum = np.unique(np.asarray(strata), return_inverse=True)
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    shape = (cluster.max() + 1, stratum.max() + 1)
    sums, sizes = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (cluster, stratum), np.asarray(values, dtype=float))
    np.add.at(sizes, (cluster, stratum), 1)
    return sums, sizes


def _drawn_macros(sums: np.ndarray, sizes: np.ndarray, rounds: int, seed: int) -> np.ndarray:
    """The macro mean of each round of drawing clusters with replacement. (rounds,)"""
    _, pattern, members = np.unique(sizes > 0, axis=0, return_inverse=True, return_counts=True)
    pattern = pattern.reshape(-1)  # numpy 2.0 returns it with one axis more
    group = np.where(members[pattern] < FEW, len(members), pattern)  # small patterns become one group, the last
    rng = np.random.default_rng(seed)
    drawn_sums, drawn_sizes = np.zeros((2, rounds, sums.shape[1]))
    for name in np.unique(group):
        own = np.flatnonzero(group == name)
        times = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=rounds)  # how often each is drawn
        drawn_sums += times @ sums[own]
        drawn_sizes += times @ sizes[own]
    means = np.tile(sums.sum(0) / sizes.sum(0), (rounds, 1))
    np.divide(drawn_sums, drawn_sizes, out=means, where=drawn_sizes > 0)
    return means.mean(1)


def _expansion(drawn: np.ndarray, error: float, freedom: float, level: float) -> float:
    """How much further from the mean the ends of a percentile interval belong; never nearer."""
    from scipy.stats import norm, t

    spread, tail = drawn.std(), (1 - level) / 2
    return float(max(1.0, error * t.isf(tail, freedom) / (spread * norm.isf(tail)))) if spread else 1.0


def _joined(drawn: float, replaced: np.ndarray, touched: np.ndarray) -> float:
    """One side of the interval: what the bootstrap reaches, joined with what each stratum that agrees can reach.

    Independent parts add as squares (MOVER: Zou GY, Donner A. Stat Med 2008;27:1693-1702). Strata with a cluster in
    common are not independent and add up as they are. touched: (clusters, strata), which clusters have such a stratum.
    """
    from scipy.sparse.csgraph import connected_components

    _, part = connected_components(touched.T.astype(int) @ touched)
    return math.hypot(drawn, *np.bincount(part, replaced))


def chance_at_k(options: ArrayLike, k: int) -> np.ndarray:
    """What guessing alone gives for pass@k: 1 - (1 - 1/n)^k for each question with n `options`."""
    return 1 - (1 - 1 / np.asarray(options, dtype=float)) ** k


def pass_at_k(right: int, samples: int, k: int) -> float:
    """Unbiased estimate that one of k answers is right, from `right` of `samples`.

    Source: Chen et al. 2021, arXiv 2107.03374, equation 1.
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)
