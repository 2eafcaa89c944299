"""medvlt grade: any file of responses, graded row by row; killed and started again, it ends with the same bytes."""

import json

import pytest
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.errors import UserError
from medvlt_lib.tools import grade_file as module
from medvlt_lib.tools.grade_file import grade_file, kinds, summary

OPTIONS = {"A": "Heart", "B": "Lung"}


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def row(response, **changes):
    return {"id": "q", "dataset": "exam", "response": response, "options": OPTIONS, "answer_label": "B", **changes}


def test_rows_come_out_with_their_verdict(tmp_path):
    rows = [
        row("<think>x</think>\n<answer>B</answer>"),
        row("The answer is (B).", options=json.dumps(OPTIONS)),
        row("<think>cut", finish_reason="length"),
        row("B", finish_reason="length", note="kept"),
    ]
    source = write(tmp_path / "in.jsonl", rows)
    assert grade_file(source, tmp_path / "out.jsonl", "tolerant") == 0
    graded = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(r["letter"], r["correct"], r["how"], r["well_formed"], r["truncated"]) for r in graded] == [
        ("B", True, "tag", True, False),
        ("B", True, "sentence", False, False),
        (None, False, "no answer", False, True),
        (None, False, "no answer", False, True),
    ]
    assert all("reward" not in r and "online" not in r for r in graded) and graded[3]["note"] == "kept"
    grade_file(source, tmp_path / "published.jsonl", "published")
    graded = [json.loads(line) for line in (tmp_path / "published.jsonl").read_text().splitlines()]
    assert [(r["reward"], r["online"], r["correct"]) for r in graded] == [
        (1.0, True, True),
        (0.0, False, False),
        (0.0, False, False),
        (0.0, True, True),
    ]
    header, exam, total = summary(tmp_path / "published.jsonl")
    assert dict(zip(header, exam, strict=True))["correct"] == "50.0" and total[1] == "4"


def test_explained_rows_say_what_was_read_and_what_was_put_aside(tmp_path):
    rows = [
        row("<think>The answer is A.</think>\nThe answer is B."),
        row("The answer is A. Wait. The answer is B."),
        row("B\n\nQuestion: Which vitamin?\nAnswer: A"),
        row("A or B"),
        row("Well."),
        row("The answer is B. It", finish_reason="length"),
    ]
    source = write(tmp_path / "in.jsonl", rows)
    done = CliRunner().invoke(
        app, ["grade", str(source), "--grader", "tolerant", "--explain", "--out", str(tmp_path / "out.jsonl")]
    )
    assert done.exit_code == 0 and "6 rows in" in done.output and "a second" in done.output
    assert "put aside: thinking" in done.output and "nothing is stated" in done.output
    found = [json.loads(line)["evidence"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(f["piece"], f["rule"]) for f in found] == [
        ("B.", "sentence"),
        ("B.", "sentence, contradicted"),
        ("B", "line"),
        ("", "no answer: nothing is stated"),
        ("", "no answer: nothing is stated"),
        ("", "no answer: nothing is stated"),
    ]
    assert "The answer is A." in found[0]["put_aside"]["thinking"]
    assert found[1]["others"] == ["sentence: A. Wait. The answer is B."]
    assert found[2]["put_aside"]["a question of its own"].startswith("Question:")
    assert list(found[5]["put_aside"]) == ["what is not closed, of a response that was cut"]
    table = {name: (count, example) for name, count, _, example in kinds(tmp_path / "out.jsonl")[1:]}
    assert table["sentence"][0] == "1" and table["no answer: nothing is stated"][0] == "3"
    for grader in ("published", "published-medvlm-r1"):
        grade_file(source, tmp_path / f"{grader}.jsonl", grader, explain=True)
        lines = (tmp_path / f"{grader}.jsonl").read_text().splitlines()
        assert all({"piece", "rule"} == set(json.loads(line)["evidence"]) for line in lines)
    grade_file(tmp_path / "out.jsonl", tmp_path / "plain.jsonl", "tolerant")
    assert "evidence" not in json.loads((tmp_path / "plain.jsonl").read_text().splitlines()[0])


def test_bad_rows_are_set_aside_and_the_exit_code_tells(tmp_path):
    rows = [
        row("B"),
        "{torn",
        {**row("B"), "options": "A or B"},
        row("B", answer_label="C"),
        {"response": "B"},
        row(None),
        row("A"),
        row("B", answer_label=["B"]),
        "[" * 100_000,
        row("half \ud83d B", dataset="[/b]"),
    ]
    source = write(tmp_path / "in.jsonl", rows)
    done = CliRunner().invoke(app, ["grade", str(source), "--grader", "tolerant", "--out", str(tmp_path / "out.jsonl")])
    assert done.exit_code == 1
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
    assert "[/b]" in done.output and "Traceback" not in done.output
    refused = [json.loads(line) for line in (tmp_path / "out.jsonl.refused.jsonl").read_text().splitlines()]
    assert [(r["row"], r["column"]) for r in refused] == [
        (2, "(all)"),
        (3, "options"),
        (4, "answer_label"),
        (5, "options"),
        (6, "response"),
        (8, "answer_label"),
        (9, "(all)"),
    ]


def test_grading_again_by_another_grader_leaves_nothing_of_the_first(tmp_path):
    grade_file(write(tmp_path / "in.jsonl", [row("B")]), tmp_path / "a.jsonl", "published")
    grade_file(tmp_path / "a.jsonl", tmp_path / "b.jsonl", "tolerant")
    assert not {"reward", "online"} & set(json.loads((tmp_path / "b.jsonl").read_text()))


def test_killed_and_started_again(tmp_path, monkeypatch):
    rows = [row(f"The answer is {'AB'[i % 2]}.") if i % 7 else "{torn" for i in range(1000)]
    source = write(tmp_path / "in.jsonl", rows)
    grade_file(source, tmp_path / "whole.jsonl", "published")
    monkeypatch.setattr(module, "EVERY", 100)
    real, seen = module._grade_line, []

    def stop_at_650(line, number, *rest):
        seen.append(number)
        if number == 650 and seen.count(650) == 1:
            raise KeyboardInterrupt
        real(line, number, *rest)

    monkeypatch.setattr(module, "_grade_line", stop_at_650)
    with pytest.raises(KeyboardInterrupt):
        grade_file(source, tmp_path / "out.jsonl", "published")
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(UserError, match="another input or grader"):
        grade_file(source, tmp_path / "out.jsonl", "tolerant")
    half = (tmp_path / "out.jsonl.part").read_bytes()
    (tmp_path / "out.jsonl.part").write_bytes(half[:10])  # less than the state speaks of: it starts over
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        grade_file(source, tmp_path / "out.jsonl", "published")
    assert seen[0] == 1
    grade_file(source, tmp_path / "out.jsonl", "published")
    assert seen.count(600) == 1 and seen.count(601) == 2  # what was saved is not done again
    for end in ("", ".refused.jsonl"):
        assert (tmp_path / f"out.jsonl{end}").read_bytes() == (tmp_path / f"whole.jsonl{end}").read_bytes()
    with pytest.raises(UserError, match="exists"):
        grade_file(source, tmp_path / "out.jsonl", "published")


def test_what_stops_everything_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        grade_file(tmp_path / "none.jsonl", tmp_path / "out.jsonl", "published")
    with pytest.raises(UserError, match="unknown grader 'kind'"):
        grade_file(write(tmp_path / "in.jsonl", [row("B")]), tmp_path / "out.jsonl", "kind")
