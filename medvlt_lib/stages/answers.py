"""Answers of an evaluation: what an engine says to every question, written part by part, and then graded.

Grading comes after all answers are on disk, so that an evaluation which is killed in between asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Completion, Question
from medvlt_lib.grading.grade import grade
from medvlt_lib.rollout.engine import Engine, Sampling, prompts_of
from medvlt_lib.rollout.parts import Part


def asked(engine: Engine, questions: list[Question], profile: Profile) -> Iterator[dict]:
    """Rows of `eval.samples` answers to every question, as they were given. Raises UserError where none came at all."""
    e, came = profile.eval, False
    sampling = Sampling(e.samples, e.temperature, e.max_new_tokens, e.seed)
    for completion in engine.generate(prompts_of(questions, profile.model.prompt_style), sampling):
        came = came or completion.finish_reason != "error"
        yield {
            "id": completion.question_id,
            "sample": completion.sample,
            "tokens": completion.tokens,
            "finish_reason": completion.finish_reason,
            "cost": completion.cost,
            "text": completion.text,
        }
    if not came and len(questions) > 1:
        name, count = profile.model.name, len(questions)
        raise UserError(f"{name} answered none of {count} questions; what the server said stands above.")


def graded(parts: list[Part], profile: Profile) -> Iterator[dict]:
    """The rows of answers.parquet: every answer of the parts, graded by the profile's grader."""
    for part in parts:
        by_id = {question.id: question for question in part.questions()}
        for row in part.rows(set(by_id)):
            yield answer_row(_completion(row), by_id[row["id"]], profile)


def graded_answers(engine: Engine, questions: list[Question], profile: Profile) -> Iterator[dict]:
    """As `graded`, for so few questions that their answers need not be kept before they are graded."""
    by_id = {question.id: question for question in questions}
    for row in asked(engine, questions, profile):
        yield answer_row(_completion(row), by_id[row["id"]], profile)


def _completion(row: dict) -> Completion:
    """A row of `asked` as the completion that it was made of, without its tokens' ids."""
    counted = {"tokens": row["tokens"], "cost": row["cost"]}
    return Completion(row["id"], row["sample"], row["text"], [], None, row["finish_reason"], **counted)


def answer_row(completion: Completion, question: Question, profile: Profile) -> dict:
    """One graded answer as a row of answers.parquet."""
    reason = completion.finish_reason
    verdict = grade(completion.text, question, profile.eval.grader, profile.model.prompt_style, reason)
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
        "finish_reason": reason,
        "cost": completion.cost,
        "text": completion.text,
    }


def write_answers(rows: list[dict], path: Path) -> None:
    """Write graded rows to answers.parquet, every column with its own type, also where it is empty."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds: dict[str, pa.DataType] = {"cost": pa.float64()}
    kinds |= dict.fromkeys(("sample", "options", "tokens"), pa.int64())
    kinds |= dict.fromkeys(("correct", "well_formed", "truncated"), pa.bool_())
    table = pa.Table.from_pylist(rows, schema=pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]]))
    atomic_write(path, lambda temporary: pq.write_table(table, temporary))


def without_repeats(questions: QuestionFiles) -> QuestionFiles:
    """The questions. Raises UserError where one id stands in two files, whose answers could not be told apart."""
    ids: set[str] = set()
    for row in questions.columns("id"):
        if row["id"] in ids:
            raise UserError(f"the question {row['id']} is in two of the benchmarks; leave one of them out.")
        ids.add(row["id"])
    return questions


def unanswered(rows: Iterable[dict]) -> dict[str, int]:
    """How many answers hold not a word, and why: `empty`, `refused` by the server for their content, or an `error`,
    where none came. The published graders count all of them as no answer."""
    counts = {"empty": 0, "refused": 0, "error": 0}
    for row in rows:
        if not row["text"].strip():
            counts[row["finish_reason"] if row["finish_reason"] in counts else "empty"] += 1
    return {kind: count for kind, count in counts.items() if count}
