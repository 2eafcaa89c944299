"""Stage 01: write the run's training, validation and test questions, check them for leaks, and write their data card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import write_jsonl
from medvlt_lib.core.images import load_image, pixel_id
from medvlt_lib.core.records import Question, iterate_questions, write_questions
from medvlt_lib.core.runs import Run
from medvlt_lib.data.card import Description, write_card
from medvlt_lib.data.leakage import Fingerprint, find_leaks, fingerprint, leak_table
from medvlt_lib.data.rows import Tally
from medvlt_lib.data.sources import SETS, load_set

TRAINING = ("train_text", "train_image", "traces_image")


@dataclass
class Written:
    """What is remembered of a set once its file is written: where it came from, fingerprints, and figures for the card."""

    description: Description = field(default_factory=Description)
    prints: list[Fingerprint] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)


def run(run_: Run) -> dict:
    """Writes 01_data; returns the number of questions of each set."""
    data = run_.profile.data
    named = [n for n in SETS if getattr(data, n)]
    files = {n: Path(getattr(data, n)) for n in named if ":" not in getattr(data, n)}
    with run_.stage("01", run_.settings("data"), files) as stage:
        if not stage.finished:
            stage.metrics = _work(stage.folder, run_, named)
        return stage.metrics


def _work(folder: Path, run_: Run, named: list[str]) -> dict:
    data = run_.profile.data
    sets: dict[str, Written] = {}
    if wrong := [n for n in named if n != "validation" and getattr(data, n).startswith("split:")]:
        raise UserError(
            f"data.{wrong[0]} = {getattr(data, wrong[0])}: only data.validation can be split off; name a set or a file."
        )
    split = data.validation.partition(":")[2] if data.validation.startswith("split:") else None
    if split and (split not in ("train_text", "train_image") or getattr(data, split).startswith("phantom:")):
        raise UserError(
            f"data.validation = {data.validation}: only a hub: set or a file can be split; write split:train_text or split:train_image."
        )
    for name in named:
        if name == "validation" and split:
            continue
        sets[name] = Written()
        _write(folder, name, load_set(name, data, sets[name].tallies), sets[name])
        if not sets[name].prints:
            raise UserError(f"data.{name} = {getattr(data, name)} holds no questions; name another source.")
    if split:
        sets["validation"] = _hold_out(folder, split, data, sets)
    leaks = _leaks(folder, sets)
    if data.drop_leaks:
        for name in TRAINING:
            dropped = {leak["train_id"] for leak in leaks if leak["train_set"] == name}
            if name in sets and len(dropped) == len(sets[name].prints):
                raise UserError(
                    f"data.drop_leaks would leave nothing of {name}: every question of it is in the test set; name another source."
                )
            if name in sets and dropped:
                _without(folder, name, dropped, sets[name])
    sizes = {n: len(sets[n].prints) for n in TRAINING if n in sets}
    table = leak_table(leaks, sizes, sets["test"].prints)
    write_card(folder, run_, {n: sets[n] for n in SETS if n in sets}, table, data.drop_leaks)
    run_.note(sources={t.name: t.revision for s in sets.values() for t in s.tallies})
    return {name: len(sets[name].prints) for name in SETS if name in sets}


def _write(folder: Path, name: str, questions: Iterator[Question], written: Written) -> None:
    """Stream a set to its file while its fingerprints and figures are taken. Raises UserError for a repeated id."""
    ids: set[str] = set()

    def noted() -> Iterator[Question]:
        for question in tqdm(questions, desc=name, unit="question", delay=2):
            if question.id in ids:
                raise UserError(f"data.{name} has the id {question.id} more than once; give every question its own id.")
            ids.add(question.id)
            pictures = [load_image(i) for i in question.images]  # unpacked once for all that look at them
            if len(question.image_ids) != len(question.images):
                question.image_ids = [pixel_id(picture) for picture in pictures]
            written.prints.append(fingerprint(question, pictures))
            written.description.add(question, pictures)
            yield question

    write_questions(noted(), folder / f"{name}.parquet")


def _without(folder: Path, name: str, ids: set[str], written: Written) -> None:
    """Write a set again without some of its questions."""
    kept = (q for q in iterate_questions(folder / f"{name}.parquet") if q.id not in ids)
    written.prints, written.description = [], Description()
    _write(folder, name, kept, written)


def _hold_out(folder: Path, train: str, data, sets: dict[str, Written]) -> Written:
    """Move `validation_size` random questions of a training set to the validation set. Raises UserError if it has no more."""
    ids = [p.id for p in sets[train].prints]
    if len(ids) <= data.validation_size:
        raise UserError(
            f"data.validation_size {data.validation_size} would leave nothing of {len(ids)} training questions; lower it."
        )
    held = set(Random(data.seed).sample(ids, data.validation_size))
    validation = Written(tallies=[])
    _write(
        folder, "validation", (q for q in iterate_questions(folder / f"{train}.parquet") if q.id in held), validation
    )
    _without(folder, train, held, sets[train])
    return validation


def _leaks(folder: Path, sets: dict[str, Written]) -> list[dict]:
    """Every match between a training set and the test set, also written to leaks.jsonl."""
    found = []
    for name in TRAINING:
        if name in sets:
            prints = tqdm(sets[name].prints, desc=f"{name} against test", unit="question", delay=2)
            found += [{"train_set": name, **leak} for leak in find_leaks(prints, sets["test"].prints)]
    write_jsonl(folder / "leaks.jsonl", found)
    return found
