"""Stage 06: one page with the arms' scores, their paired differences from the base, figures, and what was not run."""

from __future__ import annotations

import html
import json
from pathlib import Path

from medvlt_lib.core import plots
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write, read_json, write_json, write_text
from medvlt_lib.core.runs import STAGES, Run
from medvlt_lib.core.stage import finished_in
from medvlt_lib.core.tables import markdown_table, percent
from medvlt_lib.stages.arms import ARMS
from medvlt_lib.stages.evaluate import interval_kinds, paired, percent_span, questions_and_answers

NOTICE = "Research and teaching material; synthetic or public data. Not for clinical use."


def run(run_: Run) -> dict:
    """Writes 06_analysis: tables/results.json, figures/accuracy.png, report.html and model_card.md."""
    arms = evaluated_arms(run_)
    base = run_.folder / STAGES["05"]
    inputs = {f"{a}.{n}": base / a / n for a in arms for n in ("scores.json", "answers.parquet")}
    check_alike(base, arms)
    run_.redo.add("06")  # it takes a second, and arms may have been added
    with run_.stage("06", {}, inputs) as stage:
        folder = stage.folder
        # Step 1: the figures of every arm, and their differences from the base.
        rows = results(run_, arms)
        write_json(folder / "tables" / "results.json", rows)
        atomic_write(
            folder / "figures" / "accuracy.png", lambda tmp: plots.accuracy(rows).savefig(tmp, format="png", dpi=130)
        )
        # Step 2: the page and the model card.
        not_run = [a for a in ARMS if a not in arms]
        write_text(folder / "report.html", _page(run_, rows, not_run))
        write_text(folder / "model_card.md", _card(run_, rows, not_run))
        stage.metrics = {"arms": arms, "not_run": not_run, "macro": {r["arm"]: r["macro"] for r in rows}}
        return stage.metrics


def evaluated_arms(run_: Run) -> list[str]:
    """Arms with finished evaluations, the papers' arms first. Raises UserError when there is none."""
    found = finished_in(run_.folder / STAGES["05"])
    if not found:
        raise UserError(f"{run_.folder} has no evaluated arm; run `medvlt eval --run {run_.folder.name}` first.")
    return [a for a in ARMS if a in found] + [a for a in found if a not in ARMS]


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


def checkpoints(run_: Run, arms: list[str]) -> str:
    """Which step's weights each validated arm was evaluated with, and by which rule; empty where there is none."""
    metrics = {arm: run_.stage_folder("04", arm) / "metrics.json" for arm in arms}
    chosen = {arm: read_json(path) for arm, path in metrics.items() if path.exists()}
    validated = {arm: own for arm, own in chosen.items() if "checkpoint_rule" in own}
    if not validated:
        return ""
    steps = "; ".join(
        f"{arm}: step {own['checkpoint_step']} of {own['steps']} (best validated: {own['best_step']})"
        for arm, own in validated.items()
    )
    rule = next(iter(validated.values()))["checkpoint_rule"]
    return f"Checkpoints of GRPO, chosen on validation questions: {steps}. The rule: {rule}."


def _page(run_: Run, rows: list[dict], not_run: list[str]) -> str:
    cells = table(rows)
    body = "".join(
        "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in row) + "</tr>"
        for tag, row in [("th", cells[0]), *(("td", r) for r in cells[1:])]
    )
    settings = html.escape(json.dumps(run_.profile.model_dump(), indent=1))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(run_.folder.name)}</title>
<style>body{{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}table{{border-collapse:collapse}}
td,th{{border:1px solid #ccc;padding:.3em .6em;text-align:right}}td:first-child{{text-align:left}}img{{max-width:100%}}
.notice{{color:#a00}}</style>
<h1>Run {html.escape(run_.folder.name)}, profile {html.escape(run_.profile.profile)}</h1>
<p class="notice">{NOTICE}</p>
<table>{body}</table>
<p>{html.escape(notes(rows))}</p>
<p>{html.escape(checkpoints(run_, [row["arm"] for row in rows]))}</p>
<p>Not run: {", ".join(not_run) or "nothing"}.</p>
<img src="figures/accuracy.png" alt="Accuracy by arm and by data set">
<details><summary>Settings</summary><pre>{settings}</pre></details></html>
"""


def _card(run_: Run, rows: list[dict], not_run: list[str]) -> str:
    return f"""# Model card: run {run_.folder.name}

**{NOTICE}**

Trained from `{run_.profile.model.name}` with profile `{run_.profile.profile}`.

{markdown_table(table(rows))}

{notes(rows)}

{checkpoints(run_, [row["arm"] for row in rows])}

Not run: {", ".join(not_run) or "nothing"}.
"""
