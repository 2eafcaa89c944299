"""Verdicts by the rule that was written before the runs, from made-up results with known answers."""

import math

import numpy as np
import pytest
from scipy import stats

from medvlt_lib.core.errors import UserError
from medvlt_lib.phantom.questions import FAMILIES
from medvlt_lib.study import findings
from medvlt_lib.study.findings import (
    CANNOT_TELL,
    DOES_NOT,
    HOLDS,
    NOT_RUN,
    Verdict,
    claims_file,
    decide,
    families_of,
    interval_over_seeds,
    judged,
)
from medvlt_lib.study.measures import value
from medvlt_lib.study.results import right_of, write_result
from medvlt_lib.study.tables import cautions, findings_table
from tests.study.made_up import made_up_result


def test_the_interval_is_scipys_paired_t_test():
    a, b = [0.62, 0.71, 0.58, 0.66], [0.51, 0.63, 0.55, 0.52]
    mean, low, high, p, _ = interval_over_seeds([x - y for x, y in zip(a, b, strict=True)])
    truth = stats.ttest_rel(a, b)
    span = truth.confidence_interval(0.95)
    assert mean == pytest.approx(np.mean(a) - np.mean(b))
    assert (low, high, p) == pytest.approx((span.low, span.high, truth.pvalue))


def test_the_detectable_difference_is_found_with_a_power_of_about_80_percent():
    """By simulation, 20 seeds of spread 1: the textbook's sum of two t quantiles is an approximation from above."""
    rng, n = np.random.default_rng(1), 20
    draws = rng.normal(size=(4000, n))
    true = 2.093 / math.sqrt(n) + 0.861 / math.sqrt(n)  # t quantiles of 19 degrees of freedom, from a printed table
    found = stats.ttest_1samp(draws + true, 0, axis=1).pvalue < 0.05
    assert 0.77 < found.mean() < 0.84
    sample = (draws[0] - draws[0].mean()) / draws[0].std(ddof=1)
    assert interval_over_seeds(sample)[4] == pytest.approx(true, abs=2e-3)


@pytest.mark.parametrize(
    ("says", "mean", "high", "p", "verdict"),
    [
        ("more", 0.10, 0.15, 0.01, HOLDS),
        ("more", 0.10, 0.25, 0.20, CANNOT_TELL),
        ("more", -0.10, -0.02, 0.01, DOES_NOT),
        ("more", 0.01, 0.02, 0.30, DOES_NOT),
        ("not more", 0.01, 0.02, 0.30, HOLDS),
        ("not more", -0.10, -0.02, 0.01, HOLDS),
        ("not more", 0.10, 0.15, 0.01, DOES_NOT),
        ("not more", 0.10, 0.25, 0.20, CANNOT_TELL),
    ],
)
def test_the_rule(says, mean, high, p, verdict):
    assert decide(says, mean, high, p, 0.03) == verdict


def test_verdicts_follow_the_results_and_turn_round_with_them(tmp_path):
    for seed in range(3):
        for label, share in (("rl_text", 0.8), ("base", 0.5), ("sft_text", 0.6), ("sft_text.foreign", 0.4)):
            write_result(tmp_path / "a", *made_up_result(label, seed, share))
            write_result(tmp_path / "b", *made_up_result(label, seed, 1 - share))
    [first, *_] = judged(["recipes"], tmp_path / "a")["recipes"]
    [turned, *_] = judged(["recipes"], tmp_path / "b")["recipes"]
    assert (first.verdict, turned.verdict) == (HOLDS, DOES_NOT)
    assert first.seeds == 3
    assert first.mean == pytest.approx(-turned.mean, abs=0.03)
    assert first.mean == pytest.approx(0.4, abs=0.03)


def test_what_lacks_runs_is_said_with_the_command(tmp_path):
    write_result(tmp_path, *made_up_result("rl_text", 0, 0.8))
    rows, below = findings_table("recipes", judged(["recipes"], tmp_path)["recipes"])
    assert {row[-1] for row in rows[1:]} == {NOT_RUN}
    assert "medvlt study recipes --seeds" in below


def test_a_result_that_was_edited_is_refused(tmp_path):
    write_result(tmp_path, *made_up_result("rl_text", 0, 0.8))
    [path] = tmp_path.glob("*.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match="changed after it was written"):
        judged(["recipes"], tmp_path)


def test_answers_that_were_edited_are_refused(tmp_path):
    result, rows = made_up_result("rl_text", 0, 0.8)
    write_result(tmp_path, result, rows)
    [path] = tmp_path.glob("*.parquet")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="missing or was changed"):
        value(tmp_path, findings.by_label(tmp_path)["rl_text"][0], ["apgar"], "pass@1")


def test_two_results_of_one_arm_and_seed_are_refused(tmp_path):
    for name in ("first", "second"):
        result, rows = made_up_result("rl_text", 0, 0.8)
        write_result(tmp_path, {**result, "key": f"rl_text-s0-{name}"}, rows)
    with pytest.raises(UserError, match="two results of rl_text with seed 0"):
        judged(["recipes"], tmp_path)


def test_an_unknown_study_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="recipe"):
        judged(["recipe"], tmp_path)


def test_pass_at_k_by_hand(tmp_path):
    """One family, two questions of four samples: 1 right of 4 and 4 right of 4. pass@2 is 1/2 and 1."""
    rows = []
    for question, right in (("q1", [1, 0, 0, 0]), ("q2", [1, 1, 1, 1])):
        for sample, correct in enumerate(right):
            row = {"id": question, "sample": sample, "dataset": "apgar", "modality": "text", "letter": "A"}
            rows.append(
                {"look": "sampled", **row, "correct": bool(correct), "truncated": False, "tokens": 1, "text": ""}
            )
    result, _ = made_up_result("rl_text", 0, 0.8)
    write_result(tmp_path, result, rows)
    stored = findings.by_label(tmp_path)["rl_text"][0]
    assert stored["right"] == right_of(rows) == {"sampled": {"apgar": [5, 8]}}
    assert value(tmp_path, stored, ["apgar"], "pass@2", "sampled") == pytest.approx(0.75)
    assert value(tmp_path, stored, ["apgar"], "pass@1", "sampled") == pytest.approx(5 / 8)
    assert value(tmp_path, stored, ["apgar"]) is None


def test_claims_name_arms_of_their_study_and_families_that_exist():
    from medvlt_lib.study.cells import study

    for name, claims in claims_file()["claims"].items():
        for claim in claims:
            assert claim["says"] in ("more", "not more")
            for side in (claim["a"], claim["b"]):
                assert {side["arm"], side.get("over", side["arm"])} <= set(study(name)["arms"])
                of_language = side.get("measure") == "perplexity"
                assert ("among" in side) != of_language
                assert of_language or set(families_of(side["among"])) <= set(FAMILIES)
                assert ("language" if of_language else side.get("look", "greedy")) in study(name)["looks"]


def test_what_was_not_run_still_counts_in_the_correction(tmp_path):
    """Nine claims of `recipes`, of which only the first two and the fourth have their runs: Holm counts nine."""
    for seed in range(3):
        for label, share in (("rl_text", 0.8), ("sft_text", 0.6), ("sft_text.foreign", 0.4)):
            write_result(tmp_path, *made_up_result(label, seed, share))
    verdicts = judged(["recipes"], tmp_path)["recipes"]
    run = [v for v in verdicts if v.verdict != NOT_RUN]
    assert len(verdicts) == 9
    assert len(run) == 3
    smallest = min(run, key=lambda v: v.p)
    assert smallest.p_holm == pytest.approx(9 * smallest.p)


def test_a_model_that_gives_one_letter_to_most_pictures_is_said(tmp_path):
    """Six of ten answers are not most; seven are. Text does not count, nor does a model that was not trained."""
    for label, seed, same in (("rl_image.mri", 0, 7), ("rl_image.mri", 1, 6), ("base", 0, 10)):
        result, rows = made_up_result(label, seed, 0.5)
        for i, row in enumerate(rows):
            row["letter"] = "A" if row["modality"] == "text" or i % 10 < same else "BCDE"[i % 4]
        write_result(tmp_path, result | {"training": {} if label == "base" else {"checkpoint_step": 12}}, rows)
    [said] = cautions("transfer", [], findings.by_label(tmp_path), tmp_path)
    assert said.startswith("rl_image.mri: in 1 of 2 seeds the model gives one letter to more than 60 %")


def test_an_undone_training_and_equal_sides_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr("medvlt_lib.study.tables.answers_of", lambda folder, result: [])
    claim = {"claim": "SFT does not raise it", "says": "not more"}
    equal = Verdict(claim, HOLDS, 3, (0.0, 0.0, 0.0), 0.0, 0.0, 0.0)
    results = {
        "base": {seed: {"training": {}} for seed in range(3)},
        "sft_image.mri": {seed: {"training": {"checkpoint_step": step}} for seed, step in enumerate((0, 15, 0))},
        "rl_image.mri": {0: {"training": {"checkpoint_step": 12}}},
    }
    undone, same = cautions("transfer", [equal], results, tmp_path)
    assert undone.startswith("sft_image.mri: in 2 of 3 seeds") and "SFT does not raise it" in same
    differ = Verdict(claim, HOLDS, 3, (0.0, 0.01, 0.0), 0.003, -0.01, 0.02)
    assert cautions("transfer", [differ], {"base": results["base"]}, tmp_path) == []
