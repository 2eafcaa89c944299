"""Training questions on disk: read one at a time, so that no more pictures are held than a step uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from filelock import FileLock

from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.records import ROW_GROUP, Question, from_row, question_schema, to_row


class StoredQuestions(Sequence[Question]):
    """Questions that are written to the Arrow file `path` as they come, and mapped into memory from there.

    A file that is there already is taken as it is: it lies in a stage's folder, whose inputs do not change. Where
    several processes train together, one writes and the others wait for it.
    """

    def __init__(self, questions: Iterable[Question], path: Path) -> None:
        from datasets import Dataset

        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                atomic_write(path, lambda temporary: _write(questions, temporary))
        self._rows = Dataset.from_file(str(path))

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self) -> list[str]:
        """The ids of all questions in order; no picture is read."""
        return self._rows["id"][:]

    def modalities(self) -> set[str]:
        """Whether there are "text" questions, "image" questions, or both; no picture is read."""
        return set(self._rows["modality"][:])

    def __getitem__(self, place: int) -> Question:
        return from_row(self._rows[place])


def _write(questions: Iterable[Question], path: str) -> None:
    import pyarrow as pa

    schema, rows = question_schema(), map(to_row, questions)
    with pa.ipc.new_stream(path, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema=schema))
