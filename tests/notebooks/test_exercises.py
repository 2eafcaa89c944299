"""The exercises: one source in the notebooks, a page for learners made from it, and a form that both keep."""

import dis
import re
import types
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import medvlt_lib
from medvlt_lib.course.exercises import exercises_of, write_exercises
from medvlt_lib.course.lesson import NOTEBOOKS
from tests.notebooks.test_form import is_of_an_exercise, relative_links

NAMES = ["01_data", "02_filtering", "03_sft", "04_grpo", "05_eval", "06_analysis"]
PAGES = NOTEBOOKS / "exercises"
HEAD = re.compile(r"### Exercise (\d): (.+) \((core|stretch), (\d+) min\)\n\n")
HINT = re.compile(r"<details><summary>Hint</summary>\n\n(.+?)\n\n</details>$", re.DOTALL)


def read(path):
    return nbformat.read(path, as_version=4)


def tags(cell):
    return set(cell.metadata.get("tags", [])) & {"exercise", "solution", "check"}


def test_the_committed_pages_are_those_that_the_notebooks_make(tmp_path):
    made = write_exercises(tmp_path)
    assert [p.name for p in made] == [f"{name}.ipynb" for name in NAMES] == sorted(p.name for p in PAGES.iterdir())
    for page in made:
        assert page.read_bytes() == (PAGES / page.name).read_bytes(), "run `medvlt exercises`"
        nbformat.validate(read(page))


@pytest.mark.parametrize("name", NAMES)
def test_form_of_exercises(name):
    """Task with hint, stub, solution and check, in this order; the minutes add up to those that the notebook names."""
    notebook = read(NOTEBOOKS / f"{name}.ipynb")
    own = [c for c in notebook.cells if is_of_an_exercise(c)]
    assert own[0].source.removeprefix("%matplotlib inline\n") == "from medvlt_lib.course import checks"
    exercises = [own[i : i + 4] for i in range(1, len(own), 4)]
    kinds, minutes = [], 0
    for number, (task, stub, solution, check) in enumerate(exercises, 1):
        head = HEAD.match(task.source)
        assert int(head[1]) == number and len(HINT.findall(task.source)) == 1
        assert [tags(c) for c in (task, stub, solution, check)] == [{"exercise"}] * 2 + [{"solution"}, {"check"}]
        assert "your code" in stub.source or "your answer" in stub.source
        assert solution.metadata.jupyter.source_hidden and re.fullmatch(r"checks\.\w+\(\w+\)", check.source)
        kinds.append(head[3])
        minutes += int(head[4])
    assert len(exercises) >= 3 and {"core", "stretch"} == set(kinds)
    assert f"exercises {minutes} min" in " ".join(notebook.cells[0].source.split())
    assert any(c.source.startswith(f"## Exercises\n\nAbout {minutes} minutes") for c in notebook.cells)


def names(source) -> list[tuple[str, str]]:
    """The kernel's names that a cell writes or reads, in order; a function reads when it is called, so at the end."""
    waiting, found = [compile(source.replace("%matplotlib", "# "), "cell", "exec")], []
    while waiting:
        now = waiting.pop(0)
        what = ("STORE_NAME", "LOAD_NAME", "LOAD_GLOBAL")
        found += [(i.argval, i.opname) for i in dis.get_instructions(now) if i.opname in what]
        waiting += [c for c in now.co_consts if isinstance(c, types.CodeType)]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_exercise_changes_no_name_that_a_later_cell_reads(name):
    """Else the solution would alter what the notebook shows or records."""
    cells = [c for c in read(NOTEBOOKS / f"{name}.ipynb").cells if c.cell_type == "code"]
    last = max(i for i, c in enumerate(cells) if is_of_an_exercise(c))
    changed = {n for c in cells if is_of_an_exercise(c) for n, what in names(c.source) if what == "STORE_NAME"}
    for cell in cells[last + 1 :]:
        for changed_or_read, what in names(cell.source):
            if what == "STORE_NAME":
                changed.discard(changed_or_read)
            assert what == "STORE_NAME" or changed_or_read not in changed, cell.source


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_stubs_and_folded_solutions_and_runs_without_the_course(name, monkeypatch, tmp_path, capsys):
    """Every check says that nothing is there; with the folded code pasted in, that it is right."""
    monkeypatch.chdir(tmp_path)
    page, source = read(PAGES / f"{name}.ipynb"), read(NOTEBOOKS / f"{name}.ipynb")
    solutions = [c.source for c in source.cells if "solution" in tags(c)]
    form = re.compile(r"Solution</summary>\n\n```python\n(.+)\n```", re.DOTALL)
    folded = [m[1] for c in page.cells if (m := form.search(c.source))]
    assert folded == solutions and not any("solution" in tags(c) for c in page.cells)
    assert "not for clinical use" in page.cells[0].source
    assert all(
        (PAGES / link).exists() for c in page.cells if c.cell_type == "markdown" for link in relative_links(c.source)
    )
    here, lines = {}, []
    waiting = iter(folded)
    for cell in [c for c in page.cells if c.cell_type == "code"]:
        exec(cell.source.removeprefix("%matplotlib inline\n"), here)
        printed = capsys.readouterr().out
        if "check" in tags(cell):
            exec(next(waiting), here)
            exec(cell.source, here)
            lines.append((printed, capsys.readouterr().out))
    assert len(lines) == len(solutions)
    assert all(before.startswith("Nothing is there yet") and after.startswith("Right. ") for before, after in lines)


def test_a_page_runs_in_a_kernel_as_it_is(monkeypatch, tmp_path):
    """From its own folder, stubs left: no cell fails, every check speaks, and the figure is a picture."""
    monkeypatch.setenv("PYTHONPATH", str(Path(medvlt_lib.__file__).parents[1]))
    page = NotebookClient(read(PAGES / "04_grpo.ipynb"), resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = ["".join(o.get("text", "") for o in c.outputs) for c in page.cells if "check" in tags(c)]
    assert len(said) == 5 and all(line.startswith("Nothing is there yet") for line in said)
    assert any("image/png" in o.get("data", {}) for c in page.cells for o in c.get("outputs", []))


def test_a_notebook_without_exercises_makes_no_page():
    assert exercises_of(read(NOTEBOOKS / "00_start_here.ipynb"), "00_start_here.ipynb") is None
