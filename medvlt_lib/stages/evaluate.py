"""Stage 05: answer the test questions with an arm's model and grade the answers.

Greedy by default, graded by the profile's grader (MedVLThinker: vLLM at temperature 0, re-graded). Accuracy is given by
data set or family and as their unweighted mean; intervals are bootstrapped over images, since some carry several
questions. answers.parquet and scores.json hold no times and no run names: the same answers give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write, read_json, write_json
from medvlt_lib.core.records import Completion, Question, read_questions
from medvlt_lib.core.runs import STAGES, Run, once
from medvlt_lib.core.stats import accuracy_interval, macro, macro_interval
from medvlt_lib.grading.grade import grade
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.engine import Sampling
from medvlt_lib.rollout.parts import graded, roll_out
from medvlt_lib.stages.arms import trained_in

PART = 128  # questions in one part


def finished_arms(run_: Run) -> list[str]:
    """base and every arm whose training has finished, in this run or those named by --inputs."""
    found = ["base"]
    for stage in ("03", "04"):
        folder = run_.stage_folder(stage)
        found += sorted(p.parent.name for p in folder.glob("*/metrics.json"))
    return found


def run(run_: Run, arm: str | None = None) -> dict[str, dict]:
    """Writes 05_eval/<arm> for one arm, or for base and every finished arm; returns the scores by arm."""
    arms = [arm] if arm else finished_arms(run_)
    return {name: _arm(run_, name) for name in arms}


def _arm(run_: Run, arm: str) -> dict:
    inputs = {"test": run_.require("01") / "test.parquet"}
    if arm != "base":
        inputs["checkpoint"] = run_.require(trained_in(run_, arm), arm) / "checkpoint"
    settings = run_.settings("model", "engine", "eval")
    work = lambda folder: evaluate(folder, read_questions(inputs["test"]), run_.profile, inputs.get("checkpoint"), arm)  # noqa: E731
    run_.perform("05", work, settings, inputs, arm)
    return read_json(run_.folder / STAGES["05"] / arm / "scores.json")


def evaluate_checkpoint(folder: Path, run_: Run, model: str) -> dict:
    """Answers and scores in `folder` of a model that is no arm of the run: a model or adapter folder, or a Hub name."""
    adapter = Path(model) if (Path(model) / "adapter_config.json").is_file() else None
    profile = run_.profile if adapter else run_.profile.with_model(model)
    inputs = {"test": run_.require("01") / "test.parquet", **({"model": Path(model)} if Path(model).is_dir() else {})}
    settings = {**run_.settings("engine", "eval"), **{f"model.{k}": v for k, v in profile.model.model_dump().items()}}
    work = lambda folder: evaluate(folder, read_questions(inputs["test"]), profile, adapter, Path(model).name)  # noqa: E731
    once(folder, work, settings, inputs, "choose another --out")
    return read_json(folder / "scores.json")


def evaluate(folder: Path, questions: list[Question], profile, checkpoint: Path | None, name: str) -> dict:
    """Answers and scores of one model in `folder`; returns the headline figures."""
    import shutil

    import pyarrow as pa
    import pyarrow.parquet as pq

    e = profile.eval
    sampling = Sampling(e.samples, e.temperature, e.max_new_tokens, e.seed)
    engine = lambda: build_engine(profile, checkpoint)  # noqa: E731
    row = lambda completion, question: _row(completion, question, profile)  # noqa: E731
    of_chunk = graded(profile.model.prompt_style, sampling, row)
    rows = list(roll_out(folder / "parts", questions, engine, of_chunk, PART, f"evaluating {name}"))
    scores = score(rows)
    atomic_write(folder / "answers.parquet", lambda temporary: pq.write_table(pa.Table.from_pylist(rows), temporary))
    write_json(folder / "scores.json", scores)
    shutil.rmtree(folder / "parts")
    return {"macro": scores["macro"], "questions": scores["questions"]}


def _row(completion: Completion, question: Question, profile) -> dict:
    verdict = grade(
        completion.text, question, profile.eval.grader, profile.model.prompt_style, completion.finish_reason
    )
    return {
        "id": question.id,
        "sample": completion.sample,
        "dataset": question.family or question.dataset,
        "modality": question.modality,
        "cluster": question.image_ids[0] if question.image_ids else question.id,
        "answer_label": question.answer_label,
        "letter": verdict.letter,
        "correct": verdict.correct,
        "well_formed": verdict.well_formed,
        "truncated": verdict.truncated,
        "tokens": completion.tokens,
        "text": completion.text,
    }


def score(rows: list[dict]) -> dict:
    """Accuracy by data set with Wilson intervals (bootstrapped where answers share a picture), and their macro mean."""
    if not rows:
        raise UserError("there are no answers to score; the test set is empty.")
    names = list(dict.fromkeys(r["dataset"] for r in rows))
    correct, strata, clusters = ([r[k] for r in rows] for k in ("correct", "dataset", "cluster"))
    share = lambda key: sum(bool(r[key]) for r in rows) / len(rows)  # noqa: E731
    by_set = {}
    for name in names:
        own = [r for r in rows if r["dataset"] == name]
        right, same = [r["correct"] for r in own], [r["cluster"] for r in own]
        alone = len(set(same)) == len(own)  # else questions share a picture, or a question was sampled more than once
        interval = accuracy_interval(sum(right), len(own)) if alone else macro_interval(right, [name] * len(own), same)
        by_set[name] = {"questions": len(own), "accuracy": sum(right) / len(own), "interval": interval}
    return {
        "questions": len(rows),
        "macro": macro(correct, strata),
        "interval": macro_interval(correct, strata, clusters),
        "well_formed": share("well_formed"),
        "truncated": share("truncated"),
        "no_answer": sum(r["letter"] is None for r in rows) / len(rows),
        "mean_tokens": sum(r["tokens"] for r in rows) / len(rows),
        "datasets": by_set,
    }


def paired(before: list[dict], after: list[dict]) -> dict:
    """The macro difference of two arms on the same questions, with its paired interval. Raises UserError if they differ."""
    if [(r["id"], r["sample"]) for r in before] != [(r["id"], r["sample"]) for r in after]:
        raise UserError("the two arms answered different questions; evaluate both on the same test set.")
    difference = [int(a["correct"]) - int(b["correct"]) for a, b in zip(after, before, strict=True)]
    strata, clusters = [r["dataset"] for r in after], [r["cluster"] for r in after]
    return {"difference": macro(difference, strata), "interval": macro_interval(difference, strata, clusters)}
