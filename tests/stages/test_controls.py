"""Stage 05b on a tiny model: what is asked, how it goes on after a kill, and that a model that looks is told apart."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core import control_rows as names
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Question, write_questions
from medvlt_lib.core.runs import open_run
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import controls, data, evaluate

TEST = "phantom:curb65,cardiothoracic_ratio,nodule_count"
SETTINGS = {
    "model.name": "phantom:small", "data.test": TEST, "data.test_size": 60, "data.train_text_size": 4,
    "data.train_image_size": 4, "data.validation_size": 4, "eval.max_new_tokens": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    opened = open_run("tiny", "controlled", SETTINGS, root=tmp_path_factory.mktemp("home") / "runs")
    data.run(opened)
    return opened


@pytest.fixture(scope="module")
def rows(run) -> dict[str, dict]:
    return {row["control"]: row for row in controls.run(run)["base"]}


def test_every_control_asks_the_same_image_questions_once(run, rows):
    assert list(rows) == [names.AS_ASKED, *names.CONTROLS]
    folder = run.folder / "05b_controls" / "base"
    answers = pq.read_table(folder / "answers.parquet").to_pylist()
    test = {q.id: q for q in QuestionFiles([run.folder / "01_data" / "test.parquet"])}
    pictured = {name for name, q in test.items() if q.images}
    assert len(pictured) == 40
    for name in names.CONTROLS:
        assert Counter(r["question"] for r in answers if r["control"] == name) == Counter(dict.fromkeys(pictured, 1))
    assert all(r["cluster"] == test[r["question"]].cluster for r in answers)
    assert {p.name for p in folder.iterdir()} == {"stage.json", "answers.parquet", "controls.json", "metrics.json"}
    assert read_json(folder / "metrics.json") == {name: row["macro"] for name, row in rows.items()}


def test_each_control_changes_what_it_says(run, rows):
    """The model was shown nothing in grey; it thinks less with no-think, and is cut off at a quarter of the tokens."""
    folder = run.folder / "05b_controls" / "base"
    answers = pq.read_table(folder / "answers.parquet").to_pylist()
    assert max(r["tokens"] for r in answers if r["control"] == names.SHORT) == 16
    assert rows[names.SHORT]["truncated"] >= rows[names.AS_ASKED]["truncated"]
    asked = {r["id"]: r for r in pq.read_table(run.folder / "05_eval/base/answers.parquet").to_pylist()}
    own = {r["question"]: r for r in answers if r["control"] == names.REORDERED}
    assert all(r["answer_label"] != asked[q]["answer_label"] for q, r in own.items())
    assert rows[names.AS_ASKED]["macro"] == pytest.approx(
        sum(asked[q]["correct"] for q in own) / len(own)
    )  # the two families have as many questions each
    chance = sum(1 / asked[q]["options"] for q in own) / len(own)
    assert all(row["chance"] == pytest.approx(chance) for row in rows.values())


def test_killed_in_the_middle_it_asks_only_what_is_missing(run, rows, tmp_path, monkeypatch):
    again = open_run("tiny", "killed", SETTINGS, root=tmp_path)
    data.run(again)
    evaluate.run(again)
    asked: list[str] = []
    real = controls.control_answers

    def counted(engine, questions, profile):
        if len(asked) >= 128:
            raise KeyboardInterrupt
        asked.extend(q.id for q in questions)
        yield from real(engine, questions, profile)

    with monkeypatch.context() as patched:
        patched.setattr(controls, "control_answers", counted)
        with pytest.raises(KeyboardInterrupt):
            controls.run(again)
    assert len(asked) == 128 and not (again.folder / "05b_controls/base/metrics.json").exists()

    def rest(engine, questions, profile):
        asked.extend(q.id for q in questions)
        yield from real(engine, questions, profile)

    monkeypatch.setattr(controls, "control_answers", rest)
    controls.run(again)
    assert len(asked) == len(set(asked)) == 240
    for name in ("answers.parquet", "controls.json", "metrics.json"):
        both = [(r.folder / "05b_controls/base" / name).read_bytes() for r in (run, again)]
        assert both[0] == both[1], name
    controls.run(again)
    assert len(asked) == 240  # finished work is not done again
    known = {r["id"]: r for r in pq.read_table(again.folder / "05b_controls/base/answers.parquet").to_pylist()}
    monkeypatch.setattr(
        controls, "control_answers", lambda engine, questions, profile: (known[q.id] for q in questions)
    )
    assert controls.run(again, every=True)["base"] == list(rows.values())  # there are only 40, so it is the same again
    assert read_json(again.folder / "05b_controls/base/stage.json")["settings"]["controls.questions"] == "all"


def test_a_hundred_questions_are_spread_over_the_families(tmp_path):
    questions = make_questions("nodule_count,cup_to_disc_ratio,curb65", "test", 90)
    ordered = sorted(questions, key=lambda q: q.group)  # data sets one after the other, as published files have them
    write_questions(ordered, tmp_path / "test.parquet")
    files = QuestionFiles([tmp_path / "test.parquet"])
    chosen = [ordered[place] for place in controls.fixed_places(files, 21)]
    assert Counter(q.group for q in chosen) == {"cup_to_disc_ratio": 11, "nodule_count": 10}
    assert len(controls.fixed_places(files, None)) == 60
    write_questions([q for q in questions if not q.images], tmp_path / "text.parquet")
    with pytest.raises(UserError, match="no image questions"):
        controls.fixed_places(QuestionFiles([tmp_path / "text.parquet"]), 100)


def test_what_another_picture_shows_counts_only_where_it_was_asked_for():
    def question(name: str, stem: str, answer: str, picture: bytes) -> Question:
        options = {"A": "0", "B": "1", "C": "2"}
        label = "ABC"[int(answer)]
        return Question(
            name, "set", "test", "image", stem, options, label, answer, images=[picture], image_ids=[str(picture)]
        )

    asked = [
        question("a", "How many?", "0", b"x"), question("b", "How many?", "1", b"y"), question("c", "Which?", "2", b"z")
    ]  # fmt: skip
    with_other = variants_of(asked)
    assert {q.extra["question"]: q.extra["shown"] for q in with_other} == {"a": "1", "b": None, "c": None}


def variants_of(questions):
    """Those with another's picture (grey ones would need readable pictures)."""
    from unittest.mock import patch

    with patch("medvlt_lib.core.variants.grey", side_effect=lambda q: q):
        return [q for q in controls.asked_otherwise(questions) if q.extra["control"] == names.OTHER]


def test_the_readme_says_what_was_recorded():
    root = Path(__file__).parents[2]
    recorded = read_json(root / "benchmarks" / "controls_cost.json")["arms"]["sft_text"]["controls"]
    rows, readme = {row["control"]: row for row in recorded}, " ".join((root / "README.md").read_text().split())
    asked, bare, moved = (100 * rows[name]["macro"] for name in (names.AS_ASKED, names.NO_PICTURE, names.REORDERED))
    other, chance = rows[names.OTHER], 100 * rows[names.NO_PICTURE]["chance"]
    assert f"falls from {asked:.1f} % to {bare:.1f} % without the picture (guessing: {chance:.1f} %)" in readme
    assert f"stays at {moved:.1f} % with the options in another order" in readme
    assert f"{100 * other['other_named']:.0f} % of the {other['other_shown']} cases" in readme


def test_the_command_shows_the_table_and_the_report_has_it(run, rows, monkeypatch):
    monkeypatch.chdir(run.folder.parents[1])
    done = CliRunner().invoke(app, ["controls", "--run", "controlled", "--arm", "base"])
    shown = " ".join(done.output.split())
    assert done.exit_code == 0 and "no picture" in shown and "40 image questions" in shown
    done = CliRunner().invoke(app, ["report", "--run", "controlled"])
    page = (run.folder / "06_analysis" / "report.html").read_text()
    assert done.exit_code == 0 and "Controls of <bdi>base</bdi>" in page and "another&#39;s picture" in page
