"""Numbers and tables as text: the one Markdown table and the one percentage of the library, and text of data or models
that is to be shown and must do nothing else."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable


def markdown_table(rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; the first row is its head. A cell may hold any text: bars and line ends in it break nothing."""
    head, *body = [[_cell(value) for value in row] for row in rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *body)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, without the sign: 0.417 is 41.7."""
    return f"{100 * share:.{digits}f}"


def visible(text: object) -> str:
    """A text in which nothing acts unseen: control characters, and marks that turn the direction of writing, stand as
    their numbers, such as [U+202E]. Line ends and tabs stay."""
    return "".join(f"[U+{ord(c):04X}]" if _acts_unseen(c) else c for c in str(text))


def _acts_unseen(character: str) -> bool:
    harmless = "\n\r\t\u200c\u200d"  # the last two join letters, in Persian and in Hindi
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in harmless


def plain_markdown(text: object) -> str:
    """A text as one line of Markdown that shows it as it is: neither Markdown nor HTML in it has any effect."""
    line = html.escape(" ".join(visible(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]~$])", r"\\\1", line)  # bars are the table's business


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").splitlines())
