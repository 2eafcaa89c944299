"""Scores and paired differences: what is counted, which interval each figure has, and what did not change."""

import pyarrow.parquet as pq
import pytest

from medvlt_lib.core.results import paired
from medvlt_lib.core.stats import accuracy_interval
from medvlt_lib.course.lesson import REFERENCE
from medvlt_lib.stages import evaluate, report


def answer(
    question: str, sample: int = 0, correct: bool = True, dataset: str = "a", picture: str | None = None
) -> dict:
    return {
        "id": question, "sample": sample, "dataset": dataset, "cluster": picture or question, "correct": correct,
        "letter": "A", "well_formed": True, "truncated": False, "tokens": 10, "text": "A", "finish_reason": "stop",
        "cost": None,
    }  # fmt: skip


@pytest.fixture
def sampled() -> list[dict]:
    """Ten questions with four answers each: six of data set a, four of b; the first `n % 5` answers are right."""
    return [
        answer(f"q{n}", sample, correct=sample < n % 5, dataset="a" if n < 6 else "b")
        for n in range(10)
        for sample in range(4)
    ]


@pytest.fixture
def reference() -> dict[str, list[dict]]:
    arms = ("base", "sft_text", "rl_text")
    since = {"finish_reason": "stop", "cost": None}  # columns that the reference run is too old to have
    tables = {arm: pq.read_table(REFERENCE / "05_eval" / arm / "answers.parquet") for arm in arms}
    return {arm: [{**since, **row} for row in table.to_pylist()] for arm, table in tables.items()}


def test_questions_are_counted_once_however_often_they_are_answered(sampled):
    scores = evaluate.score(sampled)
    assert (scores["questions"], scores["answers"]) == (10, 40)
    assert {n: (s["questions"], s["answers"]) for n, s in scores["datasets"].items()} == {"a": (6, 24), "b": (4, 16)}
    assert scores["datasets"]["b"]["accuracy"] == (1 + 2 + 3 + 4) / 16  # the mean over answers
    assert evaluate.questions_and_answers(scores) == "10 test questions (40 answers)"
    assert evaluate.notes({"base": scores}) == "10 test questions (40 answers); 95 % intervals: cluster bootstrap"
    once = evaluate.score([row for row in sampled if row["sample"] == 0])
    assert evaluate.questions_and_answers(once) == "10 test questions"


def test_the_answers_to_one_question_are_one_cluster():
    """Four answers that are always alike tell no more than one."""
    once = [answer(f"q{n}", correct=n % 3 > 0) for n in range(60)]
    four = [{**row, "sample": sample} for row in once for sample in range(4)]
    (low, high), (low_4, high_4) = evaluate.score(once)["interval"], evaluate.score(four)["interval"]
    assert (low_4, high_4) == pytest.approx((low, high))


def test_every_interval_says_which_it_is(sampled):
    single = evaluate.score([answer(f"q{n}", correct=n > 3) for n in range(20)])
    assert single["datasets"]["a"]["interval"] == accuracy_interval(16, 20)
    assert (single["interval_kind"], single["datasets"]["a"]["interval_kind"]) == ("cluster bootstrap", "Wilson")
    assert evaluate.score(sampled)["datasets"]["a"]["interval_kind"] == "cluster bootstrap"
    right = evaluate.score([answer(f"q{n}", sample) for n in range(5) for sample in range(4)])
    assert right["datasets"]["a"]["interval_kind"] == right["interval_kind"] == "cluster Wilson"
    assert right["interval"] == right["datasets"]["a"]["interval"] == pytest.approx(accuracy_interval(5, 5))


def test_two_arms_with_the_same_answers_are_not_known_to_be_equal():
    rows = [answer(f"q{n}", correct=n > 3) for n in range(20)]
    same = paired(rows, rows)
    most = accuracy_interval(0, 20)[1]
    assert (same["difference"], same["interval_kind"]) == (0, "cluster Wilson")
    assert same["interval"] == pytest.approx((-most, most))


def test_pictures_with_unlike_questions_have_an_interval():
    """Each picture has questions in data sets of its own: no two pictures touch the same ones."""
    sets = "abcde"
    rows = [
        answer(f"q{number}{name}", correct=(number * 7 + i) % 3 > 0, dataset=name, picture=f"p{number}")
        for number in range(1, 2 ** len(sets))
        for i, name in enumerate(sets)
        if number >> i & 1
    ]
    low, high = evaluate.score(rows)["interval"]
    assert 0.1 < high - low < 0.4


def test_ordinary_intervals_are_what_they_were(reference):
    """On the reference run, where nothing is all right, all wrong, or alone: the drawn interval, a little expanded."""
    base, sft = evaluate.score(reference["base"]), evaluate.score(reference["sft_text"])
    assert base["macro"] == pytest.approx(0.57) and base["interval"] == pytest.approx((0.4989, 0.6411), abs=5e-5)
    assert sft["macro"] == pytest.approx(0.855) and sft["interval"] == pytest.approx((0.8094, 0.9006), abs=5e-5)
    assert base["datasets"]["curb65"]["interval"] == (0.37497362106692467, 0.6706452988732109)
    gain = paired(reference["base"], reference["sft_text"])
    assert gain["difference"] == pytest.approx(0.285) and gain["interval"] == pytest.approx((0.2087, 0.3613), abs=5e-5)
    gain = paired(reference["base"], reference["rl_text"])
    assert gain["interval"] == pytest.approx((0.174, 0.341), abs=5e-4)


def test_the_reference_run_is_scored_as_we_score_now(reference):
    for arm, rows in reference.items():
        scores = evaluate.read_json(REFERENCE / "05_eval" / arm / "scores.json")
        now = evaluate.score(rows)
        assert (scores["interval"], scores["interval_kind"]) == ([*now["interval"]], now["interval_kind"])
        assert (scores["questions"], scores["answers"]) == (200, 200)


def test_the_report_notes_count_questions_and_name_the_intervals(sampled):
    better = [{**row, "correct": True} for row in sampled]
    scores, gain = evaluate.score(sampled), paired(sampled, better)
    rows = [{"arm": "base", **scores, "gain": None}, {"arm": "rl_text", **evaluate.score(better), "gain": gain}]
    notes = report.notes(rows)
    assert "on 10 test questions (40 answers)." in notes
    assert "macro accuracy, cluster bootstrap (base); cluster Wilson (rl_text)." in notes
    assert "Differences, cluster bootstrap." in notes
    assert "By data set, cluster Wilson or cluster bootstrap." in notes
    assert report.table(rows)[2][:4] == ("rl_text", "100.0", "68.7 to 100.0", "+47.9")


def test_the_mean_of_the_six_is_unweighted_and_says_whether_it_is_of_all_their_questions(sampled):
    """By hand: five sets half right, one all right. Counts are those of MedVLThinker's test sets."""
    counts = {"pmc_vqa": 2000, "pathvqa_closed": 3362, "slake_closed": 416, "vqa_rad_closed": 272,
              "MMMU-medical": 170, "MedXpertQA-MM": 1996}  # fmt: skip
    accuracies = {**dict.fromkeys(counts, 0.5), "slake_closed": 1.0}
    sets = {name: {"questions": count, "accuracy": accuracies[name]} for name, count in counts.items()}
    found = evaluate.mean_of_six({**sets, "another": {"questions": 1, "accuracy": 0.0}})
    assert found == {"six": {"mean": pytest.approx((5 * 0.5 + 1.0) / 6), "whole": True}}
    said = evaluate.notes({"m": {**evaluate.score(sampled), **found}})
    assert said.endswith("m, unweighted mean of the six benchmarks: 58.3")
    part = evaluate.mean_of_six({**sets, "MMMU-medical": {"questions": 150, "accuracy": 0.5}})
    assert part["six"]["whole"] is False
    said = evaluate.notes({"m": {**evaluate.score(sampled), **part}})
    assert said.endswith("of a part of their questions, so not comparable with published averages")
    assert evaluate.mean_of_six({name: own for name, own in sets.items() if name != "pmc_vqa"}) == {}
