"""Stage 06: one page and one model card that say what a run found, how sure that is, and what was not run.

Both are written from the run's manifest and files alone (stages/report_parts.py) with the templates in assets/report.
The page holds its figures, fetches nothing and runs no script.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from medvlt_lib.core import plots
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write, write_json, write_text
from medvlt_lib.core.plot_style import svg
from medvlt_lib.core.results import NOTICE, check_alike, checkpoints, notes, results, table
from medvlt_lib.core.runs import STAGES, Run
from medvlt_lib.core.stage import finished_in
from medvlt_lib.core.tables import markdown_table, plain_markdown, visible
from medvlt_lib.stages import report_parts as parts
from medvlt_lib.stages import steps, verdict
from medvlt_lib.stages.arms import ARMS
from medvlt_lib.tools.card_parts import hub_metadata, limits
from medvlt_lib.training.monitor import ALARMS

TEMPLATES = Path(__file__).parents[1] / "assets" / "report"


def run(run_: Run) -> dict:
    """Writes 06_analysis: tables/results.json and tables/steps.json, figures/accuracy.png, report.html and
    model_card.md. Raises UserError for a folder that is no run."""
    if not (run_.folder / "manifest.json").exists():
        raise UserError(f"{run_.folder} is no run, so there is nothing to report; name one with --run.")
    arms, base = _evaluated(run_), run_.folder / STAGES["05"]
    inputs = {f"{a}.{n}": base / a / n for a in arms for n in ("scores.json", "answers.parquet")}
    controlled = [a for a in arms if a in finished_in(run_.folder / STAGES["05b"])]
    inputs |= {f"{a}.controls.json": run_.folder / STAGES["05b"] / a / "controls.json" for a in controlled}
    test = run_.stage_folder("01") / "test.parquet"
    inputs |= {"test": test} if test.exists() else {}
    if arms:
        check_alike(base, arms)
    run_.redo.add("06")  # it takes seconds, and arms may have been added
    with run_.stage("06", {}, inputs) as stage:
        # Step 1: the figures of every arm, and their differences from the base.
        rows = results(run_, arms)
        stated = steps.arm_steps(run_, arms) if test.exists() else []
        write_json(stage.folder / "tables" / "results.json", rows)
        write_json(stage.folder / "tables" / "steps.json", stated)
        if rows:
            drawn = plots.accuracy(rows)
            atomic_write(
                stage.folder / "figures" / "accuracy.png", lambda tmp: drawn.savefig(tmp, format="png", dpi=130)
            )
        # Step 2: the page and the model card, of the same content.
        told = content(run_, rows, stated)
        write_text(stage.folder / "report.html", page(told))
        write_text(stage.folder / "model_card.md", card(told, run_))
        not_run = [a for a in ARMS if a not in arms]
        stage.metrics = {"arms": arms, "not_run": not_run, "macro": {r["arm"]: r["macro"] for r in rows}}
        return stage.metrics


def evaluated_arms(run_: Run) -> list[str]:
    """Arms with finished evaluations, the papers' arms first. Raises UserError when there is none."""
    found = _evaluated(run_)
    if not found:
        raise UserError(f"{run_.folder} has no evaluated arm; run `medvlt eval --run {run_.folder.name}` first.")
    return found


def _evaluated(run_: Run) -> list[str]:
    found = finished_in(run_.folder / STAGES["05"])
    return [a for a in ARMS if a in found] + [a for a in found if a not in ARMS]


def content(run_: Run, rows: list[dict], stated: list[dict]) -> dict[str, Any]:
    """Everything that the page and the card tell, as plain data and figures."""
    arms = [row["arm"] for row in rows]
    gains = verdict.differences(rows)
    return {
        "name": run_.folder.name,
        "profile": run_.profile.profile,
        "model": run_.profile.model.name,
        "notice": NOTICE,
        "headline": verdict.headline(rows),
        "rows": rows,
        "results": table(rows) if rows else [],
        "notes": notes(rows) if rows else "",
        "checkpoints": checkpoints(run_, arms),
        "gains": gains,
        "differences": verdict.differences_table(gains) if gains else [],
        "controls": parts.controls(run_, arms),
        "steps": [steps.table(stated), steps.error_table(stated)] if stated else [],
        "steps_notes": steps.NOTES,
        "examples": parts.examples(run_, rows),
        "trainings": parts.trainings(run_),
        "alarm_names": list(ALARMS),
        "data": parts.data(run_),
        "recipe": parts.recipe(run_),
        "not_run": verdict.not_run(run_, arms),
        "limits": limits(run_.profile),
    }


def page(told: dict[str, Any]) -> str:
    """The content as one HTML file. Text of data and models is escaped by the template's autoescape."""
    return templates().get_template("page.html.jinja").render(told, figures=_figures(told), drawn=_drawn)


@functools.cache
def templates() -> jinja2.Environment:
    """The HTML templates of assets/report: every expression is escaped, and nothing in it acts unseen."""
    return _environment(visible, autoescape=True)


def _environment(shown: Callable[[object], str], autoescape: bool) -> jinja2.Environment:
    """Templates of assets/report; `shown`: what becomes of every expression that is not marked as safe."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else shown(value),
    )


def card(told: dict[str, Any], run_: Run) -> str:
    """The content as a model card in the Hub's form. Every expression is escaped but those marked as safe."""

    def safe_table(cells: Sequence[Sequence[object]]) -> Markup:
        return Markup(markdown_table([plain_markdown(cell) for cell in row] for row in cells))

    adapter = run_.profile.model.lora is not None
    trained = [training["arm"] for training in told["trainings"]]
    metadata = hub_metadata(run_.profile, trained, adapter, run_.manifest.get("sources", {}))
    template = _environment(plain_markdown, autoescape=False).get_template("card.md.jinja")
    return template.render(told, metadata=Markup(metadata), table=safe_table)


def _figures(told: dict[str, Any]) -> dict[str, list[Markup]]:
    """The page's figures, each drawn for a wide page and for a phone."""
    rows, gains, asked = told["rows"], told["gains"], told["controls"]
    found: dict[str, list[Markup]] = {}
    if rows:
        found["accuracy"] = [
            _drawn(plots.accuracy(rows, width), "Accuracy of each arm, and by data set, with 95 % intervals")
            for width in (plots.REPORT, plots.PHONE)
        ]
    if gains:
        spans = [(100 * g["difference"], *(100 * end for end in g["interval"])) for g in gains]
        label = f"difference from the base, points (95 % paired interval), n = {rows[0]['questions']} questions"
        found["differences"] = [
            _drawn(plots.differences({"": spans}, [g["arm"] for g in gains], label, width), label)
            for width in (plots.REPORT, plots.PHONE)
        ]
    if asked:
        kinds = [row["control"] for row in asked[0]["rows"]]
        by_arm = {own["arm"]: {row["control"]: row for row in own["rows"]} for own in asked}
        shared = [kind for kind in kinds if all(kind in own for own in by_arm.values())]
        shares: dict[str, Sequence[float]] = {kind: [own[kind]["macro"] for own in by_arm.values()] for kind in shared}
        below = {(k, a) for a, own in by_arm.items() for k in shared if own[k]["explanation"]}
        chance = asked[0]["rows"][0]["chance"]
        found["controls"] = [
            _drawn(
                plots.heat_map(shares, list(by_arm), chance, below, width), "Accuracy of each arm in each control, %"
            )
            for width in (plots.REPORT, plots.PHONE)
        ]
    return found


def _drawn(figure: Any, what: str) -> Markup:
    return Markup(svg(figure, what))
