"""How many runs a study still needs and how long they take, from the runs that were recorded. No torch here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median

from medvlt_lib.study.cells import Cells, method_of
from medvlt_lib.study.results import SHIPPED, results_in


def plan_table(cells: Cells, missing: Cells, results: Path) -> tuple[list[tuple[str, ...]], str]:
    """Rows by method: runs, those left, minutes a run, minutes left; and a sentence. Minutes are medians of recorded
    runs of the same method and profile: of this folder's where it has any, else of the shipped ones."""
    profiles = {cell.profile for cell, _ in cells.values()}
    measured, where = _minutes(results, profiles), str(results)
    if not measured:
        measured, where = _minutes(SHIPPED, profiles), "the shipped results, on another machine"
    rows: list[tuple[str, ...]] = [("method", "runs", "left", "minutes a run", "minutes left")]
    every, left = (Counter(cell.method for cell, _ in some.values()) for some in (cells, missing))
    for method in every:
        each = measured.get(method)
        rows.append(
            (method, str(every[method]), str(left[method]), f"{each:.1f}" if each else "not measured",
             f"{each * left[method]:.0f}" if each else "not measured")
        )  # fmt: skip
    total = sum(measured.get(method, 0) * number for method, number in left.items())
    known = all(method in measured for method in left)
    return rows, f"about {total:.0f} minutes in one process; {where}" if known else "not every method was measured yet"


def _minutes(results: Path, profiles: set[str]) -> dict[str, float]:
    """Median minutes of a run of these profiles, by method."""
    taken: dict[str, list[float]] = {}
    for result in results_in(results).values():
        if result["profile"] not in profiles:
            continue
        taken.setdefault(method_of(result["arm"]), []).append(result["seconds"]["all"] / 60)
    return {method: median(values) for method, values in taken.items()}
