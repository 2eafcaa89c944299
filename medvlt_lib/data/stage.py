"""Stage 01: write the run's training, validation and test questions and their data card."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tqdm import tqdm

from medvlt_lib.data.sources import SETS, load_set
from medvlt_lib.records import Question, UserError, write_questions
from medvlt_lib.runs import Run, write_json


def run(run_: Run) -> dict:
    """Writes 01_data; returns the number of questions of each set."""
    data = run_.profile.data
    named = [n for n in SETS if getattr(data, n)]
    files = {n: Path(getattr(data, n)) for n in named if ":" not in getattr(data, n)}
    return run_.perform("01", lambda folder: _work(folder, run_, named), run_.settings("data"), files)


def _work(folder: Path, run_: Run, named: list[str]) -> dict:
    sets = {name: load_set(name, run_.profile.data) for name in tqdm(named, desc="question sets")}
    for name, questions in sets.items():
        twice = [key for key, times in Counter(q.id for q in questions).items() if times > 1]
        if twice:
            raise UserError(f"data.{name} has the id {twice[0]} more than once; give every question its own id.")
        if not questions:
            raise UserError(f"data.{name} = {getattr(run_.profile.data, name)} holds no questions; name another source.")
        write_questions(questions, folder / f"{name}.parquet")
    write_json(folder / "data_card.json", {name: describe(questions) for name, questions in sets.items()})
    return {name: len(questions) for name, questions in sets.items()}


def describe(questions: list[Question]) -> dict:
    """Counts for the data card."""
    return {
        "questions": len(questions),
        "modality": dict(Counter(q.modality for q in questions)),
        "datasets": dict(Counter(q.family or q.dataset for q in questions)),
        "options": dict(sorted(Counter(len(q.options) for q in questions).items())),
        "gold_letters": dict(sorted(Counter(q.answer_label for q in questions).items())),
        "images": len({i for q in questions for i in q.image_ids}),
        "with_reasoning": sum(q.reasoning is not None for q in questions),
        "noisy_labels": sum(bool(q.noise and q.noise["label"]) for q in questions),
        "noisy_traces": sum(bool(q.noise and q.noise["trace"]) for q in questions),
    }
