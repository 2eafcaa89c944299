"""The command line: what it writes, and one sentence with exit code 2 for a user's mistake."""

import subprocess
import sys

import pytest

from medvlt_lib.core.records import read_questions


def medvlt(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "medvlt_lib", *arguments], capture_output=True, text=True, timeout=120)


def test_questions_are_written(tmp_path):
    out = tmp_path / "q.parquet"
    done = medvlt(
        "phantom",
        "questions",
        "--families",
        "curb65,bleed_type",
        "--n",
        "10",
        "--label-noise",
        "0.2",
        "--out",
        str(out),
    )
    assert done.returncode == 0, done.stderr
    questions = read_questions(out)
    assert len(questions) == 10
    assert sum(q.noise["label"] for q in questions) == 2
    assert "curb65" in done.stdout


def test_preview_is_a_picture(tmp_path):
    from PIL import Image

    assert medvlt("phantom", "preview", "--out", str(tmp_path / "sheet.png")).returncode == 0
    assert Image.open(tmp_path / "sheet.png").width > 1000


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["questions", "--families", "spirometry", "--out", "x.parquet"], "spirometry"),
        (["questions", "--label-noise", "1.5", "--out", "x.parquet"], "label_noise"),
        (["questions", "--n", "0", "--out", "x.parquet"], "n is 0"),
        (["questions", "--n", "4", "--out", "x.csv"], ".parquet"),
        (["build-model", "--size", "huge", "--out", "x"], "huge"),
        (["card", "--model", "no-such-folder"], "no-such-folder"),
    ],
)
def test_mistakes_are_one_sentence(arguments, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = medvlt("phantom", *arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("*")) == []


def test_eval_says_how_much_was_answered_and_which_intervals_it_shows(monkeypatch, tmp_path):
    from typer.testing import CliRunner

    from medvlt_lib.__main__ import app
    from medvlt_lib.stages import evaluate

    scores = {"questions": 10, "answers": 40, "macro": 0.5, "interval": (0.25, 0.75), "well_formed": 1.0}
    monkeypatch.setattr(
        evaluate, "run", lambda run, arm, ray: {"base": {**scores, "interval_kind": "cluster bootstrap"}}
    )
    monkeypatch.chdir(tmp_path)
    printed = " ".join(CliRunner().invoke(app, ["eval"]).output.split())
    assert "25.0 to 75.0" in printed
    assert "10 test questions (40 answers); 95 % intervals: cluster bootstrap" in printed
