"""What a report tells of a run, as plain data: read from its manifest and files alone. No torch here.

Every part is there or says that it is missing: an empty list is a stage that was not run. Text of data and models
stands in it as it is; the page and the card escape it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medvlt_lib.core import control_rows, plots
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, read_jsonl
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Question
from medvlt_lib.core.runs import STAGES, Run
from medvlt_lib.core.stage import finished_in, is_finished
from medvlt_lib.data.card import leakage_rows, leakage_sentence, overview_rows
from medvlt_lib.stages.answer_view import ShownAnswer, picture_url, shown_answer
from medvlt_lib.training.monitor import alarms, grpo_panels

SETS = ("train_text", "train_image", "validation", "test")
KINDS = {  # of examples, by whether the base was right and whether the arm is
    (False, True): "wrong before, right after training",
    (True, False): "right before, wrong after training",
    (False, False): "wrong before and after training",
    (True, True): "right before and after training",
}
CHOICE = (
    "The trained arm with the highest macro accuracy, and for each kind the first test question of that kind, one with "
    "a picture where there is one; nobody picked them."
)


def examples(run_: Run, rows: Sequence[dict]) -> dict[str, Any] | None:
    """Three questions with the answers of the base and of the best trained arm, and how many questions of the test set
    are of each kind. None where base and a trained arm were not both evaluated, or the test questions are not there."""
    import pyarrow.parquet as pq

    test = run_.stage_folder("01") / "test.parquet"
    trained = [row for row in rows if row["arm"] != "base"]
    if not test.exists() or not trained or len(trained) == len(rows):
        return None
    arm = max(trained, key=lambda row: row["macro"])["arm"]
    before, after = (
        {
            r["id"]: r
            for r in pq.read_table(run_.folder / STAGES["05"] / a / "answers.parquet").to_pylist()
            if not r["sample"]
        }
        for a in ("base", arm)
    )
    kinds: dict[tuple[bool, bool], list[str]] = {kind: [] for kind in KINDS}
    for name in sorted(before, key=lambda name: before[name]["modality"] != "image"):  # stable: pictures first
        kinds[before[name]["correct"], after[name]["correct"]].append(name)
    chosen = [own[0] for own in kinds.values() if own][:3]
    found = QuestionFiles([test]).named(chosen)
    shown = []
    for name in chosen:
        question = found[name]
        answers = {a: _answer(own[name], question) for a, own in (("base", before), (arm, after))}
        kind = KINDS[before[name]["correct"], after[name]["correct"]]
        shown.append({"kind": kind, "question": question, "pictures": _pictures(question), "answers": answers})
    return {"arm": arm, "choice": CHOICE, "counts": [(KINDS[k], len(own)) for k, own in kinds.items()], "shown": shown}


def _pictures(question: Question) -> list[str]:
    """A question's pictures as addresses; none where they lie elsewhere and cannot be read."""
    try:
        return [picture_url(image) for image in question.images]
    except UserError:
        return []


def _answer(row: dict, question: Question) -> ShownAnswer:
    return shown_answer(row["text"], row["letter"], row["correct"], question, row["well_formed"])


def trainings(run_: Run) -> list[dict[str, Any]]:
    """Each finished training: its arm, the method, its curves as (what they show, figure), and the alarms it gave."""
    found = []
    for stage, method in (("03", "SFT"), ("04", "GRPO")):
        for arm in finished_in(run_.stage_folder(stage)):
            path = run_.stage_folder(stage, arm) / "log.jsonl"
            log = list(read_jsonl(path)) if path.exists() else []
            given = alarms(log, run_.profile.for_arm(arm).grpo.order) if method == "GRPO" else {}
            metrics = read_json(path.with_name("metrics.json"))
            drawn = _curves(method, log)
            found.append(
                {"arm": arm, "method": method, "curves": drawn, "alarms": given, "steps": metrics.get("steps")}
            )
    return found


def _curves(method: str, log: list[dict]) -> list[tuple[str, Figure]]:
    panels = grpo_panels(log) if method == "GRPO" else {"training loss, nats a token": {"loss": "mean of 5 steps"}}
    drawn = []
    for label, lines in panels.items():
        lines = {key: name for key, name in lines.items() if any(key in row for row in log)}
        if lines:
            drawn.append((label, plots.panels(log, {label: lines}, width=plots.PHONE)))
    keys = ("step", "validation_accuracy", "validation_low", "validation_high")
    points = [tuple(row[key] for key in keys) for row in log if all(key in row for key in keys)]
    return [*drawn, ("validation accuracy", plots.validation(points))] if points else drawn


def controls(run_: Run, arms: Sequence[str]) -> list[dict[str, Any]]:
    """The controls of each evaluated arm that has some: table and notes."""
    found = []
    for arm in [a for a in arms if is_finished(run_.folder / STAGES["05b"] / a)]:
        rows = read_json(run_.folder / STAGES["05b"] / arm / "controls.json")
        found.append({"arm": arm, "rows": rows, "table": control_rows.table(rows), "notes": control_rows.notes(rows)})
    return found


def data(run_: Run) -> dict[str, Any] | None:
    """The data card's overview, what leaks, and the sources; None where 01 is not there."""
    path = run_.stage_folder("01") / "data_card.json"
    if not path.exists():
        return None
    card = read_json(path)
    sets = [name for name in SETS if name in card]
    leaks = leakage_rows(card["leakage"])
    flagged = any(row["flagged_train"] for row in card["leakage"]["pairs"])
    return {
        "table": overview_rows(card, sets),
        "leakage": leakage_sentence(card["leakage"]),
        "leaks": leaks,
        "flagged": flagged,
        "sources": sorted(
            f"{name}, revision {revision}" for name, revision in run_.manifest.get("sources", {}).items()
        ),
    }


def recipe(run_: Run) -> dict[str, Any]:
    """Settings (which of them were changed from the profile's), versions, hardware, seconds of each stage, and the
    hashes of what each stage was made from."""
    profile, changed = run_.profile.model_dump(), run_.manifest.get("overrides", {})
    rows: list[tuple[str, ...]] = [("setting", "value", "changed")]
    for section, own in profile.items():
        for key, value in own.items() if isinstance(own, dict) else [("", own)]:
            name = f"{section}.{key}" if key else section
            rows.append((name, "none" if value is None else str(value), "yes" if name in changed else ""))
    stages = [("stage", "state", "seconds")]
    for name, own in run_.manifest.get("stages", {}).items():
        stages.append((name, own["state"], str(own.get("seconds", ""))))
    packages = [("package", "version"), *((k, v) for k, v in run_.manifest["versions"].items() if v)]
    machine = ", ".join(f"{key} {value}" for key, value in run_.manifest["hardware"].items())
    return {
        "settings": rows,
        "stages": stages,
        "versions": packages,
        "hardware": machine,
        "inputs": _inputs(run_.folder),
    }


def _inputs(folder: Path) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("stage", "made from", "SHA-256, first 16")]
    for path in sorted(folder.glob("0[1-5]*/**/stage.json")):
        for name, digest in read_json(path).get("inputs", {}).items():
            rows.append((str(path.parent.relative_to(folder)), name, digest[:16]))
    return rows
