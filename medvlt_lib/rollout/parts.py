"""Long rollouts in parts: a killed run continues after the last whole part and ends with the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from medvlt_lib.records import Completion, Question, UserError, atomic_write
from medvlt_lib.rollout.engine import Engine, Sampling, prompts_of


def roll_out(
    folder: Path,
    questions: list[Question],
    style: str,
    sampling: Sampling,
    make_engine: Callable[[], Engine],
    row: Callable[[Completion, Question], dict],
    part: int,
    title: str,
) -> list[dict]:
    """`row` of every completion, in order, kept in `folder`/part-*.jsonl with `part` questions in each file.

    The engine is only made when a part is missing. Raises UserError for a part that cannot be read.
    """
    rows, engine = [], None
    by_id = {q.id: q for q in questions}
    starts = range(0, len(questions), part)
    with tqdm(total=len(questions), desc=title, unit="question") as bar:
        for number, start in enumerate(starts):
            path, chunk = folder / f"part-{number:05d}.jsonl", questions[start : start + part]
            if not path.exists():
                engine = engine or make_engine()
                lines = []
                for completion in engine.generate(prompts_of(chunk, style), sampling):
                    lines.append(json.dumps(row(completion, by_id[completion.question_id]), ensure_ascii=False))
                    bar.update(len(lines) // sampling.n - (bar.n - start))
                text = "\n".join(lines) + "\n"
                atomic_write(path, lambda temporary, text=text: Path(temporary).write_text(text, encoding="utf-8"))
            rows += _read(path)
            bar.update(start + len(chunk) - bar.n)
    return rows


def _read(path: Path) -> list[dict]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is torn; delete it and start the same command again.") from error
