"""The shipped results of the studies: every summary follows from the answers, and the texts from the results."""

import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
from IPython.core.pylabtools import print_figure
from PIL import Image

from medvlt_lib.core.files import file_hash, read_json
from medvlt_lib.core.records import Question
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.study.cells import cell
from medvlt_lib.study.figures import noise
from medvlt_lib.study.findings import as_json, judged
from medvlt_lib.study.language import TEXT
from medvlt_lib.study.noise import GROUPS, noise_points
from medvlt_lib.study.results import SHIPPED, answers_of, results_in, right_of
from medvlt_lib.study.sentences import carries_over
from medvlt_lib.study.tables import findings_markdown, summary_table

README = Path(__file__).parents[2] / "README.md"
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_analysis.ipynb"
RESULTS = results_in(SHIPPED)


def test_there_are_results_and_they_are_small():
    assert len(RESULTS) >= 30
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 10 * 2**20


def test_every_summary_follows_from_the_answers():
    for result in RESULTS.values():
        assert result["right"] == right_of(answers_of(SHIPPED, result))
        assert result.get("language", {"text": file_hash(TEXT)[:16]})["text"] == file_hash(TEXT)[:16]


def test_results_are_of_the_studies_as_they_stand():
    """A changed setting of an arm makes its results old; they are run again, not kept."""
    for result in RESULTS.values():
        assert result["key"] == cell(result["label"], result["seed"], result["profile"]).key


@pytest.fixture(scope="module")
def test_questions() -> dict[str, Question]:
    return {q.id: q for seed in range(3) for q in make_questions("all", "test", 800, seed)}


def test_answers_are_to_the_questions_of_their_seed(test_questions):
    for result in RESULTS.values():
        rows = answers_of(SHIPPED, result)
        assert {row["id"].split("-")[-2] for row in rows} == {str(result["seed"])}
        for row in rows[::50]:
            question = test_questions[row["id"]]
            assert row["dataset"] == question.family
            if row["look"] != "grey" and row["letter"]:
                assert row["correct"] == (row["letter"] == question.answer_label)


def test_findings_and_readme_are_made_of_the_results():
    every = judged(None, SHIPPED)
    assert (SHIPPED / "findings.md").read_text(encoding="utf-8") == findings_markdown(every, SHIPPED)
    assert read_json(SHIPPED / "findings.json") == json.loads(json.dumps(as_json(every)))
    assert summary_table(SHIPPED) in README.read_text(encoding="utf-8")


def test_the_figure_that_notebook_06_keeps_is_that_of_the_results():
    """Where it differs: run notebook 06, save it, and take its other outputs out with nbstripout."""
    [cell] = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.source.endswith("studies.noise(noise)")]
    drawn = print_figure(noise({name: noise_points(group) for name, group in GROUPS.items()}), "png", base64=True)
    kept, made = (
        np.asarray(Image.open(BytesIO(b64decode(png))).convert("L"), dtype=float)
        for png in (cell.outputs[0].data["image/png"], drawn)
    )
    assert kept.shape == made.shape and np.abs(kept - made).mean() < 1


def test_the_readme_says_of_the_habit_what_its_study_says():
    assert carries_over() in " ".join(README.read_text(encoding="utf-8").split())


def test_a_result_that_a_kill_left_half_written_is_none(tmp_path):
    key = min(RESULTS)
    (tmp_path / f"{key}.json").write_bytes((SHIPPED / f"{key}.json").read_bytes())
    (tmp_path / f".{key}.json.15b00719.json").write_text("")  # as `atomic_write` names it
    assert results_in(tmp_path) == {key: RESULTS[key]}
