"""What a cell's model is asked, by look: the test questions, and for some studies grey pictures, sixteen samples a
question, or the validation questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from medvlt_lib.core.config import Profile
from medvlt_lib.core.records import Question, read_questions
from medvlt_lib.core.variants import grey
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.stages.answers import graded_answers

ANSWERED = ("greedy", "grey", "sampled", "validation")
SAMPLES, SAMPLED = 16, 10  # answers to a question, and questions of a family, of the look `sampled`
KEPT = ("id", "sample", "dataset", "modality", "letter", "correct", "truncated", "tokens", "text")


def answer(profile: Profile, data: Path, checkpoint: Path | None, looks: Iterable[str]) -> list[dict]:
    """One row an answer to the questions in the folder `data`: its look and the columns KEPT."""
    engine, test = build_engine(profile, checkpoint), read_questions(data / "test.parquet")
    greedy = profile.eval.model_copy(update={"samples": 1, "temperature": 0.0})
    rows = []
    for look in looks:
        questions, asked = test, greedy
        if look == "validation":
            questions = read_questions(data / "validation.parquet")
        elif look == "grey":
            questions = [grey(q) for q in test if q.modality == "image"]
        elif look == "sampled":
            questions = first_of_each(test, SAMPLED)
            asked = profile.eval.model_copy(update={"samples": SAMPLES, "temperature": 1.0})
        for row in graded_answers(engine, questions, profile.model_copy(update={"eval": asked})):
            rows.append({"look": look, **{key: row[key] for key in KEPT}})
    return rows


def first_of_each(questions: list[Question], number: int) -> list[Question]:
    """The first questions of every family, in their order."""
    seen: Counter[str] = Counter()
    chosen = []
    for question in questions:
        seen[question.group] += 1
        if seen[question.group] <= number:
            chosen.append(question)
    return chosen
