"""`medvlt grade`: grade a JSONL file of responses of any size, row by row, so that a killed run continues."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

from tqdm import tqdm

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, read_jsonl, write_json
from medvlt_lib.core.records import Verdict
from medvlt_lib.data.rows import Refused, json_row, options_of
from medvlt_lib.grading.grade import GRADERS, evidence, grade_response

VERDICT = tuple(f.name for f in dataclasses.fields(Verdict))
OWN = frozenset((*VERDICT, "evidence"))
EVERY = 2000  # rows between two saved states


def grade_file(source: Path, out: Path, grader: str, explain: bool = False) -> int:
    """Writes `out`: the rows of `source` with letter, correct, how, well_formed, truncated (and reward, online).

    `explain` adds the `evidence` of each row (see medvlt_lib.grading.grade.evidence).
    Rows that cannot be graded go to OUT.refused.jsonl with their row number, column and reason; returns their number.
    Raises UserError for a missing file, an unknown grader, an `out` that exists, or a half-done one of another job.
    """
    if grader not in GRADERS:
        raise UserError(f"unknown grader '{grader}'; choose one of {', '.join(GRADERS)}.")
    if not source.is_file():
        raise UserError(f"there is no file {source}; check the path.")
    if out.exists():
        raise UserError(f"{out} exists; delete it or choose another --out.")
    part, refused, state = (out.with_name(f"{out.name}.{end}") for end in ("part", "refused.jsonl", "state.json"))
    job = {"grader": grader, "explain": explain, "input": _fingerprint(source)}
    start = {**job, "rows": 0, "read": 0, "part": 0, "refused": 0}
    done = {"explain": False, **read_json(state)} if state.exists() else start
    if {k: done.get(k) for k in job} != job:
        raise UserError(f"{state} belongs to another input or grader; delete it or choose another --out.")
    if any(not p.exists() or p.stat().st_size < done[k] for p, k in ((part, "part"), (refused, "refused"))):
        done = start  # what the state speaks of is gone
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            open(source, "rb") as rows,
            _reopened(part, done["part"]) as good,
            _reopened(refused, done["refused"]) as bad,
        ):
            rows.seek(done["read"])
            number, begun = done["rows"], time.perf_counter()
            with tqdm(total=source.stat().st_size, initial=done["read"], desc=grader, unit="B", unit_scale=True) as bar:
                for number, line in enumerate(rows, done["rows"] + 1):
                    _grade_line(line, number, grader, explain, good, bad)
                    if number % EVERY == 0:
                        bar.update(rows.tell() - bar.n)
                        _save(state, {**job, "rows": number, "read": rows.tell()}, good, bad)
                bar.update(rows.tell() - bar.n)
            seconds, graded = time.perf_counter() - begun, number - done["rows"]
            print(f"{graded:,} rows in {seconds:.1f} s, {graded / seconds:,.0f} a second", file=sys.stderr)
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or out} ({error.strerror}); "
            "free some space, then the same command continues."
        ) from error
    with open(refused, "rb") as bad:
        count = sum(1 for _ in bad)
    if not count:
        refused.unlink()
    os.replace(part, out)
    state.unlink(missing_ok=True)
    return count


def _fingerprint(source: Path) -> list:
    with open(source, "rb") as file:
        return [source.stat().st_size, source.stat().st_mtime_ns, hashlib.sha256(file.read(1 << 20)).hexdigest()]


def _reopened(path: Path, size: int):
    """A file for appending, cut back to what the last saved state knows."""
    file = open(path, "ab")  # noqa: SIM115, closed by the caller
    file.truncate(size)
    return file


def _save(state: Path, done: dict, good, bad) -> None:
    for file in (good, bad):
        file.flush()
        os.fsync(file.fileno())
    write_json(state, {**done, "part": good.tell(), "refused": bad.tell()})


def _grade_line(line: bytes, number: int, grader: str, explain: bool, good, bad) -> None:
    if not line.strip():
        return
    try:
        row = _row(line)
        options = _options_of(row["options"])
        if not isinstance(row["answer_label"], str) or row["answer_label"] not in options:
            raise Refused("answer_label", f"{row['answer_label']!r} is none of the options {list(options)}")
        verdict = grade_response(
            row["response"], options, row["answer_label"], grader, finish_reason=row.get("finish_reason")
        )
    except Refused as error:
        bad.write(_line({"row": number, "column": error.column, "why": error.why}))
        return
    said = {k: v for k in VERDICT if (v := getattr(verdict, k)) is not None or k == "letter"}
    if explain:
        said["evidence"] = evidence(row["response"], options, grader, row.get("finish_reason"))
    given = {k: v for k, v in row.items() if k not in OWN}  # an earlier grading's words do not mix with this one's
    good.write(_line({**given, **said}))


def _line(row: dict) -> bytes:
    return (_ENCODE(row) + "\n").encode("utf-8", "backslashreplace")  # half characters become JSON escapes


_ENCODE = json.JSONEncoder(ensure_ascii=False).encode  # made once, which is faster than json.dumps
_options = lru_cache(maxsize=1 << 14)(options_of)
_options_of_pairs = lru_cache(maxsize=1 << 14)(lambda pairs: options_of(dict(pairs)))


def _options_of(value: object) -> dict[str, str]:
    """A row's options; files repeat them, so what was read once is not read again."""
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return _options_of_pairs(tuple(value.items()))
    return _options(value) if isinstance(value, str) else options_of(value)


def _row(line: bytes) -> dict:
    row = json_row(line)
    if isinstance(row, Refused):
        raise row
    for column in ("response", "options", "answer_label"):
        if row.get(column) is None:
            raise Refused(column, "it is missing")
    if not isinstance(row["response"], str):
        raise Refused("response", "it is not text")
    return row


def summary(graded: Path) -> list[tuple[str, ...]]:
    """The table of a graded file, header first: one line for each `dataset`, and one for all; shares in percent."""
    counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in read_jsonl(graded):
        tally = counts[str(row.get("dataset", "all"))]
        tally["rows"] += 1
        for key in ("correct", "well_formed", "truncated", "online", "reward"):
            if key in row:
                tally[key] += row[key] or 0
                tally[f"has {key}"] += 1
        tally["no answer"] += row["letter"] is None
        tally["contradicted"] += "contradicted" in row["how"]
    every: dict[str, float] = defaultdict(float)
    for tally in counts.values():
        for key, value in tally.items():
            every[key] += value
    counts["all"] = every
    shares = ["correct", "no answer", "contradicted", "truncated", "well_formed"] + (
        ["online"] if counts["all"]["has online"] else []
    )
    reward = ["mean reward"] if counts["all"]["has reward"] else []
    cells = [("dataset", "rows", *(name.replace("_", "-") for name in shares), *reward)]
    for name in sorted(counts, key=lambda n: (n == "all", n)):
        tally = counts[name]
        percent = [f"{100 * tally[share] / tally['rows']:.1f}" for share in shares]
        cells.append(
            (name, f"{tally['rows']:.0f}", *percent, *([f"{tally['reward'] / tally['rows']:.3f}"] if reward else []))
        )
    return cells


def kinds(graded: Path) -> list[tuple[str, ...]]:
    """The table of a file graded with `explain`, header first: rows by the rule that decided and by what was put aside,
    with an example of each, the shortest of the first twenty."""
    tally: dict[tuple[str, str], list] = defaultdict(lambda: [0, 0, []])
    for number, row in enumerate(read_jsonl(graded), 1):
        found = row["evidence"]
        ends = found["piece"] or row["response"][-60:]
        names = [
            ("1", found["rule"], ends),
            *(("2", f"put aside: {k}", v) for k, v in found.get("put_aside", {}).items()),
        ]
        for order, name, words in names:
            count = tally[order, name]
            count[0] += 1
            count[1] += row["correct"]
            if count[0] <= 20:
                count[2].append(f"row {number}: {' '.join(words[-60:].split())} -> {row['letter'] or 'none'}")
    rows = sorted(tally.items(), key=lambda item: (item[0][0], -item[1][0]))
    head = ("kind", "rows", "correct, %", "example -> letter")
    return [head, *((n, str(c), f"{100 * right / c:.1f}", min(said, key=len)) for (_, n), (c, right, said) in rows)]
