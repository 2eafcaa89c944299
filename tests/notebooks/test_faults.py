"""A notebook that breaks, leaves early, is called wrongly or dies is an error that names notebook and cell."""

import copy

import nbformat
import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.course.lesson import NOTEBOOKS
from medvlt_lib.course.runner import run_course

BROKEN = {
    "a broken cell": ("1 / 0", "cell 5.*ZeroDivisionError"),
    "sys.exit": ("import sys\n\nsys.exit(0)", "cell 5.*exit"),
    "a killed kernel": ("import os\n\nos.kill(os.getpid(), 9)", "cell 5"),
    "a user's mistake": ("run.require('02')", "cell 5.*medvlt filter"),
}


@pytest.fixture(scope="module")
def original():
    """The real 01_data notebook, shortened to its setup and its last cell."""
    notebook = nbformat.read(NOTEBOOKS / "01_data.ipynb", as_version=4)
    head = next(i for i, c in enumerate(notebook.cells) if "lesson.begin" in c.source)
    notebook.cells = [*notebook.cells[: head + 1], nbformat.v4.new_code_cell("lesson.finish(run, '01_data')")]
    return notebook


def course(tmp_path, monkeypatch, notebook, parameters=None):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir(exist_ok=True)
    nbformat.write(notebook, tmp_path / "notebooks" / "01_data.ipynb")
    return run_course("tiny", "faulty", parameters=parameters, folder=tmp_path / "notebooks")


def test_the_unbroken_notebook_passes_and_is_not_run_twice(tmp_path, monkeypatch, original, capsys):
    course(tmp_path, monkeypatch, original)
    course(tmp_path, monkeypatch, original)
    assert "01_data: done before" in capsys.readouterr().out


@pytest.mark.parametrize("fault", BROKEN)
def test_faults_are_named(tmp_path, monkeypatch, original, fault):
    source, words = BROKEN[fault]
    notebook = copy.deepcopy(original)
    notebook.cells.insert(len(notebook.cells) - 1, nbformat.v4.new_code_cell(source))
    with pytest.raises(UserError, match=f"01_data, {words}"):
        course(tmp_path, monkeypatch, notebook)
    assert not (tmp_path / "runs" / "faulty" / "notebooks" / "01_data.metrics.json").exists()


def test_a_missing_metrics_file_is_an_error(tmp_path, monkeypatch, original):
    notebook = copy.deepcopy(original)
    notebook.cells[-1].source = "pass"
    with pytest.raises(UserError, match=r"01_data, last cell.*metrics"):
        course(tmp_path, monkeypatch, notebook)


def test_an_unknown_parameter_is_an_error(tmp_path, monkeypatch, original):
    with pytest.raises(UserError, match="01_data has no parameter CHEKED"):
        course(tmp_path, monkeypatch, original, {"CHEKED": 3})


def test_a_wrong_setting_stops_before_any_kernel(tmp_path, monkeypatch, original):
    with pytest.raises(UserError, match=r"data\.sise"):
        course(tmp_path, monkeypatch, original, {"SETTINGS": {"data.sise": 3}})
    assert not (tmp_path / "runs").exists()
