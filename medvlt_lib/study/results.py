"""The results of cells on disk: KEY.json, what it was made with and how many answers were right, and KEY.parquet, every
answer. A summary is what the answers say, and the hashes in KEY.json tell when somebody changed either. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import atomic_write, file_hash, read_json, write_json

if TYPE_CHECKING:
    from medvlt_lib.study.cells import Cell

SHIPPED = Path(__file__).parents[1] / "assets" / "results" / "studies"
FORMAT = 1


def result_of(
    cell: Cell, looks: Sequence[str], manifest: dict[str, Any], seconds: dict[str, float], training: dict[str, Any]
) -> dict[str, Any]:
    """What is known of a cell beside its answers."""
    return {
        "format": FORMAT,
        "key": cell.key,
        "label": cell.label,
        "arm": cell.arm,
        "seed": cell.seed,
        "profile": cell.profile,
        "looks": list(looks),
        "date": date.today().isoformat(),
        "seconds": seconds,
        "training": training,
        "settings": cell.identity(),
        "versions": manifest["versions"],
        "hardware": manifest["hardware"],
    }


def write_result(folder: Path, result: dict[str, Any], rows: list[dict]) -> None:
    """Write a cell's answers, then its result, which is complete with that."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    answers = folder / f"{result['key']}.parquet"
    table = pa.Table.from_pylist(rows)
    atomic_write(answers, lambda tmp: pq.write_table(table, tmp, compression="zstd", compression_level=19))
    complete = {**result, "right": right_of(rows), "answers": file_hash(answers)}
    write_json(folder / f"{result['key']}.json", {**complete, "sha256": _hash(complete)})


def right_of(rows: list[dict]) -> dict[str, dict[str, list[int]]]:
    """By look and family: right answers, and answers."""
    counted: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        own = counted.setdefault(row["look"], {}).setdefault(row["dataset"], [0, 0])
        own[0] += row["correct"]
        own[1] += 1
    return counted


def results_in(folder: Path) -> dict[str, dict[str, Any]]:
    """The results in a folder by key, without what a kill left half-written. Raises UserError as `read_result`."""
    return {result["key"]: result for result in map(read_result, sorted(folder.glob("[!.]*-s*-*.json")))}


def read_result(path: Path) -> dict[str, Any]:
    """One result. Raises UserError for one that was changed by hand, or of another version."""
    result = read_json(path)
    if result.get("format") != FORMAT:
        raise UserError(f"{path} was not written by this version of medvlt; move it away and run its study again.")
    kept = {key: value for key, value in result.items() if key != "sha256"}
    if _hash(kept) != result["sha256"]:
        raise UserError(f"{path} was changed after it was written; delete it and run its study again.")
    return result


def answers_of(folder: Path, result: dict[str, Any]) -> list[dict]:
    """Every answer of a cell. Raises UserError where the file is missing or is not the one that was counted."""
    import pyarrow.parquet as pq

    path = folder / f"{result['key']}.parquet"
    if not path.exists() or file_hash(path) != result["answers"]:
        raise UserError(
            f"{path} is missing or was changed; delete {path.with_suffix('.json')} and run its study again."
        )
    return pq.read_table(path).to_pylist()


def _hash(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
