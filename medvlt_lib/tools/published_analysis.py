"""The papers' own tables analysed again: what the numbers of questions let them claim (results/published-reanalysis).

No per-question verdicts are public, so two rows are compared as independent samples of the same size. Where the two
models are right on much the same questions the true error is smaller; `needed_correlation` says how much alike they
would have to be for the difference to be one. Every row is one training run: another seed would move it, too.
"""

from __future__ import annotations

import math
from typing import Any

from medvlt_lib.core.stats import detectable, holm
from medvlt_lib.tools.published_tables import AVERAGE, TWO_SIDED, Table, error_of, interval_of, load_tables

ARMS = [
    ("rl_text", "base"), ("sft_text", "base"), ("rl_image", "base"), ("sft_image", "base"), ("rl_text", "sft_text"),
    ("rl_image", "sft_image"), ("rl_text", "rl_image"), ("sft_text-rl_image", "rl_image"),
    ("rl_text-rl_image", "rl_text"),
]  # fmt: skip
# What the papers claim in words, each as (table, row, row that it is compared with).
CLAIMS = [
    *(("medvlthinker_table1", f"{size} {a}", f"{size} {b}") for size in ("3B", "7B") for a, b in ARMS),
    ("medvlthinker_table2", "MedVLThinker 32B-RL_m23k", "general Qwen2.5-VL-32B"),
    ("medvlthinker_table2", "MedVLThinker 32B-RL_m23k", "general GPT-4o"),
    ("medvlm_r1", "2B MedVLM-R1", "2B Qwen2-VL-2B"),
]  # fmt: skip
NOTE = (
    "Points of percent. Errors are those of independent samples of the published sizes; verdicts on single questions "
    "are not public, so no comparison is paired. Each row is one training run, and the three published runs of each "
    "are greedy with one seed: neither another training seed nor pictures shared by questions are in these errors."
)


def reanalysis() -> dict[str, Any]:
    """What results/published-reanalysis.json holds: intervals of all rows, claims with errors, widths, and answers."""
    tables = load_tables()
    known = [table for table in tables.values() if table.questions is not None]
    claims = [_claim(tables[name], after, before) for name, after, before in CLAIMS]
    for claim, adjusted in zip(claims, holm([claim["p"] for claim in claims]), strict=True):
        claim["holm_p"] = _significant(adjusted)
        claim["verdict"] = _verdict(claim)
    return {
        "note": NOTE,
        "answers": _answers(tables["medvlthinker_table1"], claims),
        "claims": claims,
        "widths": _widths(tables["medvlthinker_table1"]),
        "averages": {table.name: _averages(table) for table in known if AVERAGE in next(iter(table.rows.values()))},
        "rows": {table.name: {name: _intervals(table, row) for name, row in table.rows.items()} for table in known},
    }


def _claim(table: Table, after: str, before: str) -> dict[str, Any]:
    """The difference of two rows of a table on average, with its interval and p, and by set."""
    from scipy.stats import norm

    one, two = table.rows[after], table.rows[before]
    gaps = {column: one[column] - two[column] for column in one}
    errors = {column: math.hypot(error_of(table, one, column), error_of(table, two, column)) for column in one}
    gap, error = gaps[AVERAGE], errors[AVERAGE]
    needed = 1 - (gap / (TWO_SIDED * error)) ** 2
    return {
        "table": table.name,
        "row": after,
        "against": before,
        "difference": _points(gap),
        "interval": [_points(gap - TWO_SIDED * error), _points(gap + TWO_SIDED * error)],
        "p": _significant(2 * norm.sf(abs(gap) / error)),
        "needed_correlation": round(needed, 2) if needed > 0 else None,
        "sets_that_differ": {
            column: _points(gaps[column]) for column in table.sets if abs(gaps[column]) > TWO_SIDED * errors[column]
        },
    }


def _verdict(claim: dict[str, Any]) -> str:
    if claim["holm_p"] < 0.05:
        return "differs"
    if claim["p"] < 0.05:
        return "differs by itself, not among all claims (Holm)"
    return "cannot tell at this n"


def _widths(table: Table) -> dict[str, dict[str, float]]:
    """By set: questions, half the interval's width on average over the rows, and the difference between two rows that
    would be found four times in five."""
    assert table.questions is not None
    found = {}
    for column in (*table.sets, AVERAGE):
        spans = [interval_of(table, row, column) for row in table.rows.values()]
        error = sum(error_of(table, row, column) for row in table.rows.values()) / len(table.rows)
        found[column] = {
            "questions": table.questions.get(column, sum(table.questions.values())),
            "half_width": _points(sum(high - low for low, high in spans) / len(spans) / 2),
            "detectable": _points(detectable(math.sqrt(2) * error)),
        }
    return found


def _averages(table: Table) -> dict[str, float]:
    """The rows whose printed average is not that of their sets, with how far it is off (more than rounding)."""
    off = {name: row[AVERAGE] - sum(row[c] for c in table.sets) / len(table.sets) for name, row in table.rows.items()}
    return {name: _points(gap) for name, gap in off.items() if abs(gap) > 1.1e-4}


def _intervals(table: Table, row: dict[str, float]) -> dict[str, list[float]]:
    return {c: [_points(share), *map(_points, interval_of(table, row, c))] for c, share in row.items()}


def _answers(table: Table, claims: list[dict[str, Any]]) -> dict[str, str]:
    """The questions that readers ask, answered with the numbers above."""
    by_rows = {(claim["row"], claim["against"]): claim for claim in claims}
    best, rad = by_rows["7B rl_text", "7B base"], _widths(table)["VQA-RAD"]
    low, high = best["interval"]
    need = best["needed_correlation"]
    real = "yes" if best["p"] < 0.05 else "cannot tell at this n"
    among = [f"{c['row']} against {c['against']}" for c in claims if c["verdict"] == "differs"]
    average = interval_of(table, table.rows["7B rl_text"], AVERAGE)
    return {
        f"Is {best['difference']:+.2f} points (7B, RL on text against the base) real?": (
            f"{real}: the interval is {low:+.2f} to {high:+.2f} (p = {best['p']:.2g})"
            + (f"; the two models' verdicts would have to correlate by more than {need}" if need else "")
            + ". Only a comparison question by question can say."
        ),
        "How wide are VQA-RAD's intervals?": (
            f"{rad['questions']} questions: +/- {rad['half_width']:.1f} points; two rows must differ by "
            f"{rad['detectable']:.1f} points to be told apart four times in five."
        ),
        "How wide is the interval of an average of six?": (
            f"7B, RL on text: {_points(table.rows['7B rl_text'][AVERAGE]):.2f}, "
            f"{_points(average[0]):.2f} to {_points(average[1]):.2f}."
        ),
        "Which claims hold at the published numbers of questions, all of them together (Holm)?": "; ".join(among),
    }


def claims_table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The claims as text cells, header first."""
    cells = [("row", "against", "difference", "95 % interval", "p", "Holm", "verdict")]
    for claim in found["claims"]:
        low, high = claim["interval"]
        cells.append((
            claim["row"], claim["against"], f"{claim['difference']:+.2f}", f"{low:+.2f} to {high:+.2f}",
            f"{claim['p']:.2g}", f"{claim['holm_p']:.2g}", claim["verdict"],
        ))  # fmt: skip
    return cells


def _points(share: float) -> float:
    return round(100 * share, 2)


def _significant(p: float) -> float:
    return float(f"{p:.2g}")
