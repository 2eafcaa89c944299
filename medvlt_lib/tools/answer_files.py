"""Files of graded answers, ours or other people's, as one table: an item, a sample, right or wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medvlt_lib.core.errors import UserError, first_line

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("id", "correct", "dataset", "cluster", "sample", "letter")
BLANK = ("", "nan", "none", "null")
WORDS = {"true": 1, "false": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0} | dict.fromkeys(BLANK, 0)


def read_answers(path: Path) -> tuple[pd.DataFrame, int]:
    """(answers, how many of them were blank) of a .parquet, .jsonl or .csv file with the columns id and correct.

    `correct` is true or false, or 1 or 0; a blank one counts as wrong. Optional are dataset (all of one where it is
    missing), cluster (what answers share, such as a picture; the id where it is missing), sample (0) and letter.
    Raises UserError for a file that is missing, torn or of another form, another value in `correct`, and for two rows
    with one id and sample.
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
    twice = table.duplicated(["id", "sample"])
    if twice.any():
        first = table[twice].iloc[0]
        raise UserError(
            f"{path} has {int(twice.sum())} rows too many: the id {first['id']} with sample {first['sample']} stands "
            "there more than once; leave one row, or number repeated answers in a column sample."
        )
    return table.reset_index(drop=True), int(said.isin(BLANK).sum())


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
