"""What a cell's model is asked, by look: the test questions, and for some studies grey pictures, sixteen samples a
question, or the validation questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from medvlt_lib.core.config import Profile
from medvlt_lib.core.records import Question, read_questions
from medvlt_lib.phantom.questions import blank
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.engine import Engine, Sampling, prompts_of
from medvlt_lib.stages.answers import answer_row

LOOKS = ("greedy", "grey", "sampled", "validation")
SAMPLES, SAMPLED = 16, 10  # answers to a question, and questions of a family, of the look `sampled`
KEPT = ("id", "sample", "dataset", "modality", "letter", "correct", "truncated", "tokens", "text")


def answer(profile: Profile, data: Path, checkpoint: Path | None, looks: Iterable[str]) -> list[dict]:
    """One row an answer to the questions in the folder `data`: its look and the columns KEPT."""
    engine, test = build_engine(profile, checkpoint), read_questions(data / "test.parquet")
    greedy = Sampling(temperature=0, max_new_tokens=profile.eval.max_new_tokens)
    rows = []
    for look in looks:
        questions, sampling = test, greedy
        if look == "validation":
            questions = read_questions(data / "validation.parquet")
        elif look == "grey":
            questions = [blank(q) for q in test if q.modality == "image"]
        elif look == "sampled":
            questions = first_of_each(test, SAMPLED)
            sampling = Sampling(SAMPLES, 1.0, profile.eval.max_new_tokens, profile.eval.seed)
        rows += _rows(engine, questions, sampling, profile, look)
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


def _rows(engine: Engine, questions: list[Question], sampling: Sampling, profile: Profile, look: str) -> list[dict]:
    by_id = {q.id: q for q in questions}
    rows = []
    for completion in engine.generate(prompts_of(questions, profile.model.prompt_style), sampling):
        row = answer_row(completion, by_id[completion.question_id], profile)
        rows.append({"look": look, **{key: row[key] for key in KEPT}})
    return rows
