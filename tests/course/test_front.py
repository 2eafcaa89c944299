"""The README's first screen says what the reference run holds, and the stated times are those that are computed."""

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medvlt_lib.core.files import read_jsonl
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import read_questions
from medvlt_lib.course import front
from medvlt_lib.course.lesson import NOTEBOOKS, REFERENCE, RESULTS
from medvlt_lib.course.runner import notebooks
from medvlt_lib.course.times import minutes, stated, whole_course

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def answers(arm: str) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(REFERENCE / "05_eval" / arm / "answers.parquet").to_pylist()}


def test_the_readme_s_first_screen_is_the_made_one():
    assert front.first_screen() in README, "run `medvlt table`"
    assert README.index("reference-question.png") < README.index("make course")


def test_its_answers_are_those_of_the_reference_run():
    """Read from the files again, not by what made the screen."""
    screen = README[: README.index("make course")]
    [question] = [q for q in read_questions(REFERENCE / "01_data" / "test.parquet") if q.id == front.SHOWN]
    base, trained = answers("base")[front.SHOWN], answers(front.ARM)[front.SHOWN]
    assert question.question in screen and all(f"{k}. {v}" in screen for k, v in question.options.items())
    assert not base["correct"] and trained["correct"] and trained["letter"] == question.answer_label
    for row, verdict in ((base, "wrong"), (trained, "right")):
        thought, letter = re.search(r"<think> (.+?) </think>\s*<answer> (\w) </answer>", row["text"]).groups()
        assert f"{thought} **{letter}** | {verdict} |" in screen


def test_its_counts_and_its_curve_are_those_of_the_reference_run():
    screen = " ".join(README[: README.index("make course")].split())
    before, after = answers("base"), answers(front.ARM)
    pairs = [(row["correct"], after[key]["correct"]) for key, row in before.items() if row["modality"] == "image"]
    better, worse = pairs.count((False, True)), pairs.count((True, False))
    assert (
        f"{len(pairs)} test questions with a picture {better} were wrong before and right afterwards, and {worse}"
        in screen
    )
    log = read_jsonl(REFERENCE / "04_grpo" / front.ARM / "log.jsonl")
    rewards = [float(row["reward"]) for row in log if "reward" in row]
    assert f"after {len(rewards)} steps" in screen
    assert f"goes from {np.mean(rewards[:5]):.2f} to {np.mean(rewards[-5:]):.2f}" in screen


def test_its_pictures_are_drawn_from_the_reference_run(tmp_path):
    question, curve = (Image.open(RESULTS / name) for name in (front.QUESTION, front.REWARD))
    [asked] = [q for q in read_questions(REFERENCE / "01_data" / "test.parquet") if q.id == front.SHOWN]
    drawn = np.array(load_image(asked.images[0]))
    assert (np.array(question)[1::3, 1::3] == drawn).all()  # three times as large
    assert json.loads(curve.text["rewards"]) == front.reward_curve()
    for path in front.draw(tmp_path):
        assert Image.open(path).size == Image.open(RESULTS / path.name).size
        assert path.stat().st_size < 60_000


def test_reading_is_counted_in_words_and_exercises_as_they_say():
    page = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("word " * 501),
            nbformat.v4.new_code_cell("x = 1\n" * 167),
            nbformat.v4.new_markdown_cell(
                "### Exercise 1: a (core, 5 min)\n\n" + "word " * 999, metadata={"tags": ["exercise"]}
            ),
            nbformat.v4.new_markdown_cell("### Exercise 2: b (stretch, 10 min)\n", metadata={"tags": ["exercise"]}),
        ]
    )
    assert minutes(page) == (15, 15)  # 1,002 words: a little over ten minutes
    assert "Reading 15 min" in stated(page) and "exercises 15 min, together 30 min" in stated(page)


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_the_stated_times_are_the_computed_ones(path):
    notebook = nbformat.read(NOTEBOOKS / path.name, as_version=4)
    assert stated(notebook) in " ".join(notebook.cells[0].source.split()), "run `medvlt exercises`"
    assert "an estimate" in stated(notebook)


def test_the_whole_is_the_sum():
    both = [minutes(nbformat.read(path, as_version=4)) for path in notebooks()]
    assert whole_course() == tuple(map(sum, zip(*both, strict=True)))
