"""Rows of other people's files, one at a time, and what is refused of them.

A file may be JSONL (also .jsonl.gz), JSON, CSV or parquet. A row that cannot be used is refused with its file, row
number, column and reason; the good rows around it are kept.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.records import LETTERS

FORMS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")


class Refused(Exception):
    """One row that cannot be used: the column at fault and why."""

    def __init__(self, column: str, why: str) -> None:
        super().__init__(f"column {column}: {why}")
        self.column, self.why = column, why


class Tally:
    """What became of the rows of one source: read, kept, and dropped by reason with the first example of each."""

    def __init__(self, name: str) -> None:
        self.name, self.read, self.kept = name, 0, 0
        self.dropped: Counter = Counter()
        self.changed: Counter = Counter()
        self.examples: dict[str, str] = {}
        self.revision: str | None = None

    def drop(self, reason: str, example: str) -> None:
        self.dropped[reason] += 1
        self.examples.setdefault(reason, example)

    def card(self) -> dict:
        """The tally for a data card."""
        return {
            "revision": self.revision,
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "examples": self.examples,
            "changed": dict(self.changed),
        }


def read_rows(path: Path, names: list[str] | None = None) -> Iterator[tuple[int, dict | Refused]]:
    """(row number from 1, row) of a file; `names` are the columns of a CSV file without a header.

    Where a file is torn after good rows, a refused row says so and ends it.

    Raises UserError for a file that is missing, of another form, or torn from the start.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path.")
    if not path.name.endswith(FORMS):
        raise UserError(f"{path} is not a {', '.join(FORMS[:-1])} or {FORMS[-1]} file; convert it to one of them.")
    number = 0
    try:
        for number, row in enumerate(_rows(path, names), 1):
            if row is not None:
                yield number, row
    except (
        OSError,
        EOFError,
        ValueError,
        RecursionError,
        csv.Error,
        zlib.error,
    ) as error:  # pyarrow's errors are OSErrors and ValueErrors
        why = first_line(error)
        if not number:
            raise UserError(
                f"{path} cannot be read ({why}); it is torn or of another form, fetch or write it again."
            ) from error
        yield number + 1, Refused("(all)", f"the file is torn here ({why}); fetch or write it again")


def _rows(path: Path, names: list[str] | None) -> Iterator[dict | Refused | None]:
    if path.suffix == ".csv":
        return _csv_rows(path, names)
    return {".parquet": _parquet_rows, ".json": _json_rows}.get(path.suffix, _jsonl_rows)(path)


def _json_rows(path: Path) -> Iterator[dict | Refused | None]:
    """The rows of a JSON file: an array, an object of rows by id, an object that holds one array, or lines."""
    text = path.read_bytes()
    try:
        value = json.loads(text)
    except ValueError:
        if b"\n" not in text.strip() or not isinstance(json_row(text.strip().split(b"\n", 1)[0]), dict):
            raise
        yield from _jsonl_rows(path)
        return
    if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), list):
        value = next(iter(value.values()))
    if isinstance(value, dict) and value and all(isinstance(row, dict) for row in value.values()):
        value = [{"id": key, **row} for key, row in value.items()]
    for row in value if isinstance(value, list) else [value]:
        yield row if isinstance(row, dict) else Refused("(all)", "it is not a JSON object")


def _csv_rows(path: Path, names: list[str] | None) -> Iterator[dict | Refused]:
    csv.field_size_limit(1 << 30)
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file, names, strict=True):
            yield (
                row
                if None not in row
                else Refused("(all)", f"it has more than {len(row) - 1} fields; put quotes round commas")
            )


def _jsonl_rows(path: Path) -> Iterator[dict | Refused | None]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        for line in file:
            yield json_row(line) if line.strip() else None


def json_row(line: bytes) -> dict | Refused:
    """A line of JSONL as a row, or why it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Refused("(all)", f"it is not JSON ({error})")
    return row if isinstance(row, dict) else Refused("(all)", "it is not a JSON object")


def _parquet_rows(path: Path) -> Iterator[dict]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
        yield from batch.to_pylist()


def options_of(value: Any, column: str = "options") -> dict[str, str]:
    """Options as {letter: text}, from an object, a list, or a JSON string of either. Raises Refused."""
    shown = str(value)[:80]
    if isinstance(value, str):
        value = _parsed(value, column)
    if isinstance(value, list):
        value = dict(zip(LETTERS, value, strict=False)) if len(value) <= len(LETTERS) else value
    if not isinstance(value, dict):
        raise Refused(
            column, f"there are no options in {str(value)[:60]!r}; give an object of letters and texts, or a list"
        )
    if odd := [k for k, v in value.items() if isinstance(v, (dict, list)) or (isinstance(v, str) and not v.strip())]:
        raise Refused(column, f"option {odd[0]} is {value[odd[0]]!r}; give it a text")
    options = {str(k): str(v) for k, v in sorted(value.items(), key=lambda kv: str(kv[0])) if v is not None}
    if len(options) < 2 or list(options) != list(LETTERS[: len(options)]):
        raise Refused(
            column,
            f"the letters are {list(options)} in {shown!r}; at least A and B, in order without gaps, are needed, "
            "and a list has commas between its texts",
        )
    return options


def _parsed(text: str, column: str) -> Any:
    """What a JSON text, or a list as Python writes it, holds. Raises Refused for another text."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise Refused(column, f"{text[:60]!r} is not JSON; give an object of letters and texts, or a list")


def letter_in(value: Any, options: dict[str, str]) -> str | None:
    """The option whose letter a value is, also as people write it: "b", "(B)", "B."."""
    letter = str(value).strip().strip(" ().:").upper()
    return letter if letter in options else None


def named_by_text(value: Any, options: dict[str, str]) -> list[str]:
    """The letters of the options whose text a value is; capitals count only where another option differs by them."""
    text = str(value).strip()
    exact = [k for k, option in options.items() if option.strip() == text]
    return exact or [k for k, option in options.items() if option.strip().casefold() == text.casefold()]


def label_of(value: Any, options: dict[str, str], column: str, kind: Literal["letter", "text"] | None = None) -> str:
    """The gold letter from a letter or an option's text. Raises Refused when it names no option, or two.

    `kind`: what the column holds, where that is known; else a capital letter is a letter, before it is a text.
    """
    text = str(value).strip() if value is not None else ""
    if not text:
        raise Refused(column, "the answer is missing")
    if kind is None and text in options:
        return text
    fits = [] if kind == "letter" else named_by_text(text, options)
    letter = None if kind == "text" else letter_in(text, options)
    if not fits and letter:
        return letter
    if len(fits) != 1:
        raise Refused(
            column,
            f"{text[:60]!r} names {'no' if not fits else 'more than one'} option of {list(options.values())}"[:300],
        )
    return fits[0]


def plain_text(value: Any, column: str) -> str | None:
    """A text or nothing. Raises Refused for another type, and for characters that are no UTF-8."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Refused(column, f"{str(value)[:60]!r} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(column, "it holds bytes that are no UTF-8; save the file as UTF-8") from None
    return value
