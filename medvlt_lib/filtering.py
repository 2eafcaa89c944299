"""Stage 02: let the base model answer every training question n times and keep the medium-hard ones.

The published probe (MedVLThinker, eval/estimate_pass_rate.sh): n = 16 at temperature 1, counted with the grade that
inference uses, kept when the pass count lies in a band, ordered easy to hard (order_easy_to_hard.py). Beside each kept
set stands a control set of the same size that was not filtered.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

from medvlt_lib.grading import grade
from medvlt_lib.models import build_engine
from medvlt_lib.records import Completion, Question, UserError, atomic_write, read_questions, write_questions
from medvlt_lib.rollout.engine import Sampling
from medvlt_lib.rollout.parts import roll_out
from medvlt_lib.runs import Run

PART = 32  # questions in one rollout file


def run(run_: Run) -> dict:
    """Writes 02_filtering; returns counts of questions probed and kept."""
    data = run_.require("01")
    inputs = {n: data / f"{n}.parquet" for n in ("train_text", "train_image")}
    settings = run_.settings("model", "engine", "filtering")
    band = ("filtering.keep_from", "filtering.keep_to")  # another band is another choice among the same rollouts
    return run_.perform("02", lambda folder: _work(folder, run_, inputs), settings, inputs, free=band)


def _work(folder: Path, run_: Run, inputs: dict[str, Path]) -> dict:
    p = run_.profile
    sets = {name: read_questions(path) for name, path in inputs.items()}
    questions = [q for rows in sets.values() for q in rows]
    sampling = Sampling(p.filtering.samples, p.filtering.temperature, p.filtering.max_new_tokens, p.filtering.seed)
    counts = probe(folder / "rollouts", questions, p, sampling)
    _write_counts(folder / "pass_counts.parquet", questions, counts)
    metrics = {"questions": len(questions), "samples": p.filtering.samples, "pass_counts": _histogram(counts.values(), p.filtering.samples)}
    for name, rows in sets.items():
        kept = keep(rows, counts, p.filtering.keep_from, p.filtering.keep_to, p.filtering.seed)
        if not kept:
            raise UserError(
                f"no question of {name} has a pass count of {p.filtering.keep_from} to {p.filtering.keep_to}; widen filtering.keep_from and keep_to."
            )
        kind = name.removeprefix("train_")
        control = Random(p.filtering.seed).sample(rows, len(kept))
        write_questions(kept, folder / f"kept_{kind}.parquet")
        write_questions(control, folder / f"control_{kind}.parquet")
        metrics[f"kept_{kind}"], metrics[f"of_{kind}"] = len(kept), len(rows)
    return metrics


def probe(folder: Path, questions: list[Question], profile, sampling: Sampling) -> dict[str, int]:
    """Pass counts by question id, from `sampling.n` rollouts of each with the profile's base model."""
    row = lambda completion, question: _row(completion, question, profile, sampling)  # noqa: E731
    engine = lambda: build_engine(profile)  # noqa: E731
    title = f"{sampling.n} rollouts each"
    counts = dict.fromkeys((q.id for q in questions), 0)
    for done in roll_out(folder, questions, profile.engine.prompt_style, sampling, engine, row, PART, title):
        counts[done["id"]] += done["passed"]
    return counts


def _row(completion: Completion, question: Question, profile, sampling: Sampling) -> dict:
    verdict = grade(completion.text, question, profile.filtering.grader, profile.engine.prompt_style, completion.finish_reason)
    passed = verdict.correct if verdict.online is None else verdict.online
    return {
        "id": question.id,
        "sample": completion.sample,
        "passed": bool(passed),
        "letter": verdict.letter,
        "truncated": verdict.truncated,
        "text": completion.text,
        "seed": sampling.seed,
        "model": profile.model.name,
        "prompt_style": profile.engine.prompt_style,
        "grader": profile.filtering.grader,
    }


def keep(questions: list[Question], counts: dict[str, int], low: int, high: int, seed: int) -> list[Question]:
    """Questions with low <= pass count <= high, shuffled and then sorted easy to hard."""
    kept = [q for q in questions if low <= counts[q.id] <= high]
    Random(seed).shuffle(kept)
    return sorted(kept, key=lambda q: -counts[q.id])


def _histogram(counts, samples: int) -> list[int]:
    tally = Counter(counts)
    return [tally[c] for c in range(samples + 1)]


def _write_counts(path: Path, questions: list[Question], counts: dict[str, int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": q.id, "dataset": q.family or q.dataset, "modality": q.modality, "pass_count": counts[q.id]} for q in questions]
    atomic_write(path, lambda temporary: pq.write_table(pa.Table.from_pylist(rows), temporary))
