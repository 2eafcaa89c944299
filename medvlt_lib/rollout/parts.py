"""Long rollouts in parts: a killed run continues after the last whole part and ends with the same rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write, read_jsonl
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Question

if TYPE_CHECKING:
    from medvlt_lib.core.config import Profile

VLLM_PROMPTS = 256  # that vLLM is handed at once (MedVLThinker: 512 for the probe)

# What every row of the filter's rollouts says of how it was made (medvlt_lib.stages.filtering).
PROVENANCE = ("weights", "quantization", "prompt_style", "temperature", "max_new_tokens", "seed", "engine", "grader")


@dataclass
class Part:
    """One file of rollouts: rows of the questions `start` to `stop`, each row with the same `provenance`."""

    path: Path
    source: QuestionFiles
    start: int
    stop: int
    provenance: dict[str, Any] = field(default_factory=dict)
    bar: tqdm | None = None

    def questions(self) -> list[Question]:
        return self.source[self.start : self.stop]

    def write(self, rows: Iterable[dict]) -> None:
        """Write the rows as they come, whole or not at all; the progress bar counts their questions."""

        def write(temporary: str) -> None:
            seen: set[str] = set()
            with open(temporary, "w", encoding="utf-8") as file:
                for row in rows:
                    file.write(json.dumps({**row, **self.provenance}, ensure_ascii=False) + "\n")
                    if self.bar is not None and row["id"] not in seen:
                        self.bar.update()
                    seen.add(row["id"])

        atomic_write(self.path, write)

    def rows(self, ids: set[str]) -> Iterator[dict]:
        """The rows on disk. Raises UserError when they are torn, of another provenance or of other questions."""
        seen = set()
        for row in read_jsonl(self.path):
            self._check_provenance(row)
            if row["id"] not in ids:
                raise UserError(
                    f"{self.path} holds rollouts of {row['id']}, a question of another part or run; delete that file."
                )
            seen.add(row["id"])
            yield row
        if seen != ids:
            raise UserError(f"{self.path} lacks some of its questions; delete it and start the same command again.")

    def _check_provenance(self, row: dict) -> None:
        for key, value in self.provenance.items():
            if row.get(key) != value:
                raise UserError(
                    f"{self.path} holds rollouts with {key} = {json.dumps(row.get(key))}, "
                    f"now it is {json.dumps(value)}; delete that file to do it again, or choose another --run."
                )


def parts_of(folder: Path, questions: QuestionFiles, size: int, provenance: dict[str, Any] | None = None) -> list[Part]:
    """The part files of `questions` in `folder`, `size` questions in each, whether they are there or not."""
    starts = range(0, len(questions), size)
    return [
        Part(folder / f"part-{n:05d}.jsonl", questions, start, min(start + size, len(questions)), provenance or {})
        for n, start in enumerate(starts)
    ]


def part_size(profile: Profile, usual: int) -> int:
    """Questions in one part: `usual`, or as many more as vLLM wants at once, which would wait for work otherwise."""
    return max(usual, VLLM_PROMPTS) if profile.engine.kind == "vllm" else usual


def missing(parts: list[Part]) -> list[Part]:
    return [part for part in parts if not part.path.exists()]


def with_progress(parts: list[Part], title: str) -> Iterator[Part]:
    """The missing parts one after the other, under a bar that counts the questions of all."""
    with progress_bar(parts, title):
        yield from missing(parts)


@contextmanager
def progress_bar(parts: list[Part], title: str) -> Iterator[tqdm]:
    """A bar that counts the questions of all parts; the missing ones move it as they are written."""
    to_do = missing(parts)
    total = sum(part.stop - part.start for part in parts)
    done = total - sum(part.stop - part.start for part in to_do)
    with tqdm(total=total, initial=done, desc=title, unit="question") as bar:
        for part in to_do:
            part.bar = bar
        yield bar


def rows_of(parts: list[Part]) -> Iterator[dict]:
    """Every row of the parts, in order. Raises UserError as `Part.rows`."""
    if not parts:
        return
    ids = [row["id"] for row in parts[0].source.columns("id")]
    for part in parts:
        yield from part.rows(set(ids[part.start : part.stop]))
