"""What each column of keys in a file holds: numbers that count options (from 0 or from 1), letters, or options' texts.

A key such as "A" or 2 may be read in two ways. Which one is right is seen from the whole column of one file: a value
that only one reading can explain decides for the others. Where no value decides, or two contradict each other, the
file is refused with the settings that say it. Nothing is guessed, and no file decides for another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import LETTERS
from medvlt_lib.data.rows import Refused, letter_in, named_by_text, read_rows
from medvlt_lib.tools.import_question import Cells, Kind, Reading, counted, denied, text_and_options, untagged


@dataclass
class Keys:
    """How many values of a column can be read in which way."""

    numbers: int = 0
    words: int = 0  # no numbers, and a letter or an option's text
    letters: int = 0  # a letter only
    texts: int = 0  # an option's text only
    counts: int = 0  # a number from 0 to the number of options, and no option's text
    letter_or_text: int = 0  # a letter and another option's text
    count_or_text: int = 0
    from_0: int = 0  # numbers that count options from 0 only, as 0 itself does
    from_1: int = 0  # numbers that count options from 1 only, as the number of options does
    from_either: int = 0
    example: str = ""  # the first value that is a letter and another option's text

    def see(self, value: Any, options: dict[str, str], bases: list[int], where: str) -> None:
        """Count one value; `bases`: what it can be counted from; `where`: its row, for an example."""
        number, texts = counted(value), named_by_text(value, options)
        self.from_0 += bases == [0]
        self.from_1 += bases == [1]
        self.from_either += bases == [0, 1]
        if number is not None:
            possible = 0 <= number <= len(options)
            self.numbers += 1
            self.count_or_text += possible and bool(texts)
            self.counts += possible and not texts
            self.texts += bool(texts) and not possible
            return
        letter = letter_in(value, options)
        self.words += bool(letter or texts)
        self.letters += bool(letter) and not texts
        self.texts += bool(texts) and not letter
        if letter and texts and texts != [letter]:
            self.letter_or_text += 1
            self.example = self.example or f"{str(value)[:20]!r} in {where}"


def look(file: Path, how: Reading, index_from: int | None, names: list[str] | None, alone: bool = True) -> Reading:
    """How a file is to be read: `how` with the kind of each column of keys, and whether an answer is "maybe".

    `index_from`: what numbers count from where somebody said it; `alone`: no other files are imported with it.
    Raises UserError where a column can be read in two ways.
    """
    seen: dict[str, Keys] = {}
    indices: set[str] = set()
    maybe = False
    for number, row in read_rows(file, names):
        cells = Cells({} if isinstance(row, Refused) else row, how)
        maybe = maybe or str(cells.find("answer")[1]).strip().casefold() == "maybe"
        column, value = cells.key()
        if value is None:
            continue
        if cells.find("answer_index")[1] is not None:
            indices.add(column)
        options = _options_or_none(cells)
        bases = _bases(cells, column, value, options)
        seen.setdefault(column, Keys()).see(untagged(value), options, bases, f"row {number}")
    kinds = dict(how.kinds)
    for column, keys in seen.items():
        if column in indices or (column not in kinds and _counts(file, column, keys)):
            kinds[column] = _first_number(file, column, keys, index_from, alone)
        elif column not in kinds:
            kinds[column] = _letter_or_text(file, column, keys)
    return replace(how, kinds=kinds, maybe=maybe)


def _options_or_none(cells: Cells) -> dict[str, str]:
    try:
        return text_and_options(cells)[1]
    except Refused:
        return {}


def _bases(cells: Cells, column: str, value: Any, options: dict[str, str]) -> list[int]:
    """The numbers, 0 and 1, that a key can be counted from and names an option that no other column denies."""
    number = counted(value)
    if number is None:
        return []
    possible = [base for base in (0, 1) if 0 <= number - base < len(options)]
    return [base for base in possible if not denied(cells, options, column, LETTERS[number - base])]


def _counts(file: Path, column: str, keys: Keys) -> bool:
    """Whether a column of answers counts options. Raises UserError where its numbers may be options' texts as well."""
    if not keys.numbers or (keys.texts and not keys.counts):
        return False
    if keys.count_or_text or (keys.texts and not keys.words):
        raise UserError(
            f"{file}: the numbers in column {column} could count options or be their texts; say which, with "
            f"--map answer_index={column} --index-from 0 (or 1, what they count from), or --map answer_text={column}."
        )
    return not keys.words


def _letter_or_text(file: Path, column: str, keys: Keys) -> Kind | None:
    """What decides about letters that are another option's text; None where there are none. Raises UserError."""
    if not keys.letter_or_text:
        return None
    if bool(keys.letters) == bool(keys.texts):
        why = "its other answers are of both kinds" if keys.letters else "no other answer shows which is meant"
        raise UserError(
            f"{file}: {keys.example}, column {column}, is a letter and also the text of another option, and {why}; "
            f"say so with --map answer_letter={column} or --map answer_text={column}."
        )
    return "letter" if keys.letters else "text"


def _first_number(file: Path, column: str, keys: Keys, index_from: int | None, alone: bool) -> Kind:
    """What a column of keys counts from. Raises UserError where that cannot be seen or is not what somebody said."""
    apart = "" if alone else "; import files that count from different numbers one at a time"
    say = "look at questions whose answers you know, and say which with --index-from 0 or --index-from 1"
    if index_from != 1 and keys.from_1 and not keys.from_0:
        raise UserError(
            f"{file}: column {column} can be counted from 1 only in {keys.from_1} rows, as where it is the number of "
            "options, and from 0 only in none: it seems to be counted from 1, and counted from 0 every key would be "
            f"wrong; add --index-from 1{apart}."
        )
    if index_from == 1 and keys.from_0 and not keys.from_1:
        raise UserError(
            f"{file}: column {column} can be counted from 0 only in {keys.from_0} rows, as where it is 0, and from 1 "
            "only in none: it seems to be counted from 0, and counted from 1 every key would be wrong; "
            f"leave --index-from 1 out{apart}."
        )
    if index_from is None and keys.from_0 and keys.from_1:
        raise UserError(
            f"{file}: column {column} can be counted from 0 only in {keys.from_0} rows, as where it is 0, and from 1 "
            f"only in {keys.from_1} rows, as where it is the number of options; {say}: other rows are refused."
        )
    if index_from is None and keys.from_either and not keys.from_0:
        raise UserError(
            f"{file}: no row shows whether column {column} counts options from 0 or from 1, since it is never 0 and "
            f"never the number of options; {say}{apart}."
        )
    return 1 if index_from == 1 else 0
