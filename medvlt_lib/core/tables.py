"""Numbers and tables as text: the one Markdown table and the one percentage of the library."""

from __future__ import annotations

from collections.abc import Iterable


def markdown_table(rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; the first row is its head. A cell may hold any text: bars and line ends in it break nothing."""
    head, *body = [[_cell(value) for value in row] for row in rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *body)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, without the sign: 0.417 is 41.7."""
    return f"{100 * share:.{digits}f}"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").splitlines())
