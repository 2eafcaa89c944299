"""What every notebook of the course begins and ends with; the ideas stand in the notebooks themselves."""

from __future__ import annotations

import html
import json
import os
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.memory import peak_memory_mb
from medvlt_lib.core.records import Completion, Question, Verdict
from medvlt_lib.core.runs import STAGES, Run, open_run
from medvlt_lib.course.live import (  # noqa: F401 (notebooks take them from here)
    answer_box,
    live_curve,
    live_grpo,
    picture_tag,
    show_sample,
    side_by_side,
)
from medvlt_lib.rollout.engine import Engine, Sampling, prompts_of

ASSETS = Path(__file__).parents[1] / "assets"
NOTEBOOKS = ASSETS / "notebooks"  # a link to the project's notebooks/; a wheel holds the files themselves
RESULTS = ASSETS / "results"  # the same for results/
REFERENCE = ASSETS / "reference"
SECTIONS = {
    "00": ("model", "engine"),
    "01": ("data",),
    "02": ("model", "engine", "filtering"),
    "03": ("model", "sft", "launch"),
    "04": ("model", "grpo", "launch"),
    "05": ("model", "engine", "eval"),
    "06": ("eval",),
}
FIRST = (  # the settings that a notebook shows at once, five at most; the others are folded
    "model.name", "engine.kind", "data.train_text", "data.train_image", "data.train_text_size", "data.train_image_size",
    "data.label_noise", "filtering.samples", "filtering.keep_from", "filtering.keep_to", "sft.learning_rate",
    "sft.batch", "sft.epochs", "sft.target", "grpo.prompts", "grpo.group_size", "grpo.learning_rate", "grpo.max_steps",
    "eval.grader", "eval.samples", "eval.max_new_tokens",
)  # fmt: skip
_started: dict[str, float] = {}


def begin(
    notebook: str, profile: str, run: str | None, seed: int, settings: dict[str, Any], use_reference: bool = False
) -> Run:
    """Open the notebook's run and show versions, hardware, settings and the time it took elsewhere.

    Works from the project's folder, whether Jupyter was started there or in notebooks/. `seed` sets every stage's own
    seed. With `use_reference` the stages before this notebook are copied from the small run that ships with the
    package. The notebook's old metrics file is removed. Raises UserError for whatever the profile or run refuses.
    """
    if Path.cwd().name == "notebooks":
        os.chdir("..")
    number = notebook[:2]
    _started[notebook] = time.monotonic()
    chosen = {f"{section}.seed": seed for section in ("filtering", "sft", "grpo", "eval")} | settings
    opened = (
        _from_reference(number, profile, run or "reference", chosen)
        if use_reference
        else open_run(profile, run, chosen)
    )
    metrics_path(opened, notebook).unlink(missing_ok=True)
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, where ipywidgets is not installed
    if number not in ("01", "06"):
        _import_quietly()
    _show_setup(opened, notebook)
    return opened


def _import_quietly() -> None:
    """The slow imports, here rather than in the first cell that computes, and without bars for loading weights."""
    from transformers.utils import logging

    from medvlt_lib.rollout import transformers_engine  # noqa: F401

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def finish(run: Run, notebook: str, **metrics: Any) -> None:
    """Write the notebook's metrics file, with seconds and peak memory, and show these beside the recorded ones.

    Call it in the last cell.
    """
    seconds = time.monotonic() - _started[notebook]
    values = {
        "notebook": notebook,
        "profile": run.profile.profile,
        "seconds": round(seconds, 1),
        "peak_memory_mb": _peak_memory(),
        **metrics,
    }
    write_json(metrics_path(run, notebook), values)
    record = expected(notebook, run.profile.profile)
    rows = [("", "seconds", "peak memory, MB"), ("here", f"{seconds:.0f}", values["peak_memory_mb"])]
    rows.append(
        ("recorded", f"{record['seconds']:.0f}", record["peak_memory_mb"]) if record else ("recorded", "-", "-")
    )
    print(f"written: {metrics_path(run, notebook)}")
    show_table(rows)


def metrics_path(run: Run, notebook: str) -> Path:
    return run.folder / "notebooks" / f"{notebook}.metrics.json"


def ask(
    engine: Engine,
    profile: Profile,
    questions: list[Question],
    n: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[tuple[Completion, Verdict]]]:
    """`n` graded answers to each question, in the profile's prompt style and with its evaluation grader."""
    from medvlt_lib.grading.grade import grade

    style = profile.model.prompt_style
    sampling = Sampling(n, temperature, profile.eval.max_new_tokens, seed)
    completions = list(engine.generate(prompts_of(questions, style), sampling))
    graded = [
        (c, grade(c.text, q, profile.eval.grader, style, c.finish_reason))
        for c, q in zip(completions, (q for q in questions for _ in range(n)), strict=True)
    ]
    return [graded[i : i + n] for i in range(0, len(graded), n)]


def trains_here(run: Run, command: str) -> bool:
    """Whether a training stage runs in this kernel; if not, print what launches it on many devices."""
    from medvlt_lib.training.launch import how_to_launch

    launch = how_to_launch(run, [*command.split(), "--run", run.folder.name])
    if launch:
        print(f"{launch}\nThen go on here.")
    return launch is None


def show_table(cells: list[tuple], fold: str = "") -> None:
    """A table in the notebook; the first row is its head. `fold`: words to click on, which open it."""
    from IPython.display import HTML, display

    lines = [
        "".join(f"<{tag} style='text-align:left'>{html.escape(_cell_text(cell))}</{tag}>" for cell in row)
        for tag, row in [("th", cells[0]), *(("td", row) for row in cells[1:])]
    ]
    table = "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
    display(HTML(f"<details><summary>{html.escape(fold)}</summary>{table}</details>" if fold else table))


def _cell_text(cell: Any) -> str:
    return ", ".join(f"{k}: {v}" for k, v in cell.items()) if isinstance(cell, dict) else str(cell)


def show_tokens(tokens: list[str], labels: list[int]) -> None:
    """A row of tokens as they stand: those that carry loss on blue, the others (label -100) on grey."""
    from IPython.display import HTML, display

    style = "color:#111;border:1px solid #fff;white-space:pre-wrap;font-family:monospace;font-size:85%"
    boxes = ""
    for token, label in zip(tokens, labels, strict=True):
        text = html.escape(token).replace("\n", "⏎<br>")
        boxes += f"<span style='background:{'#cfe8f7' if label >= 0 else '#eeeeee'};{style}'>{text}</span>"
    display(HTML(f"<div style='line-height:1.7'>{boxes}</div>"))


def show_answers(question: Question, answers: list[tuple[Completion | str, Verdict]], title: str = "") -> None:
    """One question, its picture and several graded answers side by side, with their rewards; green is right."""
    from IPython.display import HTML, display

    options = "<br>".join(
        f"{k}. {html.escape(v)}" + (" ← gold" if k == question.answer_label else "")
        for k, v in question.options.items()
    )
    boxes = ""
    for a, verdict in answers:
        note = f", reward {verdict.reward:g}" if verdict.reward is not None else ""
        boxes += answer_box(a if isinstance(a, str) else a.text, verdict.correct, note)
    text = f"<b>{html.escape(title or question.group)}</b><br>{html.escape(question.question)}<br>{options}"
    display(HTML(side_by_side("".join(map(_picture, question.images)), text, boxes)))


def _picture(image: str | bytes) -> str:
    """A picture inside the page."""
    import base64

    from medvlt_lib.core.images import load_image, png

    return picture_tag(base64.b64encode(png(load_image(image))).decode(), "png")


def expected(notebook: str, profile: str) -> dict | None:
    """A notebook's recorded time and memory on a profile (results/course-PROFILE.json), where it was run."""
    path = RESULTS / f"course-{profile}.json"
    return read_json(path)["notebooks"].get(notebook) if path.exists() else None


def _show_setup(run: Run, notebook: str) -> None:
    from importlib.metadata import version

    profile = run.profile
    record = expected(notebook, profile.profile)
    took = f"{record['seconds']:.0f} s, {record['peak_memory_mb']} MB" if record else "not run yet on this profile"
    rows = [
        ("run", f"{run.folder} (profile {profile.profile})"),
        ("versions", ", ".join(f"{n} {version(n)}" for n in ("torch", "transformers", "trl", "peft"))),
        ("hardware", f"{profile.model.device}, {os.cpu_count()} cores, {_memory()}"),
        ("recorded time and memory", took),
    ]
    settings = run.settings(*SECTIONS[notebook[:2]]).items()
    shown = [(key, json.dumps(value)) for key, value in settings if value is not None]
    folded = [row for row in shown if row[0] not in FIRST]
    show_table([("", ""), *rows, *(row for row in shown if row[0] in FIRST)])
    if folded:
        show_table([("setting", "value"), *folded], fold=f"{len(folded)} more settings")


def _memory() -> str:
    import psutil

    return f"{psutil.virtual_memory().available / 2**30:.0f} GB of memory free"


def _peak_memory() -> int:
    """Peak memory of this process so far in MB; on a GPU, the peak of the GPU."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    return peak_memory_mb()


def _from_reference(number: str, profile: str, name: str, settings: dict[str, Any]) -> Run:
    """A run whose stages before `number` are those of the reference run."""
    if not (REFERENCE / "manifest.json").exists():
        raise UserError(f"{REFERENCE} holds no reference run; make it with `medvlt reference`.")
    manifest = read_json(REFERENCE / "manifest.json")
    if manifest["profile"]["profile"] != profile:
        reference = manifest["profile"]["profile"]
        raise UserError(
            f"the reference run has profile {reference}, not {profile}; set PROFILE to it or USE_REFERENCE to False."
        )
    run = open_run(profile, name, {**manifest["overrides"], **settings})
    for stage, folder in STAGES.items():
        if stage < number and not (run.folder / folder).exists() and (REFERENCE / folder).exists():
            shutil.copytree(REFERENCE / folder, run.folder / folder)
    return run
