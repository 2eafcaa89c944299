"""Stage 05: answer the test questions with an arm's model and grade the answers.

Greedy by default, graded by the profile's grader (MedVLThinker: vLLM at temperature 0, re-graded). Accuracy is the mean
over answers, by data set or family, and the unweighted mean of these. Intervals take the answers on one picture, or to
one question, as one. answers.parquet and scores.json hold no times and no run names: the same answers give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write, read_json, write_json
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Completion, Question
from medvlt_lib.core.results import interval_kinds, percent_span, questions_and_answers
from medvlt_lib.core.runs import Run, trained_in
from medvlt_lib.core.stage import finished_in, work_in
from medvlt_lib.core.stats import macro, macro_interval, wilson_of_set
from medvlt_lib.core.tables import percent
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import weights_id
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.cluster import Work, write_on_cluster
from medvlt_lib.rollout.engine import Engine, Sampling, prompts_of
from medvlt_lib.rollout.parts import missing, part_size, parts_of, rows_of, with_progress

PART = 128  # questions in one part


def finished_arms(run_: Run) -> list[str]:
    """base and every arm whose training has finished, in this run or those named by --inputs."""
    return ["base", *(arm for stage in ("03", "04") for arm in finished_in(run_.stage_folder(stage)))]


def run(run_: Run, arm: str | None = None, ray: str | None = None) -> dict[str, dict]:
    """Writes 05_eval/<arm> for one arm, or for base and every finished arm; returns the scores by arm.

    With `ray`, an address or local:N (medvlt_lib/rollout/cluster.py), the engines of a cluster answer.
    """
    profile, scores = run_.profile, {}
    settings = {**run_.settings("model", "engine", "eval"), "model.weights": weights_id(profile)}
    test = run_.require("01") / "test.parquet"
    for name in [arm] if arm else finished_arms(run_):
        inputs = {"test": test}
        if name != "base":
            inputs["checkpoint"] = run_.require(trained_in(run_, name), name) / "checkpoint"
        with run_.stage("05", settings, inputs, name, scratch=("parts",)) as stage:
            if not stage.finished:
                stage.metrics = evaluate(stage.folder, test, profile, inputs.get("checkpoint"), name, ray)
        scores[name] = read_json(stage.folder / "scores.json")
    return scores


def evaluate_checkpoint(folder: Path, run_: Run, model: str, ray: str | None = None) -> dict:
    """Answers and scores in `folder` of a model that is no arm of the run: a model or adapter folder, or a Hub name."""
    adapter = Path(model) if (Path(model) / "adapter_config.json").is_file() else None
    profile = run_.profile if adapter else run_.profile.with_model(model)
    inputs = {"test": run_.require("01") / "test.parquet"} | ({"model": Path(model)} if Path(model).is_dir() else {})
    settings = {**profile.identity("model", "engine", "eval"), "model.weights": weights_id(profile)}
    with work_in(folder, settings, inputs, "choose another --out", scratch=("parts",)) as stage:
        if not stage.finished:
            stage.metrics = evaluate(folder, inputs["test"], profile, adapter, Path(model).name, ray)
    return read_json(folder / "scores.json")


def evaluate(
    folder: Path, test: Path, profile: Profile, checkpoint: Path | None, name: str, ray: str | None = None
) -> dict:
    """Answers and scores of one model in `folder`; returns the headline figures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Step 1: answer and grade the questions, part by part.
    parts = parts_of(folder / "parts", QuestionFiles([test]), part_size(profile, PART))
    title = f"evaluating {name}"
    if missing(parts) and ray:
        write_on_cluster(ray, parts, title, Work(graded_answers, profile, checkpoint))
    elif missing(parts):
        engine = build_engine(profile, checkpoint)
        for part in with_progress(parts, title):
            part.write(graded_answers(engine, part.questions(), profile))
    # Step 2: score the answers.
    rows = list(rows_of(parts))
    scores = score(rows)
    atomic_write(folder / "answers.parquet", lambda tmp: pq.write_table(pa.Table.from_pylist(rows), tmp))
    write_json(folder / "scores.json", scores)
    return {name: scores[name] for name in ("macro", "questions", "answers")}


def graded_answers(engine: Engine, questions: list[Question], profile: Profile) -> Iterator[dict]:
    """Rows of `eval.samples` answers to every question."""
    e, by_id = profile.eval, {q.id: q for q in questions}
    sampling = Sampling(e.samples, e.temperature, e.max_new_tokens, e.seed)
    for completion in engine.generate(prompts_of(questions, profile.model.prompt_style), sampling):
        yield answer_row(completion, by_id[completion.question_id], profile)


def answer_row(completion: Completion, question: Question, profile: Profile) -> dict:
    """One graded answer as a row of answers.parquet."""
    verdict = grade(
        completion.text, question, profile.eval.grader, profile.model.prompt_style, completion.finish_reason
    )
    return {
        "id": question.id,
        "sample": completion.sample,
        "dataset": question.group,
        "modality": question.modality,
        "cluster": question.cluster,
        "answer_label": question.answer_label,
        "letter": verdict.letter,
        "correct": verdict.correct,
        "options": len(question.options),
        "well_formed": verdict.well_formed,
        "truncated": verdict.truncated,
        "tokens": completion.tokens,
        "text": completion.text,
    }


def score(rows: list[dict]) -> dict:
    """The figures of scores.json from the rows of answers.parquet: of all answers, and of each data set."""
    if not rows:
        raise UserError("there are no answers to score; the test set is empty.")
    correct, strata, clusters = ([row[key] for row in rows] for key in ("correct", "dataset", "cluster"))
    low, high, kind = macro_interval(correct, strata, clusters)
    return {
        "questions": len({row["id"] for row in rows}),
        "answers": len(rows),
        "macro": macro(correct, strata),
        "interval": (low, high),
        "interval_kind": kind,
        "well_formed": _mean(row["well_formed"] for row in rows),
        "truncated": _mean(row["truncated"] for row in rows),
        "no_answer": _mean(row["letter"] is None for row in rows),
        "mean_tokens": _mean(row["tokens"] for row in rows),
        "datasets": {name: _score_set([r for r in rows if r["dataset"] == name]) for name in dict.fromkeys(strata)},
    }


def _score_set(rows: list[dict]) -> dict:
    """Accuracy of one data set: Wilson's interval where every answer stands alone, else the one over clusters."""
    right, clusters = [row["correct"] for row in rows], [row["cluster"] for row in rows]
    # Where Wilson's does not hold, questions share a picture, or a question was answered more than once.
    interval = wilson_of_set(right, clusters) or macro_interval(right, [0] * len(rows), clusters)
    return {
        "questions": len({row["id"] for row in rows}),
        "answers": len(rows),
        "accuracy": _mean(right),
        "interval": (interval.low, interval.high),
        "interval_kind": interval.kind,
    }


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def table(scores: dict[str, dict]) -> list[tuple[str, ...]]:
    """What `run` returns as a table of text cells, header first."""
    cells = [("arm", "macro accuracy, %", "95 % interval", "well-formed, %")]
    for arm, own in scores.items():
        cells.append((arm, percent(own["macro"]), percent_span(own["interval"]), percent(own["well_formed"])))
    return cells


def notes(scores: dict[str, dict]) -> str:
    """What stands below a table of scores: how much was answered, and which kind of interval each arm has."""
    first = next(iter(scores.values()))
    return f"{questions_and_answers(first)}; 95 % intervals: {interval_kinds(scores)}"
