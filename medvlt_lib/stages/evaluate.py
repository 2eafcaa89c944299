"""Stage 05: answer the test questions with an arm's model and grade the answers.

Greedy by default, graded by the profile's grader (MedVLThinker: vLLM at temperature 0, re-graded). Accuracy is the mean
over answers, by data set or family, and the unweighted mean of these. Intervals take the answers on one picture, or to
one question, as one. answers.parquet and scores.json hold no times and no run names: the same answers give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.results import interval_kinds, percent_span, questions_and_answers
from medvlt_lib.core.runs import Run, trained_in
from medvlt_lib.core.stage import finished_in
from medvlt_lib.core.stats import macro, macro_interval, wilson_of_set
from medvlt_lib.core.tables import percent
from medvlt_lib.data.benchmarks import SIX_QUESTIONS
from medvlt_lib.models.loading import weights_id
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.cluster import Work, write_on_cluster
from medvlt_lib.rollout.parts import missing, part_size, parts_of, with_progress
from medvlt_lib.stages.answers import asked, graded, unanswered, without_repeats, write_answers

PART = 128  # questions in one part
WITHOUT_A_WORD = {"empty": "empty", "refused": "refused by the server", "error": "that the server failed to give"}


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
                stage.metrics = evaluate(stage.folder, [test], profile, inputs.get("checkpoint"), name, ray)
        scores[name] = read_json(stage.folder / "scores.json")
    return scores


def evaluate(
    folder: Path, tests: list[Path], profile: Profile, checkpoint: Path | None, name: str, ray: str | None = None
) -> dict:
    """Answers and scores of one model in `folder`; returns the headline figures."""
    # Step 1: answer the questions, part by part.
    questions = without_repeats(QuestionFiles(tests))
    parts = parts_of(folder / "parts", questions, part_size(profile, PART))
    title = f"evaluating {name}"
    if missing(parts) and ray:
        write_on_cluster(ray, parts, title, Work(asked, profile, checkpoint))
    elif missing(parts):
        engine = build_engine(profile, checkpoint, keep_failures=True)
        for part in with_progress(parts, title):
            part.write(asked(engine, part.questions(), profile))
    # Step 2: grade and score the answers.
    rows = list(graded(parts, profile))
    scores = score(rows)
    write_answers(rows, folder / "answers.parquet")
    write_json(folder / "scores.json", scores)
    return {name: scores[name] for name in ("macro", "questions", "answers")}


def score(rows: list[dict]) -> dict:
    """The figures of scores.json from the rows of answers.parquet: of all answers, and of each data set."""
    if not rows:
        raise UserError("there are no answers to score; the test set is empty.")
    correct, strata, clusters = ([row[key] for row in rows] for key in ("correct", "dataset", "cluster"))
    low, high, kind = macro_interval(correct, strata, clusters)
    costs = [row["cost"] for row in rows if row["cost"] is not None]
    sets = {name: _score_set([r for r in rows if r["dataset"] == name]) for name in dict.fromkeys(strata)}
    return {
        "questions": len({row["id"] for row in rows}),
        "answers": len(rows),
        "macro": macro(correct, strata),
        "interval": (low, high),
        "interval_kind": kind,
        **mean_of_six(sets),
        "well_formed": _mean(row["well_formed"] for row in rows),
        "truncated": _mean(row["truncated"] for row in rows),
        "no_answer": _mean(row["letter"] is None for row in rows),
        "without_a_word": unanswered(rows),
        "mean_tokens": _mean(row["tokens"] for row in rows),
        "tokens": sum(row["tokens"] for row in rows),
        "dollars": sum(costs) if costs else None,
        "datasets": sets,
    }


def mean_of_six(sets: dict[str, dict]) -> dict:
    """The six benchmarks' average as MedVLThinker's tables have it, where all six were asked: the unweighted mean of
    their accuracies. `whole`: every question of theirs was."""
    if not set(SIX_QUESTIONS) <= set(sets):
        return {}
    whole = all(sets[name]["questions"] in published for name, published in SIX_QUESTIONS.items())
    return {"six": {"mean": _mean(sets[name]["accuracy"] for name in SIX_QUESTIONS), "whole": whole}}


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
    """What stands below a table of scores: how much was answered, which kind of interval each arm has, the six
    benchmarks' average, what it cost, and how many answers hold nothing."""
    first = next(iter(scores.values()))
    said = [f"{questions_and_answers(first)}; 95 % intervals: {interval_kinds(scores)}"]
    for arm, own in scores.items():
        if six := own.get("six"):
            rest = "" if six["whole"] else ", of a part of their questions, so not comparable with published averages"
            said.append(f"{arm}, unweighted mean of the six benchmarks: {percent(six['mean'])}{rest}")
        if own.get("dollars") is not None:
            said.append(f"{arm}: {own['dollars']:.4f} dollars")
        if blank := own.get("without_a_word"):  # scores of before have neither
            kinds = ", ".join(f"{count} {WITHOUT_A_WORD[kind]}" for kind, count in blank.items())
            said.append(f"{arm}, counted as no answer: {kinds}")
    return "; ".join(said)
