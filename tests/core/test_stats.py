"""Intervals and tests against textbooks, scipy, statsmodels and simulation."""

import numpy as np
import pytest

from medvlt_lib.core.stats import (
    accuracy_interval,
    clustered_error,
    detectable,
    holm,
    macro,
    macro_interval,
    mcnemar,
    paired_p,
)  # fmt: skip


def width(interval) -> float:
    return interval[1] - interval[0]


def test_wilson_interval_is_the_textbook_one():
    # Newcombe RG. Stat Med 1998;17:857-872, table I, method 3: 81/263 -> 0.2553 to 0.3662
    assert accuracy_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_macro_weighs_strata_alike():
    assert macro([1, 1, 1, 0], ["a", "a", "a", "b"]) == 0.5


def test_bootstrap_covers_and_widens_with_clusters():
    rng = np.random.default_rng(1)
    images = np.repeat(np.arange(200), 2)
    values = np.repeat(rng.random(200) < 0.6, 2).astype(float)  # both questions of an image go alike
    strata = ["x"] * 400
    clustered = width(macro_interval(values, strata, images))
    independent = width(macro_interval(values, strata, np.arange(400)))
    assert clustered == pytest.approx(independent * np.sqrt(2), rel=0.1)
    hits = 0
    for seed in range(100):
        sample = (np.random.default_rng(seed).random(200) < 0.6).astype(float)
        low, high = macro_interval(sample, ["x"] * 200, np.arange(200), rounds=400, seed=seed)[:2]
        hits += low <= 0.6 <= high
    assert hits >= 88


def test_images_with_questions_in_two_strata_move_both():
    """The second question on an image that always shares the first one's fate adds no information."""
    rng = np.random.default_rng(1)
    right = rng.random(200) < 0.6
    one = macro_interval(right, ["a"] * 200, range(200))
    twice = macro_interval([*right, *right], ["a"] * 200 + ["b"] * 200, [*range(200), *range(200)])
    apart = macro_interval([*right, *right], ["a"] * 200 + ["b"] * 200, range(400))
    assert width(twice) == pytest.approx(width(one), rel=0.1)
    assert width(apart) == pytest.approx(width(one) / 2**0.5, rel=0.15)  # two independent halves of the evidence


@pytest.mark.parametrize("right", [0, 1])
def test_five_of_five_is_no_certainty(right):
    """Where every cluster agrees, it is Wilson's interval for so many clusters, however many answers each has."""
    wilson = accuracy_interval(5 * right, 5)
    assert wilson == pytest.approx((0.5655, 1) if right else (0, 0.4345), abs=5e-5)  # 5 / (5 + 1.96**2), and the rest
    for answers in (1, 4):
        clusters = np.repeat(range(5), answers)
        interval = macro_interval([right] * len(clusters), ["a"] * len(clusters), clusters)
        assert interval[:2] == pytest.approx(wilson)
        assert interval.kind == "cluster Wilson"


@pytest.mark.parametrize(("others", "published"), [(10, 0.6075), (20, 0.6791)])
def test_strata_that_agree_are_joined_as_newcombe_joins_two_proportions(others, published):
    """Newcombe RG. Stat Med 1998;17:873-890, table II, method 10: 10/10 - 0/10 from 0.6075, 10/10 - 0/20 from 0.6791.

    The difference p - q is twice the macro mean of p and 1 - q, less 1.
    """
    low, high, kind = macro_interval([1] * (10 + others), ["p"] * 10 + ["1 - q"] * others, range(10 + others))
    assert (2 * low - 1, 2 * high - 1) == pytest.approx((published, 1), abs=5e-5)
    assert kind == "cluster Wilson"


def test_strata_that_share_all_pictures_are_no_more_evidence_than_one():
    shared = macro_interval([1] * 20, np.repeat(["a", "b", "c", "d"], 5), [*range(5)] * 4)
    assert shared[:2] == pytest.approx(accuracy_interval(5, 5))


def test_one_stratum_that_agrees_widens_the_interval_of_the_mean():
    rng = np.random.default_rng(2)
    mixed, strata = (rng.random(40) < 0.6).astype(float), np.repeat(["a", "b"], [40, 5])
    alone = macro_interval(mixed, strata[:40], range(40))
    both = macro_interval([*mixed, *[1] * 5], strata, range(45))
    below = np.hypot(mixed.mean() - alone.low, 1 - accuracy_interval(5, 5)[0]) / 2
    assert both.low == pytest.approx((mixed.mean() + 1) / 2 - below, abs=0.002)  # other draws than in `alone`
    assert both.high == pytest.approx((alone.high + 1) / 2, abs=0.002)
    assert (alone.kind, both.kind) == ("cluster bootstrap", "cluster bootstrap and cluster Wilson")


def test_no_difference_on_any_question_is_no_certainty_either():
    """None of 40 questions changed: Wilson's interval for 0 of 40 bounds the share that would, either way."""
    most = accuracy_interval(0, 40)[1]
    same = macro_interval([0] * 40, ["a"] * 40, range(40), bounds=(-1, 1))
    assert same[:2] == pytest.approx((-most, most))
    better = macro_interval([1] * 40, ["a"] * 40, range(40), bounds=(-1, 1))
    assert better[:2] == pytest.approx((1 - 2 * most, 1))


def pictures_with_random_questions(pictures: int, strata: int, seed: int):
    """Each picture has questions in its own choice of strata; three of four answers share the picture's luck, 0.7."""
    rng = np.random.default_rng(seed)
    rows = []
    for picture in range(pictures):
        luck = rng.random() < 0.7
        chosen = [s for s in range(strata) if rng.random() < 0.5 or s == picture % strata]
        rows += [(float(luck if rng.random() < 0.75 else rng.random() < 0.7), s, picture) for s in chosen]
    return map(np.array, zip(*rows, strict=True))


def test_pictures_that_all_touch_other_strata_have_an_interval():
    """Drawing among pictures with the very same strata would draw each one every time.

    The truth is the linearised variance of a mean of ratios.
    """
    values, strata, clusters = pictures_with_random_questions(25, 9, seed=3)
    touched = [frozenset(strata[clusters == c]) for c in range(25)]
    assert len(set(touched)) == 25
    residual = np.zeros(25)
    for s in range(9):
        own = strata == s
        np.add.at(residual, clusters[own], (values[own] - values[own].mean()) / own.sum() / 9)
    interval = macro_interval(values, strata, clusters)
    assert width(interval) == pytest.approx(2 * 1.96 * np.sqrt((residual**2).sum()), rel=0.15)


def answers(design: str, seed: int):
    """Values, strata, clusters, and the true macro mean of a small design."""
    rng = np.random.default_rng(seed)
    if design == "pictures with their own strata":
        return *pictures_with_random_questions(20, 6, seed), 0.7
    if design == "five questions":
        return rng.random(5) < 0.9, ["a"] * 5, range(5), 0.9
    if design == "five sets of five questions":
        truth = np.linspace(0.7, 0.95, 5)
        return (rng.random((5, 5)) < truth[:, None]).ravel(), np.repeat(range(5), 5), range(25), truth.mean()
    if design == "ten pictures in each of four sets":
        luck, own = rng.random((10, 1)) < 0.95, rng.random((10, 4)) < 0.95
        right = np.where(rng.random((10, 4)) < 0.8, luck, own)
        return right.ravel(), [*range(4)] * 10, np.repeat(range(10), 4), 0.95
    skill = rng.beta(2, 1, 20)  # "twenty questions, four samples each"
    return (rng.random((20, 4)) < skill[:, None]).ravel(), ["a"] * 80, np.repeat(range(20), 4), 2 / 3


@pytest.mark.parametrize(
    "design",
    [
        "pictures with their own strata",
        "five questions",
        "five sets of five questions",
        "ten pictures in each of four sets",
        "twenty questions, four samples each",
    ],
)
def test_intervals_cover_the_truth_about_as_often_as_they_say(design):
    hits = 0
    for seed in range(100):
        values, strata, clusters, truth = answers(design, seed)
        low, high = macro_interval(values, strata, clusters, rounds=200, seed=seed)[:2]
        hits += low <= truth <= high
    assert hits >= 88  # an interval that holds 95 times of 100 falls below that once in 700 tries


# --- tests and their errors ---


def test_mcnemar_is_the_textbook_one():
    """Agresti, Categorical Data Analysis (1990), table 10.1: 150 and 86 of 1,600 changed their mind."""
    from statsmodels.stats.contingency_tables import mcnemar as theirs

    before = np.r_[np.ones(794 + 150), np.zeros(86 + 570)]
    after = np.r_[np.ones(794), np.zeros(150), np.ones(86), np.zeros(570)]
    gained, lost, p = mcnemar(before, after)
    assert (gained, lost) == (86, 150)
    assert p == pytest.approx(theirs([[794, 150], [86, 570]], exact=True).pvalue) and 1e-5 < p < 1e-4
    assert mcnemar([1, 0], [1, 0]) == (0, 0, 1.0)
    assert mcnemar([0] * 5, [1] * 5)[2] == pytest.approx(2 / 2**5)  # all five the same way, by hand


def test_holm_by_hand_and_as_statsmodels_has_it():
    from statsmodels.stats.multitest import multipletests

    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    values = np.random.default_rng(3).random(20) ** 3
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1].tolist())
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_clustered_error_is_that_of_a_regression_with_clustered_errors():
    """One stratum: the intercept's error in statsmodels; clusters of one answer each: the textbook's s / sqrt(n)."""
    import statsmodels.api as sm

    rng = np.random.default_rng(5)
    clusters = rng.integers(0, 60, 300)
    values = rng.random(300) + rng.random(60)[clusters]
    error, freedom = clustered_error(values, ["x"] * 300, clusters)
    fit = sm.OLS(values, np.ones(300)).fit()
    theirs = fit.get_robustcov_results("cluster", groups=clusters, df_correction=True).bse[0]
    assert error == pytest.approx(theirs, rel=2e-2) and 30 < freedom < 59
    alone, freedom = clustered_error(values, ["x"] * 300, range(300))
    assert alone == pytest.approx(values.std(ddof=1) / np.sqrt(300)) and freedom == pytest.approx(299)
    two = clustered_error(values, ["x"] * 150 + ["y"] * 150, range(300))[0]
    halves = [values[:150].std(ddof=1), values[150:].std(ddof=1)]
    assert two == pytest.approx(np.hypot(*halves) / np.sqrt(150) / 2)  # the macro mean is half of each half's


def null_comparisons(number: int):
    """Paired differences of two equally good models: strata of unequal size, pictures with 1 to 8 questions that go
    much alike."""
    rng = np.random.default_rng(11)
    sizes = rng.integers(1, 9, 150)
    stratum = rng.choice(3, 150, p=[0.65, 0.25, 0.1])
    clusters, strata = np.repeat(np.arange(150), sizes), np.repeat(stratum, sizes)
    for _ in range(number):
        shift = rng.choice([-0.25, 0.25], 150)[clusters]  # on a picture one of the two is better in most questions
        draw = rng.random(len(clusters))
        first = draw < 0.5 + shift
        second = rng.random(len(clusters)) < 0.5 - shift
        yield first.astype(int), second.astype(int), strata, clusters


def test_null_comparisons_reject_as_often_as_they_say_and_naive_ones_more():
    rejected = naive = 0
    for first, second, strata, clusters in null_comparisons(2000):
        rejected += paired_p(second - first, strata, clusters) < 0.05
        naive += mcnemar(first, second)[2] < 0.05
    assert 0.035 <= rejected / 2000 <= 0.065, rejected
    assert naive / 2000 > 0.15, naive


def test_a_detectable_difference_is_detected_in_four_of_five():
    rng, error = np.random.default_rng(2), 0.03
    found = np.abs(rng.normal(detectable(error), error, 20_000)) > 1.959964 * error
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    assert detectable(0.03) == pytest.approx(0.03 * (1.959964 + 0.841621), rel=1e-5)
