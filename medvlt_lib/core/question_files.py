"""Question files that are larger than memory: their questions are read when they are asked for. No torch here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.records import ROW_GROUP, Question, from_row, readable


class QuestionFiles:
    """The questions of some parquet files, one file after the other; of the pictures one row group is held at a time.

    `files[a:b]` are questions as a list. Raises UserError for a file that is missing or torn.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        import pyarrow.parquet as pq

        self.paths = list(paths)
        groups = []
        for path in self.paths:
            with readable(path):
                file = pq.ParquetFile(path)
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            groups += [(path, file, i, size) for i, size in enumerate(sizes)]
        ends = list(accumulate(size for *_, size in groups))
        self._groups = [
            (path, file, i, end - size, end) for (path, file, i, size), end in zip(groups, ends, strict=True)
        ]
        self._length = ends[-1] if ends else 0
        self._last: tuple[int, Any] = (-1, None)  # the row group read last, with its table

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, wanted: slice) -> list[Question]:
        start, stop, _ = wanted.indices(len(self))
        rows: list[dict] = []
        for number, (path, file, group, first, end) in enumerate(self._groups):
            if first < stop and end > start:
                with readable(path):
                    if self._last[0] != number:
                        self._last = (number, file.read_row_group(group))
                    low, high = max(start, first) - first, min(stop, end) - first
                    rows += self._last[1].slice(low, high - low).to_pylist()
        return [from_row(row) for row in rows]

    def __iter__(self) -> Iterator[Question]:
        for *_, first, end in self._groups:
            yield from self[first:end]

    def named(self, ids: Collection[str]) -> dict[str, Question]:
        """The questions with these ids, by id, in the order of the files; of the others no picture is read."""
        places = [place for place, row in enumerate(self.columns("id")) if row["id"] in ids]
        return {question.id: question for place in places for question in self[place : place + 1]}

    def columns(self, *names: str) -> list[dict[str, Any]]:
        """Some columns of every question, without its pictures."""
        import pyarrow.parquet as pq

        rows: list[dict] = []
        for path in self.paths:
            with readable(path):
                rows += pq.read_table(path, columns=list(names)).to_pylist()
        return rows


def write_selection(source: Path, places: Sequence[int], target: Path) -> None:
    """Write the questions of a parquet file that stand at `places`, in that order; their encoded bytes are held."""
    import pyarrow.parquet as pq

    chosen = pq.read_table(source).take(list(places))
    atomic_write(target, lambda temporary: pq.write_table(chosen, temporary, row_group_size=ROW_GROUP))
