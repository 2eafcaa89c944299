"""How often intervals hold the truth: 93 to 97 of 100, on pictures with several questions, in data sets of unequal
size, small ones too. Intervals that take every question by itself do not."""

import numpy as np
import pytest
from scipy.stats import binom, t

from medvlt_lib.core.stats import accuracy_interval, clustered_error, macro, macro_interval

ROUNDS = 1000
SIZES = {  # data sets: (pictures, share that is right), up to six questions a picture
    "five sets": [(60, 0.6), (30, 0.5), (15, 0.7), (10, 0.8), (8, 0.4)],
    "three small sets": [(12, 0.6), (8, 0.5), (6, 0.7)],
    "one small set": [(10, 0.6)],
}


def questions(rng, pictures: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(data set, picture) of every question."""
    stratum = np.repeat(np.arange(len(pictures)), pictures)
    numbers = rng.integers(1, 7, len(stratum))
    return np.repeat(stratum, numbers), np.repeat(np.arange(len(stratum)), numbers)


def one_model(rng, sets: list[tuple[int, float]]):
    """Right or wrong: questions on one picture share its luck. And the true macro mean."""
    strata, clusters = questions(rng, [pictures for pictures, _ in sets])
    truth = np.array([share for _, share in sets])
    luck = rng.beta(*(2 * np.array([truth, 1 - truth])[:, strata[np.unique(clusters, return_index=True)[1]]]))
    return (rng.random(len(strata)) < luck[clusters]).astype(float), strata, clusters, truth.mean()


def two_models(rng, sets: list[tuple[int, float]]):
    """Differences of two models, of which the second is ten points better; on a picture one of them is much better."""
    strata, clusters = questions(rng, [pictures for pictures, _ in sets])
    shift = rng.choice([-0.3, 0.3], clusters.max() + 1)[clusters]
    draw = rng.random((2, len(strata)))
    return (draw[1] < 0.6 - shift).astype(float) - (draw[0] < 0.5 + shift), strata, clusters, 0.1


def covered(make, sets, interval) -> float:
    rng, hits = np.random.default_rng(7), 0
    for seed in range(ROUNDS):
        values, strata, clusters, truth = make(rng, sets)
        low, high = interval(values, strata, clusters, seed)
        hits += low <= truth <= high
    return hits / ROUNDS


@pytest.mark.parametrize("sets", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("make", "bounds"), [(one_model, (0, 1)), (two_models, (-1, 1))], ids=["accuracy", "paired"])
def test_drawn_intervals_hold_the_truth_as_often_as_they_say(make, bounds, sets):
    def drawn(values, strata, clusters, seed):
        return macro_interval(values, strata, clusters, bounds, rounds=200, seed=seed)[:2]

    assert 0.93 <= covered(make, sets, drawn) <= 0.97


@pytest.mark.parametrize("make", [one_model, two_models], ids=["accuracy", "paired"])
def test_intervals_by_the_clustered_error_do_too_and_naive_ones_do_not(make):
    """The first is what `medvlt compare` shows for large files; its sets here are small."""

    def by_error(values, strata, clusters, seed):
        error, freedom = clustered_error(values, strata, clusters)
        reach = error * t.isf(0.025, freedom)
        return macro(values, strata) - reach, macro(values, strata) + reach

    def naive(values, strata, clusters, seed):
        return by_error(values, strata, np.arange(len(values)), seed)

    for sets in SIZES.values():
        assert 0.93 <= covered(make, sets, by_error) <= 0.97
        assert covered(make, sets, naive) < 0.85


def test_wilson_of_the_published_sets_exactly():
    """Every possible number of right answers, weighed by its probability: no simulation."""
    for total in (170, 272):
        for share in (0.2, 0.45, 0.62):
            right = np.arange(total + 1)
            inside = [low <= share <= high for low, high in (accuracy_interval(int(r), total) for r in right)]
            assert 0.93 <= binom.pmf(right, total, share)[inside].sum() <= 0.97
