"""Files of graded answers, ours or other people's, as one table: an item, a sample, right or wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from medvlt_lib.core.errors import UserError, first_line

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("id", "correct", "dataset", "cluster", "sample", "letter", "options")
BLANK = ("", "nan", "none", "null")
WORDS = {"true": 1, "false": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0} | dict.fromkeys(BLANK, 0)


def read_answers(path: Path) -> tuple[pd.DataFrame, int]:
    """(answers, how many of them were blank) of a .parquet, .jsonl or .csv file with the columns id and correct.

    `correct` is true or false, or 1 or 0; a blank one counts as wrong. Optional are dataset (all of one where it is
    missing), cluster (what answers share, such as a picture; the id where it is missing), sample (0), letter, and
    options (their number, or the options themselves, as `medvlt grade` writes them; here always their number).
    Raises UserError for a file that is missing, torn or of another form, another value in `correct`, options that are
    none, and for two rows with one id and sample.
    """
    table = _read(path)
    for column in ("id", "correct"):
        if column not in table:
            raise UserError(f"{path} has no column {column}; it has {', '.join(map(str, table.columns))}.")
    table = table[[column for column in COLUMNS if column in table]]
    if table.empty:
        raise UserError(f"{path} holds no answers; write them again.")
    if table["id"].isna().any():
        raise UserError(f"{path} has a row without an id (row {int(table['id'].isna().argmax()) + 1}); give it one.")
    said = table["correct"].map(lambda value: str(value).strip().lower())
    right = said.map(WORDS)
    if right.isna().any():
        row = int(right.isna().argmax())
        raise UserError(
            f"{path}, row {row + 1}: correct is {table['correct'].iloc[row]!r}; it must be true or false, or 1 or 0."
        )
    table = table.assign(id=table["id"].astype(str), correct=right.astype("int8"))
    table["sample"] = table["sample"].fillna(0).astype(int) if "sample" in table else 0
    table["dataset"] = table["dataset"].fillna("all").astype(str) if "dataset" in table else "all"
    table["cluster"] = table["cluster"].fillna(table["id"]).astype(str) if "cluster" in table else table["id"]
    if "options" in table:
        table["options"] = _numbers_of_options(table["options"], path)
    twice = table.duplicated(["id", "sample"])
    if twice.any():
        first = table[twice].iloc[0]
        raise UserError(
            f"{path} has {int(twice.sum())} rows too many: the id {first['id']} with sample {first['sample']} stands "
            "there more than once; leave one row, or number repeated answers in a column sample."
        )
    return table.reset_index(drop=True), int(said.isin(BLANK).sum())


def _numbers_of_options(column: pd.Series, path: Path) -> pd.Series:
    """How many options each question has, of their number, an object or list of them, or JSON of one."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column
    numbers = {}
    for row, value in enumerate(column):
        key = str(value)
        if key not in numbers:
            try:
                said = json.loads(value) if isinstance(value, str) else value
                numbers[key] = len(said) if isinstance(said, (dict, list)) else int(said)
            except (TypeError, ValueError):
                raise UserError(
                    f"{path}, row {row + 1}: options is {value!r}; give their number or the options themselves."
                ) from None
    return column.map(lambda value: numbers[str(value)]).astype(int)


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path.")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            known = [name for name in pq.read_schema(path).names if name in COLUMNS]
            return pd.read_parquet(path, columns=known)
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False)
        if path.suffix == ".jsonl":
            return pd.read_json(path, lines=True, dtype=False)
    except Exception as error:  # pandas and pyarrow raise families of their own
        raise UserError(f"{path} cannot be read ({first_line(error)}); write it again.") from error
    raise UserError(f"{path} is not a .parquet, .jsonl or .csv file; convert it to one of them.")
