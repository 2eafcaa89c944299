"""Stage 06: one page with the arms' scores, their paired differences from the base, the steps that their answers state,
figures, controls, and what was not run."""

from __future__ import annotations

import html
import json

from medvlt_lib.core import control_rows, plots
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write, read_json, write_json, write_text
from medvlt_lib.core.results import NOTICE, as_markdown, check_alike, checkpoints, notes, results, table
from medvlt_lib.core.runs import STAGES, Run
from medvlt_lib.core.stage import finished_in
from medvlt_lib.stages import steps
from medvlt_lib.stages.arms import ARMS


def run(run_: Run) -> dict:
    """Writes 06_analysis: tables/results.json and tables/steps.json, figures/accuracy.png, report.html and
    model_card.md."""
    arms = evaluated_arms(run_)
    base = run_.folder / STAGES["05"]
    inputs = {f"{a}.{n}": base / a / n for a in arms for n in ("scores.json", "answers.parquet")}
    controlled = {
        a: run_.folder / STAGES["05b"] / a / "controls.json" for a in finished_in(run_.folder / STAGES["05b"])
    }
    inputs |= {f"{arm}.controls.json": path for arm, path in controlled.items()}
    inputs["test"] = run_.require("01") / "test.parquet"
    check_alike(base, arms)
    run_.redo.add("06")  # it takes a second, and arms may have been added
    with run_.stage("06", {}, inputs) as stage:
        folder = stage.folder
        # Step 1: the figures of every arm, and their differences from the base.
        rows = results(run_, arms)
        write_json(folder / "tables" / "results.json", rows)
        stated = steps.arm_steps(run_, arms)
        write_json(folder / "tables" / "steps.json", stated)
        atomic_write(
            folder / "figures" / "accuracy.png", lambda tmp: plots.accuracy(rows).savefig(tmp, format="png", dpi=130)
        )
        # Step 2: the page and the model card.
        not_run = [a for a in ARMS if a not in arms]
        asked = {arm: read_json(path) for arm, path in controlled.items()}
        write_text(folder / "report.html", _page(run_, rows, asked, stated, not_run))
        write_text(folder / "model_card.md", _card(run_, rows, not_run))
        stage.metrics = {"arms": arms, "not_run": not_run, "macro": {r["arm"]: r["macro"] for r in rows}}
        return stage.metrics


def evaluated_arms(run_: Run) -> list[str]:
    """Arms with finished evaluations, the papers' arms first. Raises UserError when there is none."""
    found = finished_in(run_.folder / STAGES["05"])
    if not found:
        raise UserError(f"{run_.folder} has no evaluated arm; run `medvlt eval --run {run_.folder.name}` first.")
    return [a for a in ARMS if a in found] + [a for a in found if a not in ARMS]


def _html_table(cells: list[tuple[str, ...]]) -> str:
    """A table of text cells, header first."""
    return "<table>{}</table>".format(
        "".join(
            "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in row) + "</tr>"
            for tag, row in [("th", cells[0]), *(("td", r) for r in cells[1:])]
        )
    )


def _controls(controls: dict[str, list[dict]]) -> str:
    """The arms' controls (05b), each with its table and what explains it."""
    return "".join(
        f"<h2>Controls of {html.escape(arm)}</h2>{_html_table(control_rows.table(rows))}"
        f"<p>{html.escape(control_rows.notes(rows))}.</p>"
        for arm, rows in controls.items()
    )


def _steps(stated: list[dict]) -> str:
    """The section on the steps that answers state; nothing where no question has facts to check them against."""
    if not stated:
        return ""
    return f"""<h2>Steps that the answers state</h2>
{_html_table(steps.table(stated))}
<p>{html.escape(steps.NOTES)}</p>
<p>Where answers first went wrong, in percent of all answers:</p>
{_html_table(steps.error_table(stated))}
"""


def _page(run_: Run, rows: list[dict], controls: dict[str, list[dict]], stated: list[dict], not_run: list[str]) -> str:
    settings = html.escape(json.dumps(run_.profile.model_dump(), indent=1))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(run_.folder.name)}</title>
<style>body{{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}table{{border-collapse:collapse}}
td,th{{border:1px solid #ccc;padding:.3em .6em;text-align:right}}td:first-child{{text-align:left}}img{{max-width:100%}}
.notice{{color:#a00}}</style>
<h1>Run {html.escape(run_.folder.name)}, profile {html.escape(run_.profile.profile)}</h1>
<p class="notice">{NOTICE}</p>
{_html_table(table(rows))}
<p>{html.escape(notes(rows))}</p>
<p>{html.escape(checkpoints(run_, [row["arm"] for row in rows]))}</p>
<p>Not run: {", ".join(not_run) or "nothing"}.</p>
<img src="figures/accuracy.png" alt="Accuracy by arm and by data set">
{_controls(controls)}
{_steps(stated)}<details><summary>Settings</summary><pre>{settings}</pre></details></html>
"""


def _card(run_: Run, rows: list[dict], not_run: list[str]) -> str:
    return f"""# Model card: run {run_.folder.name}

**{NOTICE}**

Trained from `{run_.profile.model.name}` with profile `{run_.profile.profile}`.

{as_markdown(run_, rows)}

Not run: {", ".join(not_run) or "nothing"}.
"""
