"""`medvlt compare`: two files of answers to the same questions, and what chance explains of their difference.

Where a question was answered several times, its share of right answers counts. Intervals take what shares a cluster as
one; the exact test of McNemar, which takes every question by itself, stands beside the one that does not.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvlt_lib.core import stats
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.tables import percent
from medvlt_lib.tools.answer_files import read_answers

if TYPE_CHECKING:
    import pandas as pd

DRAWN = 5000  # clusters up to which intervals are drawn; beyond, the normal approximation says the same
CLUSTERED = "clustered standard error"


@dataclasses.dataclass
class Difference:
    """`after` minus `before` on the same questions. `gained` and `lost`: questions that only one of the two has right,
    and `exact_p` McNemar's (None where a question was answered several times). `p`: the test that knows of clusters;
    `adjusted_p`: by Holm among the data sets; `detectable`: the difference that 4 of 5 such comparisons would find."""

    name: str
    questions: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    kind: str
    p: float
    detectable: float
    gained: int | None = None
    lost: int | None = None
    exact_p: float | None = None
    adjusted_p: float | None = None


def compare(before: Path, after: Path) -> dict[str, Any]:
    """What differs between two files of answers (see `read_answers`), overall (macro over data sets) and by data set.

    Files are joined on the id. Raises UserError as `read_answers`, where nothing pairs, and where the files give one
    question different data sets.
    """
    (first, blank_first), (second, blank_second) = read_answers(before), read_answers(after)
    one, two = _by_question(first), _by_question(second)
    both = one.join(two, how="inner", lsuffix="_before", rsuffix="_after")
    if both.empty:
        raise UserError(f"no id of {before} is in {after}; compare files of answers to the same questions.")
    other = both["dataset_before"] != both["dataset_after"]
    if other.any():
        raise UserError(
            f"{int(other.sum())} questions are of different data sets in the two files (for one, "
            f"{both.index[other][0]}); compare files of the same benchmark."
        )
    rows = [_difference("overall (macro)", both)]
    names = list(dict.fromkeys(both["dataset_before"]))
    if len(names) > 1:
        rows += [_difference(name, both[both["dataset_before"] == name]) for name in names]
        for row, p in zip(rows[1:], stats.holm([row.p for row in rows[1:]]), strict=True):
            row.adjusted_p = p
    return {
        "before": str(before),
        "after": str(after),
        "questions": len(both),
        "only_in_before": len(one) - len(both),
        "only_in_after": len(two) - len(both),
        "blank_before": blank_first,
        "blank_after": blank_second,
        "rows": [dataclasses.asdict(row) for row in rows],
    }


def _by_question(answers: pd.DataFrame) -> pd.DataFrame:
    """One row a question: the share of its answers that are right, how many there are, data set and cluster."""
    if answers["id"].is_unique:
        return answers.assign(share=answers["correct"], answers=1).set_index("id")[
            ["share", "answers", "dataset", "cluster"]
        ]
    return answers.groupby("id", sort=False).agg(
        share=("correct", "mean"),
        answers=("correct", "size"),
        dataset=("dataset", "first"),
        cluster=("cluster", "first"),
    )


def _difference(name: str, both: pd.DataFrame) -> Difference:
    before, after = both["share_before"].to_numpy(float), both["share_after"].to_numpy(float)
    strata, clusters = numbered(both["dataset_before"]), numbered(both["cluster_before"])
    own = after - before
    first, second, gap = (stats.macro(values, strata) for values in (before, after, own))
    error = stats.clustered_error(own, strata, clusters)
    low, high, kind = interval(own, strata, clusters, (-1, 1), error)
    p, found = stats.two_sided_p(gap, *error), stats.detectable(error[0])
    row = Difference(name, len(both), first, second, gap, low, high, kind, p, found)
    if (both["answers_before"] == 1).all() and (both["answers_after"] == 1).all():
        row.gained, row.lost, row.exact_p = stats.mcnemar(before, after)
    return row


def numbered(names: pd.Series) -> np.ndarray:
    """A number for each different name: a million names are much slower to tell apart than numbers are."""
    import pandas as pd

    return pd.factorize(names)[0]


def interval(
    values: np.ndarray,
    strata: np.ndarray,
    clusters: np.ndarray,
    bounds: tuple[float, float],
    known: tuple[float, float] | None = None,
) -> stats.Interval:
    """The 95 % interval of a macro mean: drawn where that is quick, else by its standard error (`known`, if it is)."""
    if len(np.unique(clusters)) <= DRAWN:
        return stats.macro_interval(values, strata, clusters, bounds)
    from scipy.stats import t

    error, freedom = known or stats.clustered_error(values, strata, clusters)
    reach, mean = error * t.isf(0.025, freedom), stats.macro(values, strata)
    return stats.Interval(max(bounds[0], mean - reach), min(bounds[1], mean + reach), CLUSTERED)


def compare_table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """A comparison as cells, header first; accuracies in percent, differences in points."""
    cells = [
        (
            "",
            "questions",
            "before",
            "after",
            "difference",
            "95 % interval",
            "p",
            "Holm",
            "only after / before",
            "exact p",
        )
    ]
    for row in found["rows"]:
        span = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
        pairs = "" if row["gained"] is None else f"{row['gained']} / {row['lost']}"
        cells.append((
            row["name"], str(row["questions"]), percent(row["before"]), percent(row["after"]),
            f"{100 * row['difference']:+.1f}", span, _p(row["p"]), _p(row["adjusted_p"]), pairs, _p(row["exact_p"]),
        ))  # fmt: skip
    return cells


def compare_notes(found: dict[str, Any]) -> str:
    """What stands below a comparison: what did not pair or was blank, the kind of interval, what could be found."""
    first = found["rows"][0]
    notes = [f"intervals and p: answers on one cluster count as one ({first['kind']})"]
    notes.append(f"a true difference of {100 * first['detectable']:.1f} points would be found four times in five")
    if found["only_in_before"] or found["only_in_after"]:
        notes.append(
            f"not paired: {found['only_in_before']} questions of the first file, {found['only_in_after']} of the second"
        )
    if found["blank_before"] or found["blank_after"]:
        notes.append(f"blank, counted as wrong: {found['blank_before']} and {found['blank_after']} answers")
    return "; ".join(notes)


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"
