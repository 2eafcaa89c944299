"""Badges and the cell that installs: there once the project has a home, and doing what `make setup` does."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.course import badges
from medvlt_lib.course.lesson import NOTEBOOKS

ROOT = Path(__file__).parents[2]
URL = "https://github.com/owner/name"


@pytest.fixture
def notebook():
    """Notebook 00 without badges, whether the project has a home by now or not."""
    return badges.with_badges(nbformat.read(NOTEBOOKS / badges.START, as_version=4), None)


def code(notebook) -> str:
    [cell] = [c for c in notebook.cells if c.id == "00-install"]
    return cell.source


def test_the_notebook_is_as_the_setting_wants_it(notebook):
    home = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {}).get("Repository")
    assert badges.repository() == home
    kept = nbformat.read(NOTEBOOKS / badges.START, as_version=4)
    assert nbformat.writes(badges.with_badges(notebook, home)) == nbformat.writes(kept), "run `medvlt exercises`"
    assert "colab" not in json.dumps(notebook).lower() and "git clone" not in json.dumps(notebook)


def test_with_a_home_both_badges_open_this_notebook(notebook):
    made = badges.with_badges(notebook, URL + ".git")
    nbformat.validate(made)
    assert made.cells[0] == notebook.cells[0] and made.cells[3:] == notebook.cells[1:]
    text = made.cells[1].source
    assert "https://colab.research.google.com/github/owner/name/blob/main/notebooks/00_start_here.ipynb" in text
    assert "https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/00_start_here.ipynb" in text
    assert badges.with_badges(made, URL) == made and badges.with_badges(made, None) == notebook


def test_a_home_elsewhere_is_refused(notebook):
    with pytest.raises(UserError, match=r"github\.com/OWNER/NAME"):
        badges.with_badges(notebook, "https://example.org/owner/name")


def test_outside_a_checkout_a_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(badges, "PROJECT", tmp_path / "pyproject.toml")
    with pytest.raises(UserError, match="in a checkout"):
        badges.put_badges()


def test_it_installs_what_setup_installs(notebook):
    """The same requirements, without torch where it is there, and then the project without its dependencies."""
    cell, makefile = code(badges.with_badges(notebook, URL)), (ROOT / "Makefile").read_text()
    setup = makefile[makefile.index("$(VENV)/.ready:") : makefile.index("$(VENV)/.ready-smol:")].replace(
        "$(VENV)/rest.txt", "rest.txt"
    )
    pip = r"pip install (--disable-pip-version-check -q (?:-r|--no-deps).*)"
    assert re.findall(pip, cell) == re.findall(pip, setup) and len(re.findall(pip, cell)) == 2
    [picks] = re.findall(r"grep -vE '.+?' \S+ > rest\.txt", cell)
    assert picks in setup
    assert f"git clone --depth 1 {URL} medvlt\n    %cd medvlt\n" in cell


def test_its_commands_run(notebook, tmp_path):
    """Cloned from here, the requirements lie where the cell looks for them; pip is not asked."""
    cell = code(badges.with_badges(notebook, URL)).replace(URL, ROOT.as_uri())
    commands = [c.split("  #")[0] for c in re.findall(r"^    !(.+)$", cell, re.M)]
    assert commands[0].startswith("git clone") and commands[1].startswith("grep")
    cloned = subprocess.run(commands[0], shell=True, cwd=tmp_path, capture_output=True, text=True)
    if cloned.returncode:
        pytest.skip(f"this is no repository to clone: {cloned.stderr[-200:]}")
    subprocess.run(commands[1], shell=True, cwd=tmp_path / "medvlt", check=True)
    lines = (tmp_path / "medvlt" / "rest.txt").read_text().splitlines()
    assert not [line for line in lines if line.startswith("torch==")] and len(lines) > 100
    assert (tmp_path / "medvlt" / "medvlt_lib" / "__init__.py").is_file()


def test_the_cell_does_nothing_where_the_library_is_there(notebook):
    from IPython.core.inputtransformer2 import TransformerManager

    source = TransformerManager().transform_cell(code(badges.with_badges(notebook, URL)))
    exec(source, {"get_ipython": lambda: pytest.fail("a command was run")})


def test_its_lines_are_read_without_scrolling(notebook):
    assert max(map(len, code(badges.with_badges(notebook, URL)).splitlines())) <= 88


def test_binder_installs_the_same():
    assert (ROOT / ".binder" / "requirements.txt").read_text() == "-r ../requirements/cpu.txt\n"
    assert "pip install --disable-pip-version-check -q --no-deps -e ." in (ROOT / ".binder" / "postBuild").read_text()
    assert (ROOT / ".binder" / "runtime.txt").read_text() == "python-3.11\n"
