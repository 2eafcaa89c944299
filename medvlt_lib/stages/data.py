"""Stage 01: write the run's training, validation and test questions, look for leaks, and write their data card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from PIL import Image
from tqdm import tqdm

from medvlt_lib.core.config import Data
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import write_jsonl
from medvlt_lib.core.records import Question, iterate_questions, write_questions
from medvlt_lib.core.runs import Run
from medvlt_lib.data.card import Description, write_card
from medvlt_lib.data.leakage import Fingerprint, find_leaks, fingerprint, leak_table, picture_groups
from medvlt_lib.data.rows import Tally
from medvlt_lib.data.sources import MADE, SETS, load_set_with_pictures

TRAINING = ("train_text", "train_image", "traces_image")
HELD_OUT = ("validation", "test")


@dataclass
class WrittenSet:
    """What is remembered of a set once its file is written: fingerprints, figures for the card, and what became of the
    rows of its sources."""

    fingerprints: list[Fingerprint] = field(default_factory=list)
    description: Description = field(default_factory=Description)
    tallies: list[Tally] = field(default_factory=list)


def run(run_: Run) -> dict:
    """Writes 01_data; returns the number of questions of each set."""
    data = run_.profile.data
    named = [n for n in SETS if getattr(data, n)]
    files = {n: Path(getattr(data, n)) for n in named if ":" not in getattr(data, n)}
    with run_.stage("01", run_.settings("data"), files) as stage:
        if stage.finished:
            return stage.metrics
        folder = stage.folder
        # Step 1: write every set that has a source of its own; hold validation questions out of another where asked.
        split = _split_source(data, named)
        sets: dict[str, WrittenSet] = {}
        for name in [n for n in named if not (n == "validation" and split)]:
            sets[name] = WrittenSet()
            _write(folder, name, load_set_with_pictures(name, data, sets[name].tallies), sets[name])
            if not sets[name].fingerprints:
                raise UserError(f"data.{name} = {getattr(data, name)} holds no questions; name another source.")
        if split:
            sets[split], sets["validation"] = _hold_out(folder, split, data, sets[split])
        # Step 2: look for training questions that are also validation or test questions.
        leaks = _leaks(folder, sets)
        if data.drop_leaks:
            _drop_leaks(folder, sets, leaks)
        # Step 3: describe what was written.
        sizes = {n: len(sets[n].fingerprints) for n in TRAINING if n in sets}
        table = leak_table(leaks, sizes, {n: sets[n].fingerprints for n in HELD_OUT})
        write_card(folder, run_, {n: sets[n] for n in SETS if n in sets}, table, data.drop_leaks)
        run_.note(sources={t.name: t.revision for s in sets.values() for t in s.tallies})
        stage.metrics = {name: len(sets[name].fingerprints) for name in SETS if name in sets}
        return stage.metrics


def _split_source(data: Data, named: list[str]) -> str | None:
    """The training set that validation questions are held out of; None where they have a source of their own."""
    if wrong := [n for n in named if n != "validation" and getattr(data, n).startswith("split:")]:
        raise UserError(
            f"data.{wrong[0]} = {getattr(data, wrong[0])}: only data.validation can be split off; name a set or a file."
        )
    split = data.validation.partition(":")[2] if data.validation.startswith("split:") else None
    if split and (split not in ("train_text", "train_image") or getattr(data, split).partition(":")[0] in MADE):
        raise UserError(
            f"data.validation = {data.validation}: only a hub: set or a file can be split; "
            "write split:train_text or split:train_image."
        )
    return split


def _drop_leaks(folder: Path, sets: dict[str, WrittenSet], leaks: list[dict]) -> None:
    """Write the training sets again without the questions that leak. Raises UserError where none would be left."""
    for name in [n for n in TRAINING if n in sets]:
        dropped = {leak["train_id"] for leak in leaks if leak["train_set"] == name}
        if len(dropped) == len(sets[name].fingerprints):
            raise UserError(
                f"data.drop_leaks would leave nothing of {name}: every question of it is in the validation or the "
                "test set; name another source."
            )
        if dropped:
            sets[name] = _without(folder, name, dropped, sets[name])


def _write(
    folder: Path, name: str, questions: Iterator[tuple[Question, list[Image.Image]]], written: WrittenSet
) -> None:
    """Stream a set to its file while its fingerprints and figures are taken. Raises UserError for a repeated id."""
    ids: set[str] = set()

    def recorded() -> Iterator[Question]:
        for question, pictures in tqdm(questions, desc=name, unit="question", delay=2):
            if question.id in ids:
                raise UserError(f"data.{name} has the id {question.id} more than once; give every question its own id.")
            ids.add(question.id)
            written.fingerprints.append(fingerprint(question, pictures))
            sizes = [picture.size for picture in pictures]
            written.description.add(question, dict(zip(question.image_ids, sizes, strict=True)))
            yield question

    write_questions(recorded(), folder / f"{name}.parquet")


def _copy(folder: Path, source: str, target: str, ids: set[str], written: WrittenSet) -> WrittenSet:
    """Write the questions of a written set that have one of these ids to another set, without decoding a picture."""
    copied = WrittenSet([f for f in written.fingerprints if f.id in ids])

    def recorded() -> Iterator[Question]:
        for question in iterate_questions(folder / f"{source}.parquet"):
            if question.id in ids:
                copied.description.add(question, written.description.sizes)
                yield question

    write_questions(recorded(), folder / f"{target}.parquet")
    return copied


def _without(folder: Path, name: str, ids: set[str], written: WrittenSet) -> WrittenSet:
    """Write a set again without the questions that have one of these ids."""
    rest = _copy(folder, name, name, {f.id for f in written.fingerprints} - ids, written)
    return replace(rest, tallies=written.tallies)


def _hold_out(folder: Path, train: str, data: Data, written: WrittenSet) -> tuple[WrittenSet, WrittenSet]:
    """Move random questions of a training set to the validation set; returns what is left and what was moved.

    Questions that share a picture move together, so that no picture lies on both sides. A group that would bring more
    than validation_size is left in training, so there are at most as many as asked for, and fewer only where no group
    fills the rest. Raises UserError where nothing would be left on one side.
    """
    questions, asked = len(written.fingerprints), data.validation_size
    if questions <= asked:
        raise UserError(
            f"data.validation_size {asked} would leave nothing of {questions} training questions; lower it."
        )
    groups = picture_groups(written.fingerprints)
    Random(data.seed).shuffle(groups)
    chosen: set[str] = set()
    for group in groups:
        if len(chosen) + len(group) <= asked:
            chosen.update(group)
    if not chosen:
        raise UserError(
            f"data.validation_size {asked} is too small for data.{train}: at least {min(map(len, groups))} questions "
            "share a picture, and they stay together; raise it."
        )
    validation = _copy(folder, train, "validation", chosen, written)
    return _without(folder, train, chosen, written), validation


def _leaks(folder: Path, sets: dict[str, WrittenSet]) -> list[dict]:
    """Every match between a training set and the validation or the test set, also written to leaks.jsonl."""
    found = []
    for test_set in HELD_OUT:
        for train_set in [name for name in TRAINING if name in sets]:
            title = f"{train_set} against {test_set}"
            questions = tqdm(sets[train_set].fingerprints, desc=title, unit="question", delay=2)
            for leak in find_leaks(questions, sets[test_set].fingerprints):
                found.append({"train_set": train_set, "test_set": test_set, **leak})
    write_jsonl(folder / "leaks.jsonl", found)
    return found
