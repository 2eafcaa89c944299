"""`medvlt lesson status`: what is noted, when, and what is shown."""

import json
import multiprocessing
import os
import re

import pytest
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.course import checks, progress
from medvlt_lib.course.status import exercises, status


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDVLT_LESSON", str(tmp_path / "passed"))
    monkeypatch.setattr(progress, "_page", [])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "passed"


def keep(counts, low, high):
    return sorted((n for n in counts if low <= counts[n] <= high), key=counts.get, reverse=True)


def test_a_pass_is_noted_on_an_exercise_page_alone(folder, capsys):
    checks.keep(keep)
    assert capsys.readouterr().out.startswith("Right.") and not folder.exists()  # in a notebook, a run or a test
    progress.begin("02_filtering")
    checks.keep(lambda *_: [])
    checks.keep(None)
    assert not folder.exists()
    checks.keep(keep)
    assert [p.name for p in folder.iterdir()] == ["02_filtering.keep"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d\n", (folder / "02_filtering.keep").read_text())


def test_exercises_that_are_answered_by_names_are_noted_too(folder, capsys):
    from medvlt_lib.course.curves import RUNS

    progress.begin("04_grpo")
    checks.curves({run: cause for run, (cause, _) in RUNS.items()})
    assert [p.name for p in folder.iterdir()] == ["04_grpo.curves"]


def test_a_folder_that_cannot_be_written_is_no_learner_s_mistake(folder, capsys):
    folder.write_text("a file where the folder should be")
    progress.begin("02_filtering")
    checks.keep(keep)
    assert capsys.readouterr().out == "Right. The band with both its ends, easy before hard.\n"


def noting(notebook: str) -> None:
    progress.begin(notebook)
    for i in range(40):
        progress.note(f"check{i % 8}")


def test_two_kernels_at_once_spoil_nothing(folder):
    started = [multiprocessing.get_context("fork").Process(target=noting, args=("02_filtering",)) for _ in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0]
    assert sorted(p.name for p in folder.iterdir()) == [f"02_filtering.check{i}" for i in range(8)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d\n", p.read_text()) for p in folder.iterdir())


def test_every_exercise_is_known_by_its_check():
    known = exercises()
    assert list(known) == sorted(known) and {"01_data", "02_filtering", "03_sft", "04_grpo"} <= set(known)
    assert known["02_filtering"]["keep"] == ("the keep rule", 5)
    assert all(callable(getattr(checks, check)) for own in known.values() for check in own)


def test_status_shows_runs_passes_and_what_is_left(tmp_path):
    before = {row[0]: row[1:] for row in status()}
    assert before["02_filtering"][:2] == ("not yet", "0 of 3") and before["00_start_here"] == (
        "not yet",
        "none here",
        "",
    )
    for run in ("tiny", "mine"):
        (tmp_path / "runs" / run / "notebooks").mkdir(parents=True)
        (tmp_path / "runs" / run / "notebooks" / "02_filtering.metrics.json").write_text(json.dumps({}))
    progress.begin("02_filtering")
    checks.keep(keep)
    now = {row[0]: row[1:] for row in status()}
    assert now["02_filtering"][:2] == ("mine, tiny", "1 of 3")
    assert "the keep rule" not in now["02_filtering"][2] and "pass@k (10 min)" in now["02_filtering"][2]
    assert now["03_sft"] == before["03_sft"]


def test_the_command_prints_it_and_where_passes_are(folder):
    done = CliRunner().invoke(app, ["lesson", "status"])
    assert done.exit_code == 0
    told = " ".join(done.output.split())
    assert "04_grpo" in told and "not yet" in told and os.path.basename(folder) in told
