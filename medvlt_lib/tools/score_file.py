"""`medvlt scores`: what a file of answers says; with several answers an item also pass@k, votes, and where luck sits.

Several files are one recipe trained with several seeds, asked the same questions: how far does the seed move a score?
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvlt_lib.core import sampled, stats
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.results import percent_span
from medvlt_lib.core.tables import percent
from medvlt_lib.tools.answer_files import read_answers
from medvlt_lib.tools.compare import interval, numbered

if TYPE_CHECKING:
    import pandas as pd

OVERALL = "overall (macro)"


def scores(paths: list[Path]) -> dict[str, Any]:
    """The accuracy of each file with its interval, overall and of one file also by data set; and `luck`, the standard
    error of that accuracy by its sources, where there are several answers to a question or several files.

    Where one file has several answers to every question: `at_k` of each row (see `_at_k`), the accuracy of the vote of
    all answers, and `calibration` of that vote, both where a column `letter` says what was answered.
    Raises UserError as `read_answers`, and for several files that did not ask the same questions.
    """
    tables = [read_answers(path) for path in paths]
    found: dict[str, Any] = {"files": [str(path) for path in paths], "blank": sum(blank for _, blank in tables)}
    answers = tables[0][0]
    if len(paths) > 1:
        found["rows"] = [score_of(str(path), table) for path, (table, _) in zip(paths, tables, strict=True)]
    else:
        names = list(dict.fromkeys(answers["dataset"]))
        found["rows"] = [score_of(OVERALL, answers)]
        found["rows"] += [score_of(n, answers[answers["dataset"] == n]) for n in names] if len(names) > 1 else []
        if "majority" in found["rows"][0]:
            found["calibration"] = _calibration(answers)
    least = min(int(table.groupby("id").size().min()) for table, _ in tables)
    if least > 1 or len(paths) > 1:
        found["luck"] = _luck([table for table, _ in tables], paths, least)
    return found


def _items(answers: pd.DataFrame) -> pd.DataFrame:
    """One row a question, in order of their ids: its data set, cluster, and perhaps number of options."""
    kept = [name for name in ("dataset", "cluster", "options") if name in answers]
    return answers.groupby("id", sort=True)[kept].first()


def _by_sample(answers: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(codes of the letters, right), both (items, samples): items in order of their ids, answers in that of sample."""
    import pandas as pd

    ordered = answers.sort_values(["id", "sample"], kind="stable")
    item, place = pd.factorize(ordered["id"])[0], ordered.groupby("id", sort=False).cumcount().to_numpy()
    shape = (item.max() + 1, place.max() + 1)
    codes, right = np.full(shape, sampled.UNASKED), np.zeros(shape, dtype=bool)
    letters = ordered["letter"] if "letter" in ordered else pd.Series([None] * len(ordered))
    codes[item, place] = pd.factorize(letters.where(letters != "", None))[0]  # -1 where there is no letter
    right[item, place] = ordered["correct"].to_numpy(bool)
    return codes, right


def score_of(name: str, answers: pd.DataFrame) -> dict[str, Any]:
    """One row of `scores`: accuracy (macro over data sets) with interval, and what several answers a question add."""
    right = answers["correct"].to_numpy(float)
    strata, clusters = numbered(answers["dataset"]), numbered(answers["cluster"])
    wilson = stats.wilson_of_set(right, clusters) if len(np.unique(strata)) == 1 else None
    low, high, kind = wilson or interval(right, strata, clusters, (0, 1))
    row = {"name": name, "answers": len(right), "accuracy": stats.macro(right, strata), "low": low, "high": high}
    row |= {"kind": kind, "questions": answers["id"].nunique()}
    if row["answers"] > row["questions"] and answers.groupby("id").size().min() > 1:
        row["at_k"] = _at_k(answers)
        if "letter" in answers:
            hits, _ = _voted(answers)
            row["majority"] = stats.macro(hits, numbered(_items(answers)["dataset"]))
    return row


def _voted(answers: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(whether the vote of all answers is right, the share of them that agree with it), both (items,)."""
    codes, right = _by_sample(answers)
    place, share = sampled.vote(codes)
    return (place >= 0) & right[np.arange(len(right)), place], share


def _at_k(answers: pd.DataFrame) -> list[dict[str, Any]]:
    """For each power of two k: pass@k (macro) with its interval, what guessing alone gives where the numbers of options
    are known (`chance`), and the accuracy of the vote among k answers where letters are."""
    items, (codes, right) = _items(answers), _by_sample(answers)
    strata, clusters = numbered(items["dataset"]), numbered(items["cluster"])
    numbers = (codes != sampled.UNASKED).sum(1)
    hits, rows = right.sum(1), []
    for k in [2**i for i in range(int(np.log2(numbers.min())) + 1)]:
        each = np.array([stats.pass_at_k(int(h), int(n), k) for h, n in zip(hits, numbers, strict=True)])
        low, high, _ = interval(each, strata, clusters, (0, 1))
        row: dict[str, Any] = {"k": k, "pass": stats.macro(each, strata), "low": low, "high": high}
        if "options" in items and (items["options"] > 0).all():
            row["chance"] = stats.macro(stats.chance_at_k(items["options"], k), strata)
        if "letter" in answers:
            row["majority"] = stats.macro(sampled.majority_at_k(codes, right, k), strata)
        rows.append(row)
    return rows


def _calibration(answers: pd.DataFrame) -> list[dict[str, Any]]:
    hits, share = _voted(answers)
    return sampled.calibration(share, hits, numbered(_items(answers)["cluster"]))


def _luck(tables: list[pd.DataFrame], paths: list[Path], least: int) -> dict[str, float | None]:
    items = [_items(table) for table in tables]
    for path, own in zip(paths[1:], items[1:], strict=True):
        if not own.index.equals(items[0].index):
            raise UserError(
                f"{paths[0]} and {path} do not answer the same questions; give the answers of models that were trained "
                "with several seeds, to one test set."
            )
    right = np.stack([_by_sample(table)[1][:, :least] for table in tables])
    strata, clusters = numbered(items[0]["dataset"]), numbered(items[0]["cluster"])
    return sampled.sources_of_luck(right, strata, clusters)._asdict()


def scores_table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Accuracies as cells, header first, in percent."""
    voted = "majority" in found["rows"][0]
    cells = [("", "questions", "answers", "accuracy", "95 % interval", *(["majority"] * voted))]
    for row in found["rows"]:
        span = percent_span((row["low"], row["high"]))
        more = [percent(row["majority"])] if "majority" in row else [""] * voted
        cells.append((row["name"], str(row["questions"]), str(row["answers"]), percent(row["accuracy"]), span, *more))
    return cells


def at_k_table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """pass@k beside what guessing gives, and majority@k, as cells, header first; empty without several answers."""
    cells = [("", "k", "pass@k", "95 % interval", "guessing", "majority@k")]
    for row in found["rows"]:
        for at in row.get("at_k", []):
            more = (percent(at[name]) if name in at else "" for name in ("chance", "majority"))
            span = percent_span((at["low"], at["high"]))
            cells.append((row["name"], str(at["k"]), percent(at["pass"]), span, *more))
    return cells if len(cells) > 1 else []


def calibration_table(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Votes by how many of the answers agree with them, as cells, header first; empty without a vote."""
    cells = [("answers that agree, %", "questions", "on average", "vote is right", "95 % interval")]
    for row in found.get("calibration", []):
        group = f"{100 * row['above']:.0f} to {100 * row['up_to']:.0f}"
        span = percent_span((row["low"], row["high"]))
        cells.append((group, str(row["items"]), percent(row["share"]), percent(row["accuracy"]), span))
    return cells if len(cells) > 1 else []


def scores_notes(found: dict[str, Any]) -> str:
    """What stands below the scores: blank answers, the rule for ties, and how far each source of luck moves a score."""
    notes = [f"{found['blank']} blank answers, counted as wrong"] if found["blank"] else []
    if "majority" in found["rows"][0]:
        notes.append("of answers with equally many votes the one given first counts")
    names = {"items": "other questions", "sampling": "one new answer to each", "training": "another training seed"}
    luck = [
        f"{words} {100 * found['luck'][key]:.1f}"
        for key, words in names.items()
        if found.get("luck", {}).get(key) is not None
    ]
    if luck:
        notes.append(f"the score would move, in points (standard errors), with {', '.join(luck)}")
    return "; ".join(notes)
