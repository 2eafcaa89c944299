"""Two files of answers compared, and one scored: by hand, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.errors import UserError
from medvlt_lib.tools.answer_files import read_answers
from medvlt_lib.tools.compare import compare, compare_notes
from medvlt_lib.tools.score_file import calibration_table, scores, scores_notes


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(path: Path, right: list[int], **columns) -> Path:
    rows = [{"id": f"q{i}", "correct": bool(r)} for i, r in enumerate(right)]
    for name, values in columns.items():
        rows = [{**row, name: value} for row, value in zip(rows, values, strict=True)]
    return written(path, rows)


def test_a_comparison_by_hand(tmp_path):
    """Ten questions of one set: 5 and 8 right, 4 gained, 1 lost: exact p = 2 (1 + 5) / 2^5."""
    one = answers(tmp_path / "a.jsonl", [1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    two = answers(tmp_path / "b.jsonl", [1, 1, 1, 1, 0, 1, 1, 1, 1, 0])
    [row] = compare(one, two)["rows"]
    assert (row["before"], row["after"], row["difference"]) == pytest.approx((0.5, 0.8, 0.3))
    assert (row["gained"], row["lost"]) == (4, 1) and row["exact_p"] == pytest.approx(2 * 6 / 32)
    [back] = compare(two, one)["rows"]
    assert back["difference"] == pytest.approx(-0.3) and (back["gained"], back["lost"]) == (1, 4)
    assert row["low"] < 0.3 < row["high"] and row["low"] == pytest.approx(-back["high"], abs=0.05)


def test_overall_is_the_unweighted_mean_over_data_sets(tmp_path):
    sets = ["x"] * 8 + ["y"] * 2
    one = answers(tmp_path / "a.jsonl", [0] * 10, dataset=sets)
    two = answers(tmp_path / "b.jsonl", [1] * 4 + [0] * 4 + [1, 1], dataset=sets)
    rows = {row["name"]: row for row in compare(one, two)["rows"]}
    assert rows["overall (macro)"]["difference"] == pytest.approx((0.5 + 1.0) / 2)
    assert rows["x"]["difference"] == pytest.approx(0.5) and rows["y"]["difference"] == 1
    smaller = min(rows["x"]["p"], rows["y"]["p"])
    assert min(row["adjusted_p"] for row in (rows["x"], rows["y"])) == pytest.approx(min(1, 2 * smaller))


def test_answers_that_share_a_picture_say_less(tmp_path):
    rng = np.random.default_rng(0)
    gains = np.repeat(rng.choice([0, 1], 40), 5)
    together = {"cluster": [f"picture {i // 5}" for i in range(200)]}
    for name, columns in (("alone", {}), ("shared", together)):
        one = answers(tmp_path / f"{name}a.jsonl", [0] * 200, **columns)
        two = answers(tmp_path / f"{name}b.jsonl", gains.tolist(), **columns)
        [row] = compare(one, two)["rows"]
        found = row["high"] - row["low"]
        if name == "alone":
            width = found
    assert found == pytest.approx(width * 5**0.5, rel=0.15)


def test_files_are_joined_on_the_id_and_it_is_said_what_did_not_pair(tmp_path):
    one = answers(tmp_path / "a.jsonl", [1, 0, 1, 0])
    rows = [{"id": f"q{i}", "correct": 1} for i in (3, 2, 1)] + [
        {"id": "other", "correct": 0},
        {"id": "blank", "correct": None},
    ]
    found = compare(one, written(tmp_path / "b.jsonl", rows))
    assert (found["questions"], found["only_in_before"], found["only_in_after"], found["blank_after"]) == (3, 1, 2, 1)
    assert found["rows"][0]["before"] == pytest.approx(1 / 3) and found["rows"][0]["after"] == 1
    assert "not paired: 1 questions of the first file, 2 of the second" in compare_notes(found)
    assert "blank, counted as wrong: 0 and 1 answers" in compare_notes(found)


def test_several_samples_by_hand(tmp_path):
    """Two questions, four answers each: 1 and 3 right; pass@2 = 1 - C(3,2)/C(4,2) = 1/2, and 1 - 0 = 1."""
    said = {"q0": ("A", "B", "A", "C"), "q1": ("B", "B", "D", "B")}
    gold = {"q0": "C", "q1": "B"}
    rows = [
        {"id": q, "sample": i, "letter": letter, "correct": letter == gold[q]}
        for q, letters in said.items() for i, letter in enumerate(letters)
    ]  # fmt: skip
    found = scores([written(tmp_path / "s.jsonl", rows)])
    [row] = found["rows"]
    assert row["accuracy"] == pytest.approx(0.5) and (row["questions"], row["answers"]) == (2, 8)
    assert {at["k"]: at["pass"] for at in row["at_k"]} == pytest.approx({1: 0.5, 2: 0.75, 4: 1.0})
    assert row["majority"] == 0.5  # A for q0, which is wrong; B for q1
    # Votes of two: q0 A (first given) and A, both wrong; q1 B and D (first given): half.
    assert {at["k"]: at["majority"] for at in row["at_k"]} == pytest.approx({1: 0.5, 2: 0.25, 4: 0.5})
    assert not any("chance" in at for at in row["at_k"])  # nobody said how many options there were
    assert [(r["items"], r["share"], r["accuracy"]) for r in found["calibration"]] == [(1, 0.5, 0), (1, 0.75, 1)]
    assert calibration_table(found)[1][:4] == ("25 to 50", "1", "50.0", "0.0")
    assert "the one given first counts" in scores_notes(found) and "another training seed" not in scores_notes(found)
    [pair] = compare(tmp_path / "s.jsonl", tmp_path / "s.jsonl")["rows"]
    assert pair["difference"] == 0 and pair["p"] == 1 and pair["exact_p"] is None


def test_csv_parquet_and_jsonl_say_the_same(tmp_path):
    one = answers(tmp_path / "a.jsonl", [1, 0, 1], dataset=["x", "y", "y"])
    table, _ = read_answers(one)
    table.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("id,correct,dataset\nq0,True,x\nq1,0,y\nq2,1.0,y\n")
    for name in ("a.parquet", "a.csv"):
        other, blank = read_answers(tmp_path / name)
        assert blank == 0 and other.equals(table[other.columns]) and len(other) == 3


BAD = [
    ([{"id": "a", "correct": 1}, {"id": "a", "correct": 0}], r"1 rows too many: the id a with sample 0"),
    ([{"id": "a", "correct": "maybe"}], r"row 1: correct is 'maybe'; it must be true or false"),
    ([{"id": "a", "right": 1}], r"has no column correct; it has id, right"),
    ([{"id": None, "correct": 1}], r"has a row without an id \(row 1\)"),
    ([], r"(holds no answers|has no column id)"),
]


@pytest.mark.parametrize(("rows", "words"), BAD)
def test_bad_files_are_sentences(rows, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read_answers(written(tmp_path / "bad.jsonl", rows))


def test_other_questions_and_missing_files_are_sentences(tmp_path):
    one, two = answers(tmp_path / "a.jsonl", [1]), written(tmp_path / "b.jsonl", [{"id": "z", "correct": 1}])
    with pytest.raises(UserError, match=r"no id of .*a\.jsonl is in .*b\.jsonl"):
        compare(one, two)
    moved = written(tmp_path / "c.jsonl", [{"id": "q0", "correct": 1, "dataset": "x"}])
    with pytest.raises(UserError, match=r"1 questions are of different data sets .*for one, q0"):
        compare(one, moved)
    with pytest.raises(UserError, match=r"there is no file"):
        compare(one, tmp_path / "none.csv")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match=r"torn\.parquet cannot be read"):
        scores([tmp_path / "torn.parquet"])


def test_the_commands_write_what_they_show(tmp_path):
    one, two = answers(tmp_path / "a.jsonl", [1, 0, 1, 0]), answers(tmp_path / "b.jsonl", [1, 1, 1, 1])
    done = CliRunner().invoke(app, ["compare", str(one), str(two), "--json", str(tmp_path / "c.json")])
    assert done.exit_code == 0 and "+50.0" in done.output
    assert json.loads((tmp_path / "c.json").read_text()) == compare(one, two)
    done = CliRunner().invoke(app, ["scores", str(one)])
    assert done.exit_code == 0 and "50.0" in done.output and "guessing" not in done.output


def sampled(path: Path, right: np.ndarray, **columns) -> Path:
    """Answers of a table (items, samples); the letter is A where it is right and B where it is not."""
    rows = [
        {"id": f"q{i}", "sample": s, "correct": bool(r), "letter": "A" if r else "B", **columns}
        for i, own in enumerate(right) for s, r in enumerate(own)
    ]  # fmt: skip
    return written(path, rows)


@pytest.mark.parametrize("options", [4, "4", {"A": "x", "B": "y", "C": "z", "D": "w"}, '["x", "y", "z", "w"]'])
def test_guessing_stands_beside_pass_at_k_where_options_are_known(options, tmp_path):
    right = np.random.default_rng(0).random((30, 4)) < 0.25
    path = sampled(tmp_path / "s.jsonl", right, options=options)
    [row] = scores([path])["rows"]
    assert {at["k"]: at["chance"] for at in row["at_k"]} == pytest.approx({1: 0.25, 2: 1 - 0.75**2, 4: 1 - 0.75**4})
    done = CliRunner().invoke(app, ["scores", str(path)])
    assert done.exit_code == 0 and "68.4" in done.output and "guessing" in done.output


def test_options_that_are_none_are_a_sentence(tmp_path):
    path = sampled(tmp_path / "s.jsonl", np.ones((2, 1)), options="some")
    with pytest.raises(UserError, match=r"row 1: options is 'some'; give their number or the options themselves"):
        scores([path])


def test_questions_with_fewer_answers_keep_their_votes(tmp_path):
    rows = [{"id": "a", "sample": s, "correct": s > 0, "letter": "BAA"[s]} for s in range(3)]
    rows += [{"id": "b", "sample": s, "correct": s == 0, "letter": ["A", ""][s]} for s in range(2)]
    found = scores([written(tmp_path / "s.jsonl", rows)])
    [row] = found["rows"]
    assert row["majority"] == 1 and [at["k"] for at in row["at_k"]] == [1, 2]
    assert [(r["items"], r["share"]) for r in found["calibration"]] == [(1, 0.5), (1, pytest.approx(2 / 3))]


def test_several_files_are_training_seeds_of_one_recipe(tmp_path):
    """Two models that are each sure of themselves and right on 30 and on 20 of 40 questions: all of it is training."""
    one, two = (np.repeat(np.arange(40) < n, 3).reshape(40, 3) for n in (30, 20))
    found = scores([sampled(tmp_path / "1.jsonl", one), sampled(tmp_path / "2.jsonl", two)])
    assert [row["accuracy"] for row in found["rows"]] == [0.75, 0.5]
    assert found["luck"]["sampling"] == 0 and found["luck"]["training"] == pytest.approx(0.25 / 2**0.5)
    assert "another training seed 17.7" in scores_notes(found)
    other = sampled(tmp_path / "3.jsonl", one[:39])
    with pytest.raises(UserError, match=r"do not answer the same questions"):
        scores([tmp_path / "1.jsonl", other])
