"""What notebooks share: runs that start from the reference, launch commands, and sentences instead of tracebacks."""

from contextlib import contextmanager

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json
from medvlt_lib.core.records import Verdict
from medvlt_lib.core.runs import open_run
from medvlt_lib.course import lesson
from medvlt_lib.phantom.questions import make_questions


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_notebook_starts_from_the_reference_run():
    run = lesson.begin("06_analysis", "tiny", None, 42, {}, use_reference=True)
    assert run.folder.name == "reference"
    assert (run.require("05", "rl_text") / "scores.json").is_file()
    assert not (run.folder / "06_analysis").exists()  # that is this notebook's own work
    assert run.profile.model.lora is not None


def test_the_reference_is_small_and_names_no_machine():
    files = [p for p in lesson.REFERENCE.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 6_000_000
    for path in files:
        if path.suffix in (".json", ".jsonl", ".md"):
            assert not any(words in path.read_text() for words in ("/home", "/tmp", "/root", "site-packages")), path


def test_another_profile_cannot_start_from_the_reference():
    with pytest.raises(UserError, match="reference run has profile tiny, not tiny-qlora"):
        lesson.begin("05_eval", "tiny-qlora", None, 42, {}, use_reference=True)


def test_notebooks_and_command_line_make_the_same_run():
    """With default parameters every setting is the profile's own."""
    run = lesson.begin("01_data", "tiny", None, 42, {})
    assert run.profile == open_run("tiny", "other").profile


def test_the_metrics_file_is_removed_at_the_start_and_written_at_the_end():
    run = lesson.begin("01_data", "tiny", None, 42, {})
    lesson.finish(run, "01_data", answer=1)
    path = run.folder / "notebooks" / "01_data.metrics.json"
    assert read_json(path)["answer"] == 1
    lesson.begin("01_data", "tiny", None, 42, {})
    assert not path.exists()


def test_full_profiles_print_how_to_launch_them(capsys):
    assert not lesson.trains_here(open_run("full-3b", None), "grpo --arm rl_text")
    printed = capsys.readouterr().out
    assert (
        "accelerate launch" in printed
        and "-m medvlt_lib grpo --arm rl_text --run full-3b" in printed
        and "trl vllm-serve" in printed
    )
    assert lesson.trains_here(open_run("tiny", None), "grpo --arm rl_text")


def test_a_users_mistake_shows_as_one_sentence_in_a_notebook():
    assert UserError("no such profile.")._render_traceback_() == ["error: no such profile."]


def test_jupyter_started_in_the_notebooks_folder_works_in_the_project(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    lesson.begin("01_data", "tiny", None, 42, {})
    assert (tmp_path / "runs" / "tiny" / "manifest.json").is_file()


@pytest.mark.parametrize("notebook", sorted(p.stem for p in lesson.NOTEBOOKS.glob("*.ipynb")))
def test_five_settings_are_shown_at_once_and_every_other_one_can_be_opened(notebook):
    run = lesson.begin(notebook, "tiny", None, 42, {})
    with captured() as shown:
        lesson._show_setup(run, notebook)
    first, *folded = shown
    settings = {k: v for k, v in run.settings(*lesson.SECTIONS[notebook[:2]]).items() if v is not None}
    at_once = [key for key in settings if f">{key}<" in first]
    assert 1 <= len(at_once) <= 5
    assert len(at_once) == len(settings) or folded[0].startswith("<details><summary>")
    assert all(f">{key}<" in "".join(shown) for key in settings)


def test_the_end_shows_what_it_took_here_beside_what_was_recorded():
    run = lesson.begin("01_data", "tiny", None, 42, {})
    with captured() as shown:
        lesson.finish(run, "01_data")
    seconds = read_json(lesson.RESULTS / "course-tiny.json")["notebooks"]["01_data"]["seconds"]
    here = read_json(run.folder / "notebooks" / "01_data.metrics.json")["peak_memory_mb"]
    assert f">recorded</td><td style='text-align:left'>{seconds:.0f}<" in shown[0] and f">{here}<" in shown[0]


def test_an_answer_is_shown_with_its_question_the_gold_option_and_its_reward():
    [question] = make_questions("curb65", "train", 1)
    right = Verdict(question.answer_label, True, "answer block", True, False, 1.0)
    with captured() as shown:
        lesson.show_answers(question, [("<answer>", right)])
    assert f"{question.answer_label}. {question.answer} ← gold" in shown[0]
    assert "right</b>, reward 1<br>" in shown[0] and "&lt;answer&gt;" in shown[0]


@contextmanager
def captured():
    """The HTML that is displayed meanwhile."""
    from unittest.mock import patch

    shown: list[str] = []
    with patch("IPython.display.display", lambda thing: shown.append(thing.data)):
        yield shown
