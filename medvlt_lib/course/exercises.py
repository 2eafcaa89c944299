"""Make `notebooks/exercises/` from the notebooks: their exercises alone, with stubs, and with the solutions folded.

In a notebook the cells of an exercise carry tags: `exercise` (the task, and the stub), `solution` (the code that is in
force where the notebook runs), `check`. The page for learners has them without the solution's code; this stands below
the check, folded.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from medvlt_lib.core.files import write_text
from medvlt_lib.course.lesson import NOTEBOOKS
from medvlt_lib.course.runner import notebooks

BEGIN = """from medvlt_lib.course import progress

progress.begin("{}")  # passes are noted for `medvlt lesson status`"""


def write_exercises(folder: Path = NOTEBOOKS / "exercises") -> list[Path]:
    """Write the page of every notebook that has exercises; what stood in these files before is replaced."""
    written = []
    for path in notebooks():
        if page := exercises_of(nbformat.read(path, as_version=4), path.name):
            folder.mkdir(exist_ok=True)
            write_text(folder / path.name, nbformat.writes(page) + "\n")
            written.append(folder / path.name)
    return written


def exercises_of(notebook: NotebookNode, name: str) -> NotebookNode | None:
    """The exercises of a notebook as a notebook of their own, or None where there are none."""
    cells: list[NotebookNode] = []
    solution = None
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags:
            solution = cell
        elif "exercise" in tags or "check" in tags:
            cells.append(cell)
            if "check" in tags and solution:
                cells.append(_folded(solution))
                solution = None
    if not cells:
        return None
    title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    head = (
        f"# Exercises to {title}\n\n"
        f"Read [the notebook](../{name}) first; nothing here needs its run. A check tries what you wrote on several\n"
        "inputs and says in one line what is right or what to look at next. Solutions are folded below the checks.\n\n"
        "**Synthetic questions, for learning the method: not medical knowledge and not for clinical use.**"
    )
    first = nbformat.v4.new_markdown_cell(head, id=f"{name[:2]}-exercises")
    begin = nbformat.v4.new_code_cell(BEGIN.format(Path(name).stem), id=f"{name[:2]}-begin")
    return nbformat.v4.new_notebook(cells=[first, begin, *cells], metadata=notebook.metadata)


def _folded(solution: NotebookNode) -> NotebookNode:
    text = f"<details><summary>Solution</summary>\n\n```python\n{solution.source}\n```\n\n</details>"
    return nbformat.v4.new_markdown_cell(text, id=solution.id)
