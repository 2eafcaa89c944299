"""The README's tables of recorded times, memory and accuracies, from results/."""

from __future__ import annotations

from medvlt_lib.core.files import read_json
from medvlt_lib.core.results import table
from medvlt_lib.core.tables import markdown_table
from medvlt_lib.course.lesson import RESULTS
from medvlt_lib.course.runner import notebooks


def times_table() -> str:
    """The README's table of notebooks with recorded time and memory per profile, as Markdown."""
    records = {p.stem.removeprefix("course-"): read_json(p)["notebooks"] for p in sorted(RESULTS.glob("course-*.json"))}
    profiles = ["tiny", "tiny-qlora", *sorted(set(records) - {"tiny", "tiny-qlora"}), "all other profiles"]
    rows = [["notebook", *profiles]]
    for path in notebooks():
        cells = [_cell(records.get(p, {}).get(path.stem)) for p in profiles]
        rows.append([f"[{path.stem}](notebooks/{path.name})", *cells])
    totals = [sum(r["seconds"] for r in records[p].values()) if p in records else None for p in profiles]
    rows.append(["**all**", *(f"{t / 60:.1f} min" if t else "not run" for t in totals)])
    return markdown_table(rows)


def _cell(record: dict | None) -> str:
    return f"{record['seconds']:.0f} s, {record['peak_memory_mb'] / 1000:.1f} GB" if record else "not run"


def arms_table() -> str:
    """The README's table of recorded accuracies per profile and arm (results/arms-PROFILE.json), as Markdown."""
    rows = []
    for path in sorted(RESULTS.glob("arms-*.json")):
        head, *arms = [row[:5] for row in table(read_json(path))]
        rows = rows or [["profile", *head]]
        rows += [[path.stem.removeprefix("arms-"), *row] for row in arms]
    return markdown_table(rows)
