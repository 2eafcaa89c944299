"""Notebook 00 opened from the web: badges for Colab and Binder, and a cell that installs, once the project has a home.

The one setting is `Repository` under [project.urls] in pyproject.toml, a repository on GitHub. While it is not set,
notebook 00 has neither. `.binder/` says what Binder installs. Nothing of this was tried on Colab or Binder.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import write_text
from medvlt_lib.course.lesson import NOTEBOOKS

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
START = "00_start_here.ipynb"
INSTALL = """\
from importlib.util import find_spec

if find_spec("medvlt_lib") is None:  # opened alone, as on Colab: bring the rest
    !git clone --depth 1 {url} medvlt
    %cd medvlt
    !grep -vE '^torch==' requirements/cpu.txt > rest.txt  # keep torch
    %pip install --disable-pip-version-check -q -r rest.txt
    %pip install --disable-pip-version-check -q --no-deps -e ."""


def repository() -> str | None:
    """The project's home, where pyproject.toml names one. Raises UserError outside a checkout, where it is missing."""
    if not PROJECT.is_file():
        raise UserError(f"there is no file {PROJECT}; run this in a checkout of the project.")
    return tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"].get("urls", {}).get("Repository")


def with_badges(notebook: NotebookNode, url: str | None) -> NotebookNode:
    """The notebook with badges and the cell that installs below its title; without them where `url` is None.

    Raises UserError for a home that is not on GitHub: Colab and Binder would not find it.
    """
    cells = [c for c in notebook.cells if "install" not in c.metadata.get("tags", [])]
    if url:
        found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", url)
        if not found:
            raise UserError(f"Repository is {url} in pyproject.toml; name it as https://github.com/OWNER/NAME.")
        name, tag = found[1], {"tags": ["install"]}
        colab = f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{START}"
        binder = f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/notebooks/{START}"
        badges = (
            f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n"
            f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
        )
        code = INSTALL.format(url=f"https://github.com/{name}")
        cells[1:1] = [
            nbformat.v4.new_markdown_cell(badges, id="00-badges", metadata=tag),
            nbformat.v4.new_code_cell(code, id="00-install", metadata=tag),
        ]
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def put_badges() -> None:
    """Write notebook 00 with the badges that the setting asks for, or without."""
    notebook = nbformat.read(NOTEBOOKS / START, as_version=4)
    write_text(NOTEBOOKS / START, nbformat.writes(with_badges(notebook, repository())) + "\n")
