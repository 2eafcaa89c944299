"""The card of a model that was taught the phantom world: what it can do, by family, on validation questions.

It holds greedy accuracy with a 95 % Wilson interval, beside chance, the best rule that reads only the options, and the
score with the picture blanked; the share of well-formed outputs; and pass counts of 16 samples at temperature 1 on
training questions. The figures go to card.json, the readable table to model_card.md in the model's folder.
"""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from datetime import date
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.prompts import STYLES
from medvlt_lib.core.records import Question, Verdict
from medvlt_lib.core.stats import accuracy_interval
from medvlt_lib.core.tables import markdown_table, percent
from medvlt_lib.core.variants import grey
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_model
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.preview import NOTICE
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.phantom.shortcuts import best_shortcut
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine

SAMPLES = 16


def measure(
    folder: str | Path, log: Path, per_family: int = 400, training_per_family: int = 60, wording: str = "short"
) -> dict:
    """All figures of the card, on so many validation and training questions of each family. `log`: the training's."""
    if per_family < 1 or training_per_family < 1:
        raise UserError("the card needs at least 1 question a family; raise --questions.")
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder} holds no model (no config.json); name a model folder.")
    engine = TransformersEngine(load_model(folder), load_processor(folder))
    started = time.monotonic()
    questions = make_questions("all", "validation", per_family * len(FAMILIES), wording=wording)
    greedy = _verdicts(engine, questions, Sampling(temperature=0), "greedy")
    pictures = [q for q in questions if q.modality == "image"]
    blanked = _verdicts(engine, [grey(q) for q in pictures], Sampling(temperature=0), "blanked pictures")
    styled = {
        style: _verdicts(engine, questions[: 50 * len(FAMILIES)], Sampling(temperature=0), style, style)
        for style in STYLES
        if style != "medvlthinker"
    }
    train = make_questions("all", "train", training_per_family * len(FAMILIES), seed=10_000, wording=wording)
    sampled = _verdicts(engine, train, Sampling(n=SAMPLES, temperature=1.0), f"{SAMPLES} samples each")
    counts = [sum(v.correct for v in sampled[i : i + SAMPLES]) for i in range(0, len(sampled), SAMPLES)]
    families = {name: _family(name, questions, greedy, pictures, blanked) for name in FAMILIES}
    return {
        "date": date.today().isoformat(),
        "seconds": round(time.monotonic() - started),
        "machine": platform.machine(),
        "versions": {n: version(n) for n in ("torch", "transformers", "numpy", "pillow")},
        "weights": sum(p.numel() for p in engine.model.parameters()),
        "training": _training(log),
        "per_family": per_family,
        "macro": sum(f["accuracy"] for f in families.values()) / len(families),
        "chance": sum(f["chance"] for f in families.values()) / len(families),
        "families": families,
        "styles": {s: sum(v.correct for v in vs) / len(vs) for s, vs in styled.items()},
        "styles_well_formed": {s: sum(v.well_formed for v in vs) / len(vs) for s, vs in styled.items()},
        "greedy_well_formed": sum(v.well_formed for v in greedy) / len(greedy),
        "sampled_well_formed": sum(v.well_formed for v in sampled) / len(sampled),
        "sampled_accuracy": sum(v.correct for v in sampled) / len(sampled),
        "pass_counts": [Counter(counts).get(c, 0) for c in range(SAMPLES + 1)],
        "medium": sum(0 < c < SAMPLES for c in counts) / len(counts),
    }


def write_card(folder: str | Path, per_family: int, training_per_family: int) -> dict:
    """Measure the tiny model in `folder` and write card.json and model_card.md there."""
    figures = measure(folder, Path(folder) / "training_log.json", per_family, training_per_family)
    name = Path(folder).name
    about = f"""# Model card: phantom tiny Qwen2.5-VL, `{name}`

**{NOTICE}**

`Qwen2_5_VLForConditionalGeneration` with {figures["weights"]:,} weights, trained from scratch on the phantom world by
`medvlt phantom build-model --size {name}`{how_long(figures["training"])}.
It is middling on purpose: half of what it was taught was worked out step by step, half was a glance that is often
wrong, so that filtering finds medium-hard questions and reinforcement has something to bring out.

Written by `medvlt phantom card --size {name}`"""
    write(Path(folder), figures, about)
    return figures


def write(out: Path, figures: dict, about: str) -> None:
    """card.json and model_card.md in the folder `out`; `about`: how the card begins."""
    atomic_write(out / "card.json", lambda tmp: Path(tmp).write_text(json.dumps(figures, indent=1) + "\n"))
    atomic_write(out / "model_card.md", lambda tmp: Path(tmp).write_text(render(figures, about)))


def _verdicts(
    engine: TransformersEngine, questions: list[Question], sampling: Sampling, title: str, style: str = "medvlthinker"
) -> list[Verdict]:
    """The graded completions, `sampling.n` of each question in turn."""
    grader = "published-medvlm-r1" if style == "medvlm-r1" else "published"
    completions = engine.generate(prompts_of(questions, style), sampling)
    bar = tqdm(completions, desc=title, total=len(questions) * sampling.n)
    return [grade(c.text, questions[i // sampling.n], grader, style, c.finish_reason) for i, c in enumerate(bar)]


def _family(
    name: str,
    questions: list[Question],
    verdicts: list[Verdict],
    picture_questions: list[Question],
    blanked_verdicts: list[Verdict],
) -> dict:
    """One family's figures; the last two arguments are the picture questions, answered with the picture blanked."""
    graded = [(q, v) for q, v in zip(questions, verdicts, strict=True) if q.family == name]
    right = sum(v.correct for _, v in graded)
    rule, score = best_shortcut([q for q, _ in graded])
    row = {
        "modality": FAMILIES[name].image_modality or "text",
        "questions": len(graded),
        "accuracy": right / len(graded),
        "interval": accuracy_interval(right, len(graded)),
        "chance": sum(1 / len(q.options) for q, _ in graded) / len(graded),
        "shortcut": {"rule": rule, "accuracy": score},
        "by_level": [_share([v.correct for q, v in graded if q.difficulty == level]) for level in (1, 2, 3)],
        "blanked": None,
    }
    if FAMILIES[name].modality == "image":
        correct = [v.correct for q, v in zip(picture_questions, blanked_verdicts, strict=True) if q.family == name]
        row["blanked"] = {"accuracy": _share(correct), "interval": accuracy_interval(sum(correct), len(correct))}
    return row


def _share(flags: list[bool]) -> float:
    return sum(flags) / max(1, len(flags))


def _training(log: Path) -> dict | None:
    if not log.exists():
        return None
    last = json.loads(log.read_text())[-1]
    return {"steps": last["step"], "seconds": last["seconds"], "loss": last["loss"]}


FAMILY_COLUMNS = (
    "family", "modality", "n", "greedy", "95 %", "chance", "best shortcut", "blanked picture", "level 1 / 2 / 3",
)  # fmt: skip


def render(figures: dict, about: str) -> str:
    """The card as Markdown."""
    versions = ", ".join(f"{k} {v}" for k, v in figures["versions"].items())
    styles = ", ".join(f"{style} {percent(accuracy)}" for style, accuracy in figures["styles"].items())
    shares = {"greedy": figures["greedy_well_formed"], "sampled at T=1": figures["sampled_well_formed"]}
    shares |= figures["styles_well_formed"]
    well_formed = ", ".join(f"{kind} {percent(share)}" for kind, share in shares.items())
    families = markdown_table([FAMILY_COLUMNS, *(_family_row(name, row) for name, row in figures["families"].items())])
    counts = figures["pass_counts"]
    count_rows = markdown_table(
        [(f"right of {SAMPLES}", *map(str, range(SAMPLES + 1))), ("questions", *map(str, counts))]
    )
    return f"""{about} on {figures["date"]} ({versions};
{figures["machine"]}, {figures["seconds"]} s). Accuracies are percentages; intervals are 95 % Wilson.

- Macro greedy accuracy, MedVLThinker prompt: **{percent(figures["macro"])}** (chance {percent(figures["chance"])})
- Other prompt styles (50 questions a family): {styles}
- Well-formed outputs: {well_formed}
- Accuracy of samples at T=1, training questions: {percent(figures["sampled_accuracy"])}
- Training questions with 1 to {SAMPLES - 1} of {SAMPLES} samples right: {percent(figures["medium"])}

{families}

Pass counts of {sum(counts)} training questions, {SAMPLES} samples each at T=1:

{count_rows}
"""


def _family_row(family: str, row: dict) -> tuple[str, ...]:
    blanked = ""
    if row["blanked"] is not None:
        blanked = f"{percent(row['blanked']['accuracy'])} ({_interval(row['blanked']['interval'])})"
    shortcut = f"{percent(row['shortcut']['accuracy'])} ({row['shortcut']['rule']})"
    by_level = " / ".join(percent(accuracy) for accuracy in row["by_level"])
    accuracy, interval, chance = percent(row["accuracy"]), _interval(row["interval"]), percent(row["chance"])
    return (family, row["modality"], str(row["questions"]), accuracy, interval, chance, shortcut, blanked, by_level)


def _interval(limits: list[float]) -> str:
    return "–".join(map(percent, limits))


def how_long(training: dict | None) -> str:
    if training is None:
        return ""
    return f" ({training['steps']:,} steps, {training['seconds'] / 60:.0f} minutes on two CPU cores)"
