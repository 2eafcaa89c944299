"""The texts of a question's options, folded so that a response's wording can be compared with them."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

SPAN = 300  # characters of a statement that are read
TRIM = " \t\r\n*_`~#|$\"'“”‘’«»()[]{},;:!?"
_LOOSE = re.compile(r"(?<!\d)[^\w\s%<>=+.±-](?!\d)|(?<![\d\s])[-.](?!\d)|[\"'“”‘’`*$]")


def fold(text: str) -> str:
    """Text for comparison: without case, leading article and punctuation, but with the signs and points of numbers."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text[:SPAN])
    text = " ".join(_LOOSE.sub(" ", text.strip(TRIM).casefold()).split())
    if text.startswith(("the ", "a ", "an ")):
        text = text.split(" ", 1)[1]
    return text.strip(TRIM).rstrip(".")


class OptionTexts(dict):
    """Folded option texts to their letters, None where two options read alike; `of` is the way back."""

    def __init__(self, options: tuple[tuple[str, str], ...]) -> None:
        self.of = {letter: fold(text) for letter, text in options}
        self.words = {letter: {w for w in key.split() if len(w) > 3 or w.isdigit()} for letter, key in self.of.items()}
        self.longest = max((len(text) for _, text in options), default=0) + 16  # nothing longer folds to an option
        for letter, key in self.of.items():
            self[key] = None if key in self or not key else letter
        self.starts = tuple({key[:1] for key in self} | {"the ", "a ", "an ", "-", "+", "<", ">", ".", "%", "="})

    def may_hold(self, low: str) -> bool:
        """A quick look before folding: the length and the first letter fit an option."""
        return len(low) <= self.longest and (low.startswith(self.starts) or not low.isascii())

    def named_in(self, text: str) -> set[str]:
        """The letters of options whose whole text stands in a piece of text."""
        padded = f" {fold(text).replace(',', ' ').replace(';', ' ')} "
        return {letter for letter, key in self.of.items() if key and f" {key} " in padded}


option_texts = lru_cache(maxsize=1 << 16)(OptionTexts)
