"""Several answers to one question: votes, calibration, where the luck of a score comes from, and the order of options.

Answers stand as a table, (items, samples): `codes` holds a number for each letter, NO_LETTER where an answer names
none, and UNASKED where an item has fewer answers than others. pass@k stands in medvlt_lib.core.stats. No torch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medvlt_lib.core.stats import clustered_error, macro_interval, wilson_of_set

NO_LETTER, UNASKED = -1, -2
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # bounds of the groups of `calibration`
ROUNDS = 9999


def vote(codes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(the place of the answer that each item's vote names, -1 where none has a letter; the share of its answers that
    agree). Both (items,). Of equal numbers of votes the answer that was given first counts; an answer without a letter
    votes for nothing, and counts in the share."""
    codes = np.asarray(codes)
    votes = np.stack([(codes == column[:, None]).sum(1) for column in codes.T], axis=1)  # (items, samples)
    votes[codes < 0] = 0
    most = votes.max(1)
    return np.where(most > 0, votes.argmax(1), -1), most / (codes != UNASKED).sum(1)


def majority_at_k(codes: ArrayLike, right: ArrayLike, k: int) -> np.ndarray:
    """The share of votes among k answers that are right, (items,): a vote in each whole block of k, as they came.

    codes, right: (items, samples), every item with at least k answers. Of equal numbers the first given counts.
    """
    codes, right = np.asarray(codes), np.asarray(right, dtype=bool)
    least = int((codes != UNASKED).sum(1).min())
    hits = []
    for start in range(0, least - k + 1, k):
        place, _ = vote(codes[:, start : start + k])
        hits.append((place >= 0) & right[np.arange(len(codes)), start + place])
    return np.mean(hits, axis=0)


def calibration(share: ArrayLike, right: ArrayLike, clusters: ArrayLike) -> list[dict[str, Any]]:
    """How often votes are right, by how many of the answers agree with them: a row for each group of SHARES.

    share, right, clusters: one entry an item, as `vote` gives them. Each row: above and up_to (bounds of the share),
    items, the mean share, the votes' accuracy, and its 95 % interval. A calibrated vote is right as often as its share.
    """
    share, right, clusters = np.asarray(share, float), np.asarray(right, float), np.asarray(clusters)
    rows = []
    for above, up_to in pairwise(SHARES):
        own = (share <= up_to) & ((share > above) if above else (share >= 0))
        if own.any():
            interval = wilson_of_set(right[own].tolist(), clusters[own].tolist()) or macro_interval(
                right[own], np.zeros(own.sum()), clusters[own]
            )
            rows.append({
                "above": above, "up_to": up_to, "items": int(own.sum()), "share": float(share[own].mean()),
                "accuracy": float(right[own].mean()), "low": interval.low, "high": interval.high,
                "kind": interval.kind,
            })  # fmt: skip
    return rows


class Luck(NamedTuple):
    """Standard errors of a macro mean by what would be drawn anew; None where it cannot be told from the others."""

    items: float  # other questions of the same kind
    sampling: float | None  # the same questions answered once more by the same model, one answer each
    training: float | None  # the same questions, a model trained with another seed


def sources_of_luck(right: ArrayLike, strata: ArrayLike, clusters: ArrayLike) -> Luck:
    """How far a macro mean would move with other items, with other samples, and with another training seed, each alone.

    right: (training seeds, items, samples), 1 or 0; strata, clusters: (items,). The sampling variance is that within an
    item. What two models, or two samples, have in common on the same items is the items' share: of the clustered
    variances V of the mean of n and of each alone, (n V_mean - V_alone) / (n - 1). What the seeds' macro means differ
    in beyond sampling is training, on these very items. A variance estimated below 0 counts as 0. With one answer an
    item sampling is part of the other two (None).
    Source: Searle SR, Casella G, McCulloch CE. Variance Components. Wiley 1992, chapters 3 and 4 (moments).
    """
    right = np.asarray(right, dtype=float)
    seeds, _, samples = right.shape
    _, stratum, sizes = np.unique(np.asarray(strata), return_inverse=True, return_counts=True)
    weights = 1 / sizes[stratum] / len(sizes)  # of each item in the macro mean
    sampling = float((weights**2 * right.var(axis=2, ddof=1).mean(0)).sum()) if samples > 1 else None
    copies = right.mean(2) if seeds > 1 else right[0].T  # (models or samples, items)
    items = _variance(copies.mean(0), strata, clusters)
    if len(copies) > 1:
        alone = np.mean([_variance(copy, strata, clusters) for copy in copies])
        items = (len(copies) * items - alone) / (len(copies) - 1)
    training = None
    if seeds > 1:
        training = float(np.var(right.mean(2) @ weights, ddof=1)) - (sampling or 0.0) / samples
    return Luck(*(None if part is None else float(np.sqrt(max(part, 0.0))) for part in (items, sampling, training)))  # type: ignore[arg-type]


def _variance(values: np.ndarray, strata: ArrayLike, clusters: ArrayLike) -> float:
    return clustered_error(values, strata, clusters)[0] ** 2


def order_p(scores: ArrayLike, rounds: int = ROUNDS, seed: int = 0) -> float:
    """The one-sided p-value of a model that does as well with the published order of options as with any other.

    scores: (items, orders), the published order first, the others drawn at random; right or wrong, or log-probabilities
    of the right answer. A model that never saw the benchmark takes each item's orders as exchangeable, so which one is
    the published is drawn again for each item. A small p says that the published order is better than chance explains:
    the benchmark was seen, or the model prefers certain letters and the published key has more of them; keep the
    right answer's letter in the drawn orders to rule the second out. 1 where no item's orders differ.
    Source: Oren Y et al. 2023, arXiv 2310.17623 (exchangeability of a benchmark's order), here for options.
    """
    scores = np.asarray(scores, dtype=float)
    live = scores[scores.max(1) > scores.min(1)]  # the other items are the same whichever order is drawn
    if not len(live):
        return 1.0
    rng, rows = np.random.default_rng(seed), np.arange(len(live))
    seen = live[:, 0].sum() - 1e-9
    reached = sum(live[rows, rng.integers(live.shape[1], size=len(live))].sum() >= seen for _ in range(rounds))
    return float((1 + reached) / (1 + rounds))
