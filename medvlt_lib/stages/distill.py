"""Stage 02b: ask teachers for chains of thought about the training questions, and keep those whose answer is right.

Published: DeepSeek-R1 on m23k, one answer a question, kept if right (m1, arXiv 2504.00869); GPT-4o on PMC-VQA, three
answers with the same prompt as in training, of which the first right one is kept (MedVLThinker,
merge_pmc_vqa_cot.py). Here a question may have several teachers, and keep several chains of thought.
Left out: published sets that bring their chains of thought (hub:...-tokenized) need no teacher; `medvlt sft` reads them
from 01_data.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Question, write_questions
from medvlt_lib.core.runs import Run
from medvlt_lib.rollout.cluster import Work, write_on_cluster
from medvlt_lib.rollout.parts import Part, missing, part_size, parts_of, with_progress
from medvlt_lib.stages.teachers import (
    REASONS,
    answer_rows,
    cost_ahead,
    kinds_asked,
    provenance,
    teacher_engine,
    teacher_settings,
)

PART = 64  # questions in a file of answers; the files of all teachers have the same questions


def run(run_: Run, ray: str | None = None) -> dict:
    """Writes 02b_distill; returns what became of every teacher's answers, and how many chains of thought were kept.

    With `ray`, an address or local:N (medvlt_lib/rollout/cluster.py), models that the engine loads answer on a cluster.
    Raises UserError without a teacher, where a teacher cannot be asked or may not cost more, and where a set would be
    left without one chain of thought.
    """
    profile, teachers = run_.profile, run_.profile.distill.teachers
    if not teachers:
        raise UserError(
            "distill.teachers names no teacher, and published chains of thought need none (medvlt sft reads them); "
            "name one, as in --set distill.teachers='{mine: {name: MODEL, url: https://HOST/v1}}'."
        )
    if ray and (served := [label for label, teacher in teachers.items() if teacher.url]):
        raise UserError(
            f"--ray spreads models that are loaded here, and distill.teachers.{served[0]} is asked at a server, from "
            f"one machine, so that its cap holds; leave out --ray and set distill.teachers.{served[0]}.concurrency."
        )
    kinds = [kind for kind in ("text", "image") if any(kind in kinds_asked(t) for t in teachers.values())]
    data = run_.require("01")
    sets = {kind: data / f"train_{kind}.parquet" for kind in kinds}
    settings = {**teacher_settings(profile), "distill.keep": profile.distill.keep}
    with run_.stage("02b", settings, sets, free=("distill.keep",)) as stage:
        if stage.finished:
            return stage.metrics
        # Step 1: ask every teacher for the answers that are missing.
        parts = {
            label: {kind: _parts(stage.folder, profile, label, kind, sets[kind]) for kind in kinds_asked(teacher)}
            for label, teacher in teachers.items()
        }
        _ask(profile, parts, ray)
        # Step 2: keep the right ones, up to distill.keep a question.
        counts: dict[str, Counter[str]] = {label: Counter() for label in teachers}
        sizes: Counter[str] = Counter()
        for kind in kinds:
            of_kind = {label: own[kind] for label, own in parts.items() if kind in own}
            traces = kept_traces(of_kind, profile.distill.keep, counts, sizes, kind)
            write_questions(traces, stage.folder / f"traces_{kind}.parquet")
            if not sizes[f"traces_{kind}"]:
                raise UserError(_nothing_kept(kind, of_kind, counts, stage.folder))
        stage.metrics = {"teachers": {label: summary(own) for label, own in counts.items()}, **sizes}
        return stage.metrics


def _parts(folder: Path, profile: Profile, label: str, kind: str, path: Path) -> list[Part]:
    answers, size = folder / "answers" / label / kind, part_size(profile, PART)
    return parts_of(answers, QuestionFiles([path]), size, provenance(profile, label))


def _ask(profile: Profile, parts: dict[str, dict[str, list[Part]]], ray: str | None) -> None:
    """Write the missing parts of every teacher. What servers may cost is said before the first is asked."""
    teachers = profile.distill.teachers
    open_ = {label: [kind for kind, own in by_kind.items() if missing(own)] for label, by_kind in parts.items()}
    for label in [label for label, teacher in teachers.items() if teacher.url]:
        for kind in open_[label]:
            print(cost_ahead(label, kind, teachers[label], parts[label][kind]), file=sys.stderr)
    for label in [label for label, kinds in open_.items() if kinds]:
        rows = partial(answer_rows, label=label)
        spread = ray is not None and teachers[label].loaded_by_engine()
        engine = None if spread else teacher_engine(profile, label)
        for kind in open_[label]:
            title = f"{label}, {kind}"
            if ray is not None and spread:
                write_on_cluster(ray, parts[label][kind], title, Work(rows, profile.with_model(teachers[label].name)))
                continue
            for part in with_progress(parts[label][kind], title):
                part.write(rows(engine, part.questions(), profile))


# --- choice ---


def kept_traces(
    parts: dict[str, list[Part]], keep: int, counts: dict[str, Counter[str]], sizes: Counter[str], kind: str
) -> Iterator[Question]:
    """The questions of one set with the chains of thought that are kept, one row each.

    `parts`: every teacher's, of the same questions. `counts` and `sizes` are added to.
    """
    for same_questions in zip(*parts.values(), strict=True):
        questions = same_questions[0].questions()
        answers: dict[str, list[list[dict]]] = {q.id: [] for q in questions}  # by question, then by teacher
        for label, part in zip(parts, same_questions, strict=True):
            own: dict[str, list[dict]] = {q.id: [] for q in questions}
            for row in part.rows(set(own)):
                own[row["id"]].append({**row, "teacher": label})
            for key, rows in own.items():
                right = [row for row in sorted(rows, key=lambda row: row["sample"]) if not row["rejected"]]
                counts[label].update(row["rejected"] or "right" for row in rows)
                counts[label].update({"questions": 1, "answers": len(rows), "solved": bool(right)})
                answers[key].append(right)
        for question in questions:
            chosen = first_in_turn(answers[question.id], keep)
            sizes.update({f"questions_{kind}": 1, f"with_trace_{kind}": bool(chosen), f"traces_{kind}": len(chosen)})
            yield from (with_trace(question, row) for row in chosen)


def first_in_turn(rows: list[list[dict]], keep: int) -> list[dict]:
    """The first row of every teacher in turn, then the second, and so on, until there are `keep`."""
    return [row for turn in zip_longest(*rows) for row in turn if row is not None][:keep]


def with_trace(question: Question, row: dict) -> Question:
    """A question with one chain of thought; its id is its own, and `extra["trace"]` leads back to the question."""
    source = {"question": question.id, "teacher": row["teacher"], "sample": row["sample"]}
    return replace(
        question,
        id=f"{question.id}-{row['teacher']}-{row['sample']}",
        reasoning=row["thinking"],
        extra={**question.extra, "trace": source},
    )


# --- figures ---


def summary(counts: Counter[str]) -> dict[str, Any]:
    """What became of one teacher's answers: how many were right, and of how many questions; the others by reason."""
    names = ("questions", "solved", "answers", "right")
    return {**{n: counts[n] for n in names}, "rejected": {r: counts[r] for r in REASONS}}


def table(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """What was kept of each set, head first."""
    rows: list[tuple[str, ...]] = [("questions", "asked", "with a chain of thought", "chains of thought")]
    for kind in [k for k in ("text", "image") if f"questions_{k}" in metrics]:
        rows.append((kind, *(str(metrics[f"{n}_{kind}"]) for n in ("questions", "with_trace", "traces"))))
    return rows


def teacher_table(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """What became of every teacher's answers, a column a teacher, head first."""
    teachers = metrics["teachers"]
    rows = [(name, *(str(own[name]) for own in teachers.values())) for name in ("answers", "right")]
    rows += [(reason, *(str(own["rejected"][reason]) for own in teachers.values())) for reason in REASONS]
    return [("", *teachers), *rows]


def _nothing_kept(kind: str, asked: dict, counts: dict[str, Counter[str]], folder: Path) -> str:
    found = [
        f"{label}: {reason} {counts[label][reason]}" for label in asked for reason in REASONS if counts[label][reason]
    ]
    return (
        f"no teacher gave a chain of thought to keep for train_{kind} ({', '.join(found)}); read the answers in "
        f"{folder}/answers, then ask another teacher, or in another way, with --redo 02b."
    )
