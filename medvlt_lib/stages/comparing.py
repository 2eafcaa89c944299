"""A question beside its answers by the base, an SFT and a GRPO arm, with its picture on, off, swapped or drawn again.

What the widget in notebooks and `medvlt compare-app` show, as plain data. Answers come live from models of the shipped
sizes; of larger ones those are shown that the run holds: of 05, and of 05b without the picture and with another's.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medvlt_lib.core import variants
from medvlt_lib.core.control_rows import NO_PICTURE, OTHER
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Question
from medvlt_lib.core.runs import STAGES, Run
from medvlt_lib.core.stage import finished_in, is_finished
from medvlt_lib.phantom.redraw import redrawn
from medvlt_lib.stages.answer_view import ShownAnswer, picture_url, shown_answer

ON, OFF, SWAPPED, DRAWN = "on", "off", "swapped", "drawn"
PICTURES = {
    ON: "as it is",
    OFF: "no picture",
    SWAPPED: "another question's",
    DRAWN: "drawn with another value",
}
QUESTIONS = 60  # that can be chosen, spread evenly over data sets or families
MOST = 16  # samples at once


@dataclass(frozen=True)
class Column:
    """One arm's answers. `votes`: (letter or None for no answer, the option's text, share, whether it is right)."""

    arm: str
    answers: list[ShownAnswer]
    votes: list[tuple[str | None, str | None, float, bool]]
    why_none: str | None = None


@dataclass(frozen=True)
class View:
    """What is shown: the question as it was asked, its pictures as addresses, and a column for each arm."""

    question: Question
    pictures: list[str]
    columns: list[Column]
    live: bool


@dataclass
class Comparison:
    """The questions and arms of a run that can be compared. Make it with `open_comparison`."""

    run: Run
    arms: list[str]
    questions: dict[str, Question]
    live: bool
    _engines: dict[str, Any] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def view(self, name: str, picture: str = ON, value: str | None = None, samples: int = 1) -> View:
        """One question as it is asked with this picture, and every arm's answers. `value`: what DRAWN shows.

        One sample is the model's most probable answer; several are drawn at temperature 1. Raises UserError for what
        does not exist.
        """
        if name not in self.questions:
            raise UserError(f"there is no question {name} to compare; choose one of the list.")
        if not 1 <= samples <= MOST:
            raise UserError(f"{samples} samples cannot be asked for; choose 1 to {MOST}.")
        question = self.asked(self.questions[name], picture, value)
        with self._lock:  # one model answers one question at a time
            columns = [self._column(arm, name, question, picture, samples) for arm in self.arms]
        return View(question, [picture_url(image) for image in question.images], columns, self.live)

    def asked(self, question: Question, picture: str, value: str | None) -> Question:
        """The question with its picture on, off, swapped or drawn again. Raises UserError where that cannot be."""
        if picture not in PICTURES:
            raise UserError(f"a picture cannot be '{picture}'; choose from {', '.join(PICTURES)}.")
        if picture == ON:
            return question
        if not question.images:
            raise UserError(f"{question.id} has no picture to change; choose a question with one.")
        if picture == OFF:
            return variants.without_picture(question)
        if picture == DRAWN:
            return redrawn(question, value or question.answer)
        pool = list(self.questions.values())
        if not self.live:
            pool = [q for q in pool if q.id in self._controlled(self.arms[0])] or pool
        found = {q.id: (q, other) for q, other in variants.with_pictures_of_others(pool)}
        swapped, other = found.get(question.id, (question, None))
        if other is None:
            raise UserError(f"no other question of the kind of {question.id} has another picture; choose another.")
        return swapped

    def _column(self, arm: str, name: str, question: Question, picture: str, samples: int) -> Column:
        rows = self._answered(arm, question, samples) if self.live else self._saved(arm, name, picture)
        if not rows:
            wanted = "eval" if picture == ON else "controls"
            why = f"no saved answer; medvlt {wanted} --run {self.run.folder.name} --arm {arm} writes some"
            return Column(arm, [], [], "larger models are not asked live" if picture == DRAWN else why)
        rows = rows[:samples]
        said = [shown_answer(r["text"], r["letter"], r["correct"], question, r["well_formed"]) for r in rows]
        return Column(arm, said, votes(rows, question))

    def _answered(self, arm: str, question: Question, samples: int) -> list[dict]:
        from medvlt_lib.rollout.build import build_engine
        from medvlt_lib.stages.answers import graded_answers
        from medvlt_lib.stages.evaluate_any import arm_of

        if arm not in self._engines:
            who = arm_of(self.run, arm)
            self._engines[arm] = build_engine(who.profile, who.checkpoint)
        profile = self.run.profile
        temperature = 0.0 if samples == 1 else 1.0
        update = {"samples": samples, "temperature": temperature}
        asking = profile.model_copy(update={"eval": profile.eval.model_copy(update=update)})
        return list(graded_answers(self._engines[arm], [question], asking))

    def _saved(self, arm: str, name: str, picture: str) -> list[dict]:
        if picture == ON:
            return _rows(self.run, "05", arm, "id", name)
        control = {OFF: NO_PICTURE, SWAPPED: OTHER}.get(picture)
        return [row for row in _rows(self.run, "05b", arm, "question", name) if row["control"] == control]

    def _controlled(self, arm: str) -> set[str]:
        """The questions that this arm's controls asked."""
        return {row["question"] for row in _rows(self.run, "05b", arm)}


def open_comparison(run_: Run, arms: Sequence[str] | None = None, live: bool | None = None) -> Comparison:
    """The comparison of a run: `arms`, or the base with the first SFT and the first GRPO arm that are finished.

    `live`: whether models answer; by default the shipped sizes do. Raises UserError where there are no test questions,
    or an arm that was neither trained nor evaluated.
    """
    live = run_.profile.model.name.startswith("phantom:") if live is None else live
    stages = ("03", "04") if live else ("05",)
    finished = [a for stage in stages for a in finished_in(run_.stage_folder(stage)) if a != "base"]
    if arms is None:
        sft = [a for a in finished if a.rpartition("-")[2].startswith("sft")]
        arms = ["base", *sft[:1], *[a for a in finished if a not in sft][:1]]
    for arm in arms:
        if arm not in ("base", *finished):
            raise UserError(f"the arm {arm} is not finished in {run_.folder}; choose from base, {', '.join(finished)}.")
    test = QuestionFiles([run_.require("01") / "test.parquet"])
    return Comparison(run_, list(arms), test.named(set(_spread(test))), live)


def votes(rows: Sequence[dict], question: Question) -> list[tuple[str | None, str | None, float, bool]]:
    """How the answers are spread over the options, the most frequent first."""
    counts = Counter(row["letter"] if row["letter"] in question.options else None for row in rows)
    order = sorted(counts, key=lambda letter: (-counts[letter], letter or "Z"))
    right = question.answer_label
    return [(k, question.options.get(k or ""), counts[k] / len(rows), k == right) for k in order]


def _spread(test: QuestionFiles) -> list[str]:
    """The ids of up to QUESTIONS test questions, as evenly over data sets or families as they come."""
    seen, ranked = Counter(), []
    for place, row in enumerate(test.columns("id", "family", "dataset")):
        group = row["family"] or row["dataset"]
        ranked.append((seen[group], place, row["id"]))
        seen[group] += 1
    return [name for *_, name in sorted(ranked)[:QUESTIONS]]


def _rows(run_: Run, stage: str, arm: str, column: str | None = None, wanted: str | None = None) -> list[dict]:
    """Rows of a stage's answers of an arm, those whose `column` is `wanted`; none where there are no answers."""
    import pyarrow.parquet as pq

    folder = run_.folder / STAGES[stage] / arm
    if not is_finished(folder):
        return []
    filters = [(column, "=", wanted)] if column else None
    return pq.read_table(folder / "answers.parquet", filters=filters).to_pylist()
