"""Stage 05b: the same image questions asked otherwise, to see what an arm's accuracy rests on.

Without the picture, with a grey one, with another question's, with the options in another order, without thinking and
with a short budget. Answers to the questions as they stand come from 05_eval. answers.parquet and controls.json hold no
times and no run names: the same answers give the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

from medvlt_lib.core import variants
from medvlt_lib.core.config import Profile
from medvlt_lib.core.control_rows import GREY, NO_PICTURE, NO_THINKING, OTHER, REORDERED, SHORT, compared
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.question_files import QuestionFiles, write_selection
from medvlt_lib.core.records import Question, write_questions
from medvlt_lib.core.runs import Run, trained_in
from medvlt_lib.models.loading import weights_id
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.cluster import Work, write_on_cluster
from medvlt_lib.rollout.engine import Engine
from medvlt_lib.rollout.parts import missing, part_size, parts_of, rows_of, with_progress
from medvlt_lib.stages import evaluate
from medvlt_lib.stages.answers import graded_answers, write_answers

FIXED = 100  # image questions that are asked unless all are
BUDGET = 4  # the short budget is this part of eval.max_new_tokens


def run(run_: Run, arm: str | None = None, every: bool = False, ray: str | None = None) -> dict[str, list[dict]]:
    """Writes 05b_controls/<arm> for one arm, or for base and every finished arm; returns the rows of each.

    Asks FIXED image questions of the test set, or with `every` all of them; evaluates arms that are not yet (05).
    Raises UserError for a test set without image questions.
    """
    profile, found = run_.profile, {}
    evaluate.run(run_, arm, ray)
    test = run_.require("01") / "test.parquet"
    settings = {**run_.settings("model", "engine", "eval"), "model.weights": weights_id(profile)}
    settings["controls.questions"] = "all" if every else FIXED
    for name in [arm] if arm else evaluate.finished_arms(run_):
        inputs = {"test": test, "answers": run_.require("05", name) / "answers.parquet"}
        if name != "base":
            inputs["checkpoint"] = run_.require(trained_in(run_, name), name) / "checkpoint"
        with run_.stage(
            "05b", settings, inputs, name, free=("controls.questions",), scratch=("all", str(FIXED))
        ) as stage:
            if not stage.finished:
                work = stage.folder / str(settings["controls.questions"])
                stage.metrics = control(stage.folder, work, inputs, profile, None if every else FIXED, name, ray)
        found[name] = read_json(stage.folder / "controls.json")
    return found


def control(
    folder: Path,
    work: Path,
    inputs: dict[str, Path],
    profile: Profile,
    number: int | None,
    name: str,
    ray: str | None,
) -> dict[str, Any]:
    """Answers and rows of one arm in `folder`, with what is under way in `work`; returns each control's accuracy."""
    import pyarrow.parquet as pq

    # Step 1: choose the questions, and write them down as each control asks them.
    chosen = work / "chosen.parquet"
    write_selection(inputs["test"], fixed_places(QuestionFiles([inputs["test"]]), number), chosen)
    questions = list(QuestionFiles([chosen]))
    asked = work / "asked.parquet"
    write_questions(asked_otherwise(questions), asked)
    # Step 2: answer and grade them, part by part.
    parts = parts_of(work / "parts", QuestionFiles([asked]), part_size(profile, evaluate.PART))
    checkpoint, title = inputs.get("checkpoint"), f"controls of {name}"
    if missing(parts) and ray:
        write_on_cluster(ray, parts, title, Work(control_answers, profile, checkpoint))
    elif missing(parts):
        engine = build_engine(profile, checkpoint)
        for part in with_progress(parts, title):
            part.write(control_answers(engine, part.questions(), profile))
    # Step 3: set them beside the answers to the questions as they stand.
    rows = list(rows_of(parts))
    found = compared(questions, pq.read_table(inputs["answers"]).to_pylist(), rows)
    write_answers(rows, folder / "answers.parquet")
    write_json(folder / "controls.json", found)
    return {row["control"]: row["macro"] for row in found}


def fixed_places(test: QuestionFiles, number: int | None) -> list[int]:
    """Where image questions stand in the test set: `number` of them, spread evenly over data sets or families, the
    first of each; None: all. Raises UserError where there is none."""
    ranked, seen = [], Counter()
    for place, row in enumerate(test.columns("modality", "family", "dataset")):
        if row["modality"] == "image":
            group = row["family"] or row["dataset"]
            ranked.append((seen[group], place))
            seen[group] += 1
    if not ranked:
        raise UserError("the test set has no image questions, about which controls ask; choose another data.test.")
    return sorted(place for _, place in sorted(ranked)[:number])


def asked_otherwise(questions: Sequence[Question]) -> Iterator[Question]:
    """Every question in the form of every control, whose name stands in `extra` beside the question's id. With
    another's picture also what that one shows: where the other question reads the same, its answer, if that is an
    option and not the right one here."""

    def marked(changed: Question, name: str, **more: Any) -> Question:
        extra = {"control": name, "question": changed.id, **more}
        return replace(changed, id=f"{changed.id} ({name})", extra=extra, reasoning=None)

    for question in questions:
        yield marked(variants.without_picture(question), NO_PICTURE)
    for question in questions:
        yield marked(variants.grey(question), GREY)
    for changed, other in variants.with_pictures_of_others(list(questions)):
        if other is not None:
            tells = other.question == changed.question and other.answer in changed.options.values()
            yield marked(changed, OTHER, shown=other.answer if tells and other.answer != changed.answer else None)
    for question in questions:
        yield marked(variants.reordered(question, Random(f"order:{question.id}")), REORDERED)
    for name in (NO_THINKING, SHORT):
        for question in questions:
            yield marked(question, name)


def control_answers(engine: Engine, questions: list[Question], profile: Profile) -> Iterator[dict]:
    """One graded answer to each question of `asked_otherwise`, with the control's name, the id of the question and the
    text of the option that was named."""
    by_id = {question.id: question for question in questions}
    # Those that change the question alone are asked together, which is quicker.
    for name, own in groupby(questions, key=lambda question: _setting(question.extra["control"])):
        for row in graded_answers(engine, list(own), settings_of(profile, name)):
            question = by_id[row["id"]]
            yield {
                **row,
                "control": question.extra["control"],
                "question": question.extra["question"],
                "named": question.options.get(row["letter"]),
                "shown": question.extra.get("shown"),
            }


def _setting(name: str) -> str | None:
    """The control's name where it asks with other settings."""
    return name if name in (NO_THINKING, SHORT) else None


def settings_of(profile: Profile, name: str | None) -> Profile:
    """The profile with which a control asks: one answer each, and without thinking or with the short budget."""
    e, model = profile.eval.model_copy(update={"samples": 1}), profile.model
    if name == SHORT:
        e = e.model_copy(update={"max_new_tokens": max(1, e.max_new_tokens // BUDGET)})
    if name == NO_THINKING:
        model = model.model_copy(update={"prompt_style": "no-think"})
    return profile.model_copy(update={"eval": e, "model": model})
