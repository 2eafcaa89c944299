"""What a learner has done, for `medvlt lesson status`: notebooks that ran to their end, and exercises passed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat

from medvlt_lib.course.progress import passed
from medvlt_lib.course.runner import notebooks

HEAD = re.compile(r"### Exercise \d+: (.+) \((core|stretch), (\d+) min\)")


def exercises() -> dict[str, dict[str, tuple[str, int]]]:
    """Of every notebook that has exercises: their titles and minutes, by the names of their checks, in order."""
    found: dict[str, dict[str, tuple[str, int]]] = {}
    for path in notebooks():
        head = None
        for cell in nbformat.read(path, as_version=4).cells:
            tags = cell.metadata.get("tags", [])
            head = HEAD.match(cell.source) or head
            if "check" in tags and head and (called := re.match(r"checks\.(\w+)", cell.source)):
                found.setdefault(path.stem, {})[called[1]] = (head[1], int(head[3]))
    return found


def status(root: Path = Path("runs")) -> list[tuple[str, ...]]:
    """A table, the first row its head: of each notebook the runs under `root` in which it ran to its end, its exercises
    that are passed, and what is left of them with the minutes."""
    table: list[tuple[str, ...]] = [("notebook", "ran to its end in", "exercises passed", "to do")]
    own = exercises()
    for path in notebooks():
        done = sorted(p.parents[1].name for p in root.glob(f"*/notebooks/{path.stem}.metrics.json"))
        here = own.get(path.stem, {})
        todo = [about for check, about in here.items() if not os.path.exists(passed(path.stem, check))]
        count = f"{len(here) - len(todo)} of {len(here)}" if here else "none here"
        left = "; ".join(f"{title} ({minutes} min)" for title, minutes in todo)
        table.append((path.stem, ", ".join(done) or "not yet", count, left))
    return table
