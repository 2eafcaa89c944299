"""Long rollouts in parts: a killed run continues after the last whole part and ends with the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.records import Completion, Question
from medvlt_lib.rollout.engine import Engine, Sampling, prompts_of

Rows = Callable[[Engine, list[Question]], Iterable[dict]]


def graded(style: str, sampling: Sampling, row: Callable[[Completion, Question], dict]) -> Rows:
    """Rows of a chunk of questions: `row` of each of `sampling.n` completions, in order."""

    def rows(engine: Engine, chunk: list[Question]) -> Iterator[dict]:
        by_id = {q.id: q for q in chunk}
        for completion in engine.generate(prompts_of(chunk, style), sampling):
            yield row(completion, by_id[completion.question_id])

    return rows


def roll_out(
    folder: Path,
    questions: list[Question],
    make_engine: Callable[[], Engine],
    rows: Rows,
    part: int,
    title: str,
    shard: tuple[int, int] | None = None,
    provenance: dict | None = None,
) -> Iterator[dict]:
    """Every row of `rows(engine, chunk)`, in order, kept in `folder`/part-*.jsonl with `part` questions in each file.

    The engine is only made when a part is missing. `shard` (i, n) does every n-th part, from the i-th. Every row carries
    `provenance`. Raises UserError for a part that is torn or has rows of another provenance.
    """
    engine, provenance = None, provenance or {}
    with tqdm(total=len(questions), desc=title, unit="question") as bar:
        for number, start in enumerate(range(0, len(questions), part)):
            if shard and number % shard[1] != shard[0] - 1:
                continue
            path, chunk = folder / f"part-{number:05d}.jsonl", questions[start : start + part]
            if not path.exists():
                engine = engine or make_engine()
                lines, seen = [], set()
                for row in rows(engine, chunk):
                    lines.append(json.dumps({**row, **provenance}, ensure_ascii=False))
                    bar.update(row["id"] not in seen)
                    seen.add(row["id"])
                text = "\n".join(lines) + "\n"
                atomic_write(path, lambda temporary, text=text: Path(temporary).write_text(text, encoding="utf-8"))
            else:
                bar.update(len(chunk))
            yield from _read(path, provenance, {q.id for q in chunk})


def missing_parts(folder: Path, questions: int, part: int) -> list[str]:
    """The names of part files that are not there."""
    names = [f"part-{n:05d}.jsonl" for n in range(-(-questions // part))]
    return [n for n in names if not (folder / n).exists()]


def _read(path: Path, provenance: dict, ids: set[str]) -> Iterator[dict]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path} is torn; delete it and start the same command again.") from error
            for key, value in provenance.items():
                if row.get(key) != value:
                    raise UserError(
                        f"{path} holds rollouts with {key} = {json.dumps(row.get(key))}, now it is {json.dumps(value)}; "
                        "delete that file to do it again, or choose another --run."
                    )
            if row["id"] not in ids:
                raise UserError(
                    f"{path} holds rollouts of {row['id']}, a question of another part or run; delete that file."
                )
            yield row
