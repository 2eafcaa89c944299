"""How long a notebook takes a learner: an estimate, computed from its words and from the minutes of its exercises."""

from __future__ import annotations

import math
import re
import textwrap

import nbformat
from nbformat import NotebookNode

from medvlt_lib.core.files import write_text
from medvlt_lib.core.tables import markdown_table
from medvlt_lib.course.lesson import NOTEBOOKS
from medvlt_lib.course.runner import notebooks
from medvlt_lib.course.status import HEAD

PACE = 100  # words of text and code a minute; nobody was timed
STATED = re.compile(r"Reading \d+ min.*?\.\s", re.DOTALL)
OF_EXERCISES = {"exercise", "solution", "check"}


def minutes(notebook: NotebookNode) -> tuple[int, int]:
    """(reading, exercises) in minutes: words outside exercises at PACE, in steps of five, and what these name."""
    words, exercises = 0, 0
    for cell in notebook.cells:
        if not OF_EXERCISES & set(cell.metadata.get("tags", [])):
            words += len(cell.source.split())
        elif head := HEAD.match(cell.source):
            exercises += int(head[3])
    return 5 * math.ceil(words / PACE / 5), exercises


def stated(notebook: NotebookNode) -> str:
    """The sentence on a notebook's first lines."""
    reading, exercises = minutes(notebook)
    pace = f"an estimate, at {PACE} words of text and code a minute"
    if not exercises:
        return f"Reading {reading} min ({pace})."
    return f"Reading {reading} min ({pace}), exercises {exercises} min, together {reading + exercises} min."


def state_times() -> None:
    """Write the sentence into the first cell of every notebook, in the place of the one that stands there."""
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        first = notebook.cells[0]
        head, rest = first.source.split("\n\n", 1)
        lines, *others = STATED.sub(f"{stated(notebook)} ", rest, count=1).split("\n\n")
        first.source = "\n\n".join([head, _wrapped(lines), *others])
        write_text(NOTEBOOKS / path.name, nbformat.writes(notebook) + "\n")


def table() -> str:
    """Reading and exercises of every notebook, as a Markdown table."""
    rows: list[tuple] = [("notebook", "reading, min", "exercises, min", "together")]
    for path in notebooks():
        reading, exercises = minutes(nbformat.read(path, as_version=4))
        rows.append((path.stem, reading, exercises or "", reading + exercises))
    both = whole_course()
    return markdown_table([*rows, ("**all**", *both, sum(both))])


def whole_course() -> tuple[int, int]:
    """(reading, exercises) of all notebooks together, in minutes."""
    both = [minutes(nbformat.read(path, as_version=4)) for path in notebooks()]
    return sum(reading for reading, _ in both), sum(exercises for _, exercises in both)


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)
