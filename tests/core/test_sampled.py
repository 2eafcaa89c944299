"""Votes, calibration, sources of luck and the order of options: by hand, against statsmodels and by simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from medvlt_lib.core.sampled import (
    NO_LETTER,
    UNASKED,
    calibration,
    majority_at_k,
    order_p,
    sources_of_luck,
    vote,
)  # fmt: skip
from medvlt_lib.core.stats import accuracy_interval, chance_at_k, clustered_error, pass_at_k


def test_pass_at_k_beside_guessing_by_hand():
    assert chance_at_k([2, 4], 1) == pytest.approx([0.5, 0.25])
    assert chance_at_k([4], 16) == pytest.approx(1 - 0.75**16) and chance_at_k([4], 16) > 0.98  # 98.99 %
    rng = np.random.default_rng(0)
    guessed = (rng.random((4000, 8)) < 0.25).sum(1)
    assert np.mean([pass_at_k(int(n), 8, 4) for n in guessed]) == pytest.approx(chance_at_k([4], 4)[0], abs=0.02)


def test_a_vote_goes_to_the_most_and_of_equals_to_the_first():
    a, b, c = 0, 1, 2
    codes = [
        [b, a, a, NO_LETTER],  # a, by two of four
        [b, a, a, b],  # a tie: b was given first
        [NO_LETTER, c, a, b],  # all once: c was given first
        [NO_LETTER] * 4,
        [b, b, a, UNASKED],  # b, by two of three
    ]
    place, share = vote(codes)
    assert place.tolist() == [1, 0, 1, -1, 0]
    assert share == pytest.approx([0.5, 0.5, 0.25, 0, 2 / 3])


def test_a_majority_of_k_is_one_vote_in_each_block():
    codes = np.array([[0, 1, 1, 1], [1, 0, 0, 0]])
    right = codes == 1
    assert majority_at_k(codes, right, 1) == pytest.approx(right.mean(1))
    assert majority_at_k(codes, right, 2) == pytest.approx([0.5, 0.5])  # blocks (0 1) and (1 1): the first, then 1
    assert majority_at_k(codes, right, 4) == pytest.approx([1, 0])
    assert majority_at_k([[NO_LETTER, 1]], [[False, True]], 1) == pytest.approx([0.5])


def test_voting_helps_where_most_answers_are_right_and_hurts_where_they_are_not():
    rng = np.random.default_rng(1)
    for share, sign in ((0.7, 1), (0.3, -1)):
        codes = np.where(rng.random((3000, 5)) < share, 0, rng.integers(1, 2, (3000, 5)))
        gain = majority_at_k(codes, codes == 0, 5).mean() - share
        assert sign * gain == pytest.approx(0.137, abs=0.03)  # 1 - binom.cdf(2, 5, 0.7) - 0.7


def test_calibration_by_hand():
    share, right = np.array([0.25, 0.5, 0.5, 1, 1, 1, 1]), np.array([0, 1, 0, 1, 1, 1, 0])
    low, middle, high = calibration(share, right, range(7))
    assert (low["items"], low["share"], low["accuracy"]) == (1, 0.25, 0)
    assert (middle["above"], middle["up_to"], middle["items"], middle["accuracy"]) == (0.25, 0.5, 2, 0.5)
    assert (high["share"], high["accuracy"], high["kind"]) == (1, 0.75, "Wilson")
    assert (high["low"], high["high"]) == pytest.approx(accuracy_interval(3, 4))
    together = calibration(share, right, [0, 1, 1, 2, 2, 3, 3])[-1]
    assert together["kind"] == "cluster bootstrap"
    assert [row["items"] for row in calibration([0.0], [0], [0])] == [1]  # no vote at all is in the lowest group


def test_a_confident_voter_that_is_often_wrong_shows():
    """A model that says one wrong thing on half the questions, always: unanimous, and right half the time."""
    codes = np.repeat(np.arange(400) % 2, 8).reshape(400, 8)
    place, share = vote(codes)
    [row] = calibration(share, place == codes[:, 0], range(400))
    assert row["share"] == 1 and row["accuracy"] == 0.5


def answers(rng, seeds: int, items: int, samples: int, sd_seed: float, sd_item: float, sd_both: float) -> np.ndarray:
    """Right or wrong of probabilities that add up what a seed, an item, and the two together bring."""
    probability = (
        0.5
        + rng.normal(0, sd_seed, (seeds, 1))
        + rng.normal(0, sd_item, items)
        + rng.normal(0, sd_both, (seeds, items))
    )
    return (rng.random((seeds, items, samples)) < probability[..., None]).astype(float)


def test_item_and_sampling_variance_are_those_of_a_mixed_model():
    """REML of a balanced one-way layout, where it is not at its bound, is the moment estimate: statsmodels knows it."""
    import pandas as pd
    import statsmodels.formula.api as smf

    right = answers(np.random.default_rng(2), 1, 150, 6, 0, 0.25, 0)
    table = pd.DataFrame({"right": right.ravel(), "item": np.repeat(np.arange(150), 6)})
    fit = smf.mixedlm("right ~ 1", table, groups="item").fit(reml=True)
    luck = sources_of_luck(right, ["a"] * 150, range(150))
    assert luck.items**2 * 150 == pytest.approx(float(fit.cov_re.iloc[0, 0]), rel=5e-3)
    assert luck.sampling**2 * 150 == pytest.approx(fit.scale, rel=5e-3)
    assert luck.training is None


def test_three_sources_add_up_and_each_is_found():
    """Known variances, 300 repetitions: the estimates are right on average, and not when sources are taken together."""
    rng = np.random.default_rng(3)
    items, sd_seed, sd_item, sd_both = 60, 0.05, 0.2, 0.1
    found = [
        sources_of_luck(answers(rng, 4, items, 4, sd_seed, sd_item, sd_both), ["a"] * items, range(items))
        for _ in range(300)
    ]
    item, sampling, training = (np.mean([luck[i] ** 2 for luck in found]) for i in range(3))
    assert item == pytest.approx(sd_item**2 / items, rel=0.1)
    assert training == pytest.approx(sd_seed**2 + sd_both**2 / items, rel=0.15)
    within = 0.25 - sd_seed**2 - sd_item**2 - sd_both**2
    assert sampling == pytest.approx(within / items, rel=0.05)


def test_strata_weigh_alike_and_pictures_are_drawn_whole():
    rng = np.random.default_rng(4)
    right = answers(rng, 1, 120, 4, 0, 0.3, 0)
    strata = np.repeat(["a", "b"], [100, 20])
    one, two = (
        sources_of_luck(right[:, own], strata[own], np.flatnonzero(own)) for own in (strata == "a", strata == "b")
    )
    both = sources_of_luck(right, strata, range(120))
    for part in (0, 1):
        assert both[part] == pytest.approx(np.hypot(one[part], two[part]) / 2)
    pictures = np.arange(120) // 4
    alike = np.repeat(right[:, ::4], 4, axis=1)  # the four questions of a picture go alike
    assert (
        sources_of_luck(alike, ["a"] * 120, pictures).items
        > 1.7 * sources_of_luck(alike, ["a"] * 120, range(120)).items
    )


def test_one_answer_each_leaves_items_and_sampling_together():
    right = (np.random.default_rng(5).random((1, 80, 1)) < 0.6).astype(float)
    luck = sources_of_luck(right, ["a"] * 80, range(80))
    assert luck == (clustered_error(right[0, :, 0], ["a"] * 80, range(80))[0], None, None)


def test_order_p_of_two_orders_is_the_exact_sign_test():
    """17 questions better as published, 5 worse, the others alike: P(Bin(22, 1/2) >= 17)."""
    scores = np.array([(1, 0)] * 17 + [(0, 1)] * 5 + [(1, 1)] * 40 + [(0, 0)] * 9)
    exact = binomtest(17, 22, alternative="greater").pvalue
    assert order_p(scores) == pytest.approx(exact, abs=0.004)
    assert order_p(scores[:, ::-1]) == pytest.approx(binomtest(5, 22, alternative="greater").pvalue, abs=0.004)
    assert order_p([(1, 1), (0, 0)]) == 1


def test_order_p_finds_a_benchmark_that_was_seen_and_spares_one_that_was_not():
    rng = np.random.default_rng(6)
    clean = [order_p(rng.normal(size=(60, 4)), rounds=199, seed=i) for i in range(400)]
    assert np.mean(np.array(clean) <= 0.05) == pytest.approx(0.05, abs=0.03)
    seen = rng.normal(size=(60, 4))
    seen[:, 0] += 0.8
    assert order_p(seen) < 0.001
