"""How long the course on `tiny` takes at several commits, on one machine, in turns.

    git worktree add --detach /tmp/before COMMIT
    python benchmarks/course_versions.py /tmp/before . --out benchmarks/course_versions.json

Each folder is a checkout, run by this Python from its own sources, in a run of its own under its runs/. The record has
the seconds of every notebook, and of the cells of 04_grpo that take five seconds or more, by their first line.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from record import parser, save


def course(checkout: Path, run: str) -> dict:
    """One run of the course, from its beginning: a finished one would not be run again; its figures."""
    shutil.rmtree(checkout / "runs" / run, ignore_errors=True)
    command = [sys.executable, "-m", "medvlt_lib", "course", "--profile", "tiny", "--run", run]
    subprocess.run(command, cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)}, check=True)
    folder = checkout / "runs" / run / "notebooks"
    notebooks = json.loads((folder / "course.json").read_text())["notebooks"]
    seconds = {name: figures["seconds"] for name, figures in notebooks.items()}
    long_cells = {}
    for cell in json.loads((folder / "04_grpo.ipynb").read_text())["cells"]:
        took = cell["metadata"].get("papermill", {}).get("duration") or 0
        if took >= 5:
            long_cells["".join(cell["source"]).splitlines()[0]] = round(took, 1)
    return {"seconds": seconds, "all": round(sum(seconds.values()), 1), "cells_of_04": long_cells}


def commit_of(checkout: Path) -> str:
    log = ["git", "-C", str(checkout), "log", "-1", "--format=%h of %cs: %s"]
    return subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("checkouts", type=Path, nargs="+")
    options.add_argument("--rounds", type=int, default=2)
    given = options.parse_args()
    checkouts = {commit_of(checkout): checkout.resolve() for checkout in given.checkouts}
    took: dict[str, list[dict]] = {commit: [] for commit in checkouts}
    for turn in range(given.rounds):
        for commit, checkout in checkouts.items():
            took[commit].append(course(checkout, f"versions-{turn}"))
    save(given.out, ("torch", "transformers", "trl"), "", rounds=given.rounds, courses=took)


if __name__ == "__main__":
    main()
