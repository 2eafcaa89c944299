"""Shares of true steps: which answers count, in which share, and with which interval."""

from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import write_questions
from medvlt_lib.core.stats import accuracy_interval
from medvlt_lib.course.lesson import REFERENCE
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.phantom.teacher import own_trace
from medvlt_lib.phantom.true_steps import FIRST_ERRORS
from medvlt_lib.stages import steps

WRONG = {"curb65": "age 19 1, total 1", "nodule_count": "right lung 9"}  # nobody is 19, and 19 earns no point


@pytest.fixture
def files(tmp_path):
    """Of 20 questions in each of two families 8 are worked out, 5 are worked out with a false step before the true
    ones, and 7 are answered at a glance, wrongly; and one question is of another world."""
    questions = make_questions("curb65,nodule_count", "test", 40, seed=3)
    stranger = make_questions("apgar", "test", 1)[0]
    stranger.extra = {}
    write_questions([*questions, stranger], tmp_path / "test.parquet")
    rows = []
    for place, q in enumerate([*questions, stranger]):
        number, letter = place // 2, q.answer_label
        text = own_trace(q.extra["steps"], q.options, q.answer) if q.extra else ""
        if 8 <= number < 13:
            text = f"{WRONG[q.family]}. {text}"
        elif number >= 13 and q.extra:
            letter = next(key for key in q.options if key != letter)
            text = own_trace([f"at a glance {q.options[letter]}"], q.options, q.options[letter])
        rows.append(
            {
                "id": q.id, "sample": 0, "dataset": q.group, "modality": q.modality, "cluster": q.cluster,
                "letter": letter, "correct": letter == q.answer_label, "well_formed": True,
                "text": f"<think> {text} </think>\n<answer> {letter} </answer>",
            }
        )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "answers.parquet")
    return tmp_path


def test_each_share_counts_the_answers_that_it_is_of(files):
    rows = steps.step_rows(files / "answers.parquet", files / "test.parquet")
    assert len(rows) == 40  # the stranger has no facts
    for family, wrong, right in (("curb65", "rule", "arithmetic"), ("nodule_count", "perception", "arithmetic")):
        found = steps.step_shares([row for row in rows if row["dataset"] == family])
        counts = {name: (share["answers"], share["share"]) for name in steps.SHARES if (share := found[name])}
        assert counts["works"] == (20, 13 / 20)
        assert counts["all_true"] == (13, 8 / 13) and counts["right_with_working"] == (13, 1.0)
        assert counts["right_without"] == (7, 0.0) and counts["follows"][0] == 13
        assert counts[wrong] == (13, 8 / 13)
        assert found["first_errors"] == {**dict.fromkeys(FIRST_ERRORS, 0), "perception": 5, "glance": 7}
        if family == "curb65":  # every question is a cluster of its own
            assert found["works"]["interval"] == pytest.approx(accuracy_interval(13, 20)) and counts[right][0] == 13
        else:
            assert found["rule"] is None  # counting has none


def test_answers_to_one_question_widen_the_interval(files):
    """Four equal answers to each question are worth no more than one."""
    table = pq.read_table(files / "answers.parquet")
    once = steps.step_shares(steps.step_rows(files / "answers.parquet", files / "test.parquet"))["works"]
    pq.write_table(pa.concat_tables([table] * 4), files / "answers.parquet")
    often = steps.step_shares(steps.step_rows(files / "answers.parquet", files / "test.parquet"))["works"]
    assert (often["answers"], often["share"]) == (160, once["share"])
    width = [share["interval"][1] - share["interval"][0] for share in (once, often)]
    assert width[1] == pytest.approx(width[0], rel=0.15)


def test_the_reference_arms_as_tables():
    """What is no glance states a working, which the answers of these arms show by their own words."""
    rows = []
    for arm in ("base", "rl_text"):
        own = steps.step_rows(REFERENCE / "05_eval" / arm / "answers.parquet", REFERENCE / "01_data" / "test.parquet")
        glances = sum("at a glance" in row["text"] for row in own)
        shares = steps.step_shares(own)
        assert len(own) == 200 and shares["works"]["share"] == pytest.approx(1 - glances / 200)
        rows.append({"arm": arm, "modality": "all", **shares})
    assert rows[1]["works"]["share"] > rows[0]["works"]["share"]
    head, base, _ = steps.table(rows)
    assert len(head) == len(base) == 3 + len(steps.SHARES) and base[:3] == ("base", "all", "200")
    assert base[3].startswith(f"{100 * rows[0]['works']['share']:.1f} (")
    errors = steps.error_table(rows)
    assert len(errors[0]) == len(errors[1]) == 2 + len(FIRST_ERRORS)


def test_nothing_to_check_gives_no_rows(files):
    rows = steps.step_rows(files / "answers.parquet", files / "test.parquet")
    empty = steps.step_shares([])
    assert empty["answers"] == 0 and all(empty[name] is None for name in steps.SHARES)
    assert steps.table([]) == [("arm", "questions", "answers", *steps.SHARES.values())] and rows


def test_the_steps_of_one_answer_are_those_of_its_row(files):
    questions = {q.id: q for q in QuestionFiles([files / "test.parquet"])}
    for row in steps.step_rows(files / "answers.parquet", files / "test.parquet"):
        stated = steps.steps_of(row, questions[row["id"]])
        assert stated is not None and asdict(stated) == row["steps"]
    [stranger] = [q for q in questions.values() if q.family == "apgar"]
    assert steps.steps_of({"text": "", "letter": "A", "well_formed": True}, stranger) is None
