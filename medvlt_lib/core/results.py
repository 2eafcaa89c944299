"""The results of evaluated arms: read from 05_eval, compared with the base on the same questions, and put into words.

What the report (06), the notebooks and the cards of exported models say of an arm's accuracy. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json
from medvlt_lib.core.runs import STAGES, Run, trained_in
from medvlt_lib.core.stats import clustered_error, detectable, macro, macro_interval, two_sided_p
from medvlt_lib.core.tables import markdown_table, percent

NOTICE = "Research and teaching material; synthetic or public data. Not for clinical use."


def check_alike(folder: Path, arms: list[str]) -> None:
    """Raises UserError when two arms were evaluated with other settings or test questions."""
    first, *others = arms
    one = read_json(folder / first / "stage.json")
    for arm in others:
        two = read_json(folder / arm / "stage.json")
        for kind, keys in (("settings", {*one["settings"], *two["settings"]}), ("inputs", {"test"})):
            for key in sorted(keys):
                a, b = one[kind].get(key), two[kind].get(key)
                if a != b:
                    raise UserError(
                        f"the arms {first} and {arm} were evaluated with {key} = {json.dumps(a)} and {json.dumps(b)}; "
                        "evaluate one of them again with --redo 05 --arm, or leave it out: delete its folder in "
                        f"{folder}."
                    )


def results(run_: Run, arms: list[str]) -> list[dict]:
    """One row an arm: macro accuracy with its interval, and the paired difference from the base."""
    import pyarrow.parquet as pq

    folder = run_.folder / STAGES["05"]
    answers = {a: pq.read_table(folder / a / "answers.parquet").to_pylist() for a in arms}
    rows = []
    for arm in arms:
        scores = read_json(folder / arm / "scores.json")
        gain = paired(answers["base"], answers[arm]) if "base" in arms and arm != "base" else None
        rows.append({"arm": arm, **scores, "gain": gain})
    return rows


def paired(before: list[dict], after: list[dict]) -> dict:
    """The macro difference of two arms with its paired interval, the p-value of no difference, and the smallest true
    difference that such a test finds four times in five. Raises UserError if they answered other questions."""
    if [(r["id"], r["sample"]) for r in before] != [(r["id"], r["sample"]) for r in after]:
        raise UserError("the two arms answered different questions; evaluate both on the same test set.")
    difference = [int(a["correct"]) - int(b["correct"]) for a, b in zip(after, before, strict=True)]
    strata, clusters = [r["dataset"] for r in after], [r["cluster"] for r in after]
    low, high, kind = macro_interval(difference, strata, clusters, bounds=(-1, 1))
    value, (error, freedom) = macro(difference, strata), clustered_error(difference, strata, clusters)
    return {
        "difference": value, "interval": (low, high), "interval_kind": kind,
        "p": two_sided_p(value, error, freedom), "detectable": detectable(error),
    }  # fmt: skip


def table(rows: list[dict]) -> list[tuple[str, ...]]:
    """The result table as text cells, header first."""
    cells = [("arm", "macro accuracy, %", "95 % interval", "against base", "95 % paired", "well-formed", "tokens")]
    for row in rows:
        gain, gain_span = "", ""
        if row["gain"] is not None:
            gain, gain_span = f"{100 * row['gain']['difference']:+.1f}", percent_span(row["gain"]["interval"])
        accuracy = row["arm"], percent(row["macro"]), percent_span(row["interval"])
        cells.append((*accuracy, gain, gain_span, percent(row["well_formed"]), f"{row['mean_tokens']:.0f}"))
    return cells


def notes(rows: list[dict]) -> str:
    """What stands below the result table: what the figures are, and which kind of interval each is."""
    gains = {row["arm"]: row["gain"] for row in rows if row["gain"] is not None}
    by_set = {own["interval_kind"] for row in rows for own in row["datasets"].values()}
    sentences = [
        f"Macro accuracy is the unweighted mean over data sets, on {questions_and_answers(rows[0])}.",
        "Intervals take the answers on one picture, or to one question, as one; differences are paired.",
        f"Kinds of interval: macro accuracy, {interval_kinds({row['arm']: row for row in rows})}.",
        f"Differences, {interval_kinds(gains)}." if gains else "",
        f"By data set, {' or '.join(sorted(by_set))}.",
    ]
    return " ".join(filter(None, sentences))


def percent_span(interval: Sequence[float]) -> str:
    """An interval in percent: `50.0 to 64.0`."""
    return " to ".join(percent(end) for end in interval)


def questions_and_answers(scores: dict) -> str:
    """`400 test questions`, or where each was answered several times `10 test questions (40 answers)`."""
    answers = "" if scores["answers"] == scores["questions"] else f" ({scores['answers']} answers)"
    return f"{scores['questions']} test questions{answers}"


def interval_kinds(results: dict[str, dict]) -> str:
    """Which kind of interval the results have; where kinds differ, with the names of the results that have it."""
    names: dict[str, list[str]] = {}
    for name, result in results.items():
        names.setdefault(result["interval_kind"], []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{kind} ({', '.join(own)})" for kind, own in names.items())


def checkpoints(run_: Run, arms: list[str]) -> str:
    """Which step's weights each validated arm was evaluated with, and by which rule; empty where there is none."""
    metrics = {arm: run_.stage_folder(trained_in(run_, arm), arm) / "metrics.json" for arm in arms if arm != "base"}
    chosen = {arm: read_json(path) for arm, path in metrics.items() if path.exists()}
    validated = {arm: own for arm, own in chosen.items() if "checkpoint_rule" in own}
    if not validated:
        return ""
    steps = "; ".join(
        f"{arm}: step {own['checkpoint_step']} of {own['steps']} (best validated: {own['best_step']})"
        for arm, own in validated.items()
    )
    rule = next(iter(validated.values()))["checkpoint_rule"]
    return f"Checkpoints, chosen on validation questions: {steps}. The rule: {rule}."


def as_markdown(run_: Run, rows: list[dict]) -> str:
    """What a model card says of the rows that `results` returns: table, notes, and how checkpoints were chosen."""
    parts = (markdown_table(table(rows)), notes(rows), checkpoints(run_, [row["arm"] for row in rows]))
    return "\n\n".join(filter(None, parts))
