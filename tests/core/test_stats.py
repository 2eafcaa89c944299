"""Intervals against scipy, statsmodels' published value and simulation."""

import numpy as np
import pytest

from medvlt_lib.core.stats import accuracy_interval, macro, macro_interval


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
    clustered = np.diff(macro_interval(values, strata, images))[0]
    independent = np.diff(macro_interval(values, strata, np.arange(400)))[0]
    assert clustered == pytest.approx(independent * np.sqrt(2), rel=0.1)
    hits = 0
    for seed in range(100):
        sample = (np.random.default_rng(seed).random(200) < 0.6).astype(float)
        low, high = macro_interval(sample, ["x"] * 200, np.arange(200), rounds=400, seed=seed)
        hits += low <= 0.6 <= high
    assert hits >= 88


def test_images_with_questions_in_two_strata_move_both():
    """The second question on an image that always shares the first one's fate adds no information."""
    rng = np.random.default_rng(1)
    right = rng.random(200) < 0.6
    one = macro_interval(right, ["a"] * 200, range(200))
    twice = macro_interval([*right, *right], ["a"] * 200 + ["b"] * 200, [*range(200), *range(200)])
    apart = macro_interval([*right, *right], ["a"] * 200 + ["b"] * 200, range(400))
    width = lambda span: span[1] - span[0]  # noqa: E731
    assert width(twice) == pytest.approx(width(one), rel=0.1)
    assert width(apart) == pytest.approx(width(one) / 2**0.5, rel=0.15)  # two independent halves of the evidence
