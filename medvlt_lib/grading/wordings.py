"""The tolerant grader's tables of marks and wordings (assets/grading/wordings.toml), made into expressions once."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TABLE = tomllib.loads((Path(__file__).parents[1] / "assets/grading/wordings.toml").read_text(encoding="utf-8"))
SPACE = r"[\s\"'*_`:]*"  # what markup may put between two words


def any_of(words: list[str], whole: bool = True) -> str:
    """An expression for one of the words; `whole`: with no other letter right before or after it."""
    joined = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return rf"(?<![^\W\d_])(?:{joined})(?![^\W\d_])" if whole else f"(?:{joined})"


class Words:
    """Words to look for in a piece of text: whole ones, and phrases or words of languages without spaces."""

    _WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")

    def __init__(self, words: list[str], spaces: bool) -> None:
        self.single = frozenset(word for word in words if spaces and " " not in word)
        self.parts = tuple(word for word in words if word not in self.single)

    def within(self, text: str) -> bool:
        """Whether one of them stands in a text in lower case."""
        if not self.single.isdisjoint(self._WORD.findall(text)):
            return True
        return any(part in text for part in self.parts)


@dataclass(frozen=True)
class Language:
    """One language's way of stating an answer. The expressions are for text in lower case."""

    spaces: bool  # whether it is written with spaces between words
    links: tuple[str, ...]  # one of them stands in what `link` matches, but where a letter follows at once
    link: re.Pattern  # from a noun to what is stated; group 1 is what stands between noun and link
    subjects: re.Pattern | None  # who chooses, right before a verb
    be: tuple[str, ...]  # between an option and a word of praise
    fillers: re.Pattern  # what may stand between these two
    good_end: re.Pattern  # what may follow the word of praise
    conclusion: re.Pattern
    condition: Words
    doubt: Words
    would: Words
    would_with: Words


def language(row: dict) -> Language:
    """A language of the table with its expressions."""
    spaced = row["spaces"]
    links, fillers = (any_of([w for w in row[key] if w], spaced) for key in ("links", "fillers"))
    if spaced:  # word by word, which is faster than letter by letter
        gap = r"(?![^\W\d_])[*_\"')\]]{0,4}((?:[^\S\n]+[^\s.:=?!;]{1,40}){0,10}?)"
        link = rf"(?:[^\S\n]+{links}|[\s*_\"']*[:=]|[^\S\n]+-(?=\s))"
    else:
        gap, link = r"([^.\n:=?!;a-z]{0,12}?)", rf"(?:{links}|[:=]|\s-(?=\s)|(?=[(\[\"'*]*[a-j](?![a-z])))"
    good_ends = rf"(?:\s*{any_of(row.get('good_ends') or ['-'], False)})?"
    reasons = any_of(TABLE["clause_words"])
    return Language(
        spaces=spaced,
        links=(*filter(None, row["links"]), ":", "=", "-", "\n", *("" for _ in range(not spaced))),
        link=re.compile(rf"(?:{gap}{link}|[*_]*[^\S\n]*\n\s*){SPACE}(?P<fillers>(?:{fillers}[,:]?{SPACE}){{0,2}})"),
        subjects=re.compile(any_of(row["subjects"]) + r"\s+$") if "subjects" in row else None,
        be=tuple(row["be"]),
        fillers=re.compile(rf"\s*(?:{any_of(row['fillers_good'], spaced)}\s*){{0,6}}"),
        good_end=re.compile(rf"{good_ends}[\"'*_]*\s*(?:[.!,;)]|$|\n|{reasons})"),
        conclusion=re.compile(any_of(row["conclusions"], spaced)),
        **{key: Words(row.get(key, []), spaced) for key in ("would", "would_with")},
        condition=Words(row["conditions"], spaced),
        doubt=Words(row["doubts"], spaced),
    )


class Cue(NamedTuple):
    """A use of a word: a noun ("answer"), a verb ("choose"), praise ("correct") or a correction ("wait")."""

    kind: str
    after_tag: bool  # whether it counts behind a tag or box, too
    language: Language


def _cues() -> dict[str, list[Cue]]:
    cues: dict[str, list[Cue]] = {}
    for row in TABLE["languages"]:
        made = language(row)
        for kind in ("nouns", "verbs", "good"):
            for word in row[kind]:
                after_tag = kind == "good" or word in row.get("after_tag", ())
                cues.setdefault(word, []).append(Cue(kind, after_tag, made))
    english = cues["answer"][0].language
    return cues | {word: [Cue("corrections", True, english)] for word in TABLE["corrections"]}


CUES = _cues()
_LETTERS = bytes(c if chr(c).isalpha() or c > 127 else 32 for c in range(256))  # other bytes become spaces
_FIRST_WORDS: dict[bytes, list[str]] = {}
for _word, _uses in CUES.items():
    if _uses[0].language.spaces:
        _FIRST_WORDS.setdefault(_word.encode().translate(_LETTERS).split()[0], []).append(_word)
_FIRST = frozenset(_FIRST_WORDS)
_JOINED = [word for word, uses in CUES.items() if not uses[0].language.spaces]


def cues_in(low: str) -> list[str]:
    """The cues that a text in lower case uses. Its words are looked up at once, which is faster than a search each."""
    words = _FIRST.intersection(low.encode("utf-8", "replace").translate(_LETTERS).split())
    found = [cue for word in words for cue in _FIRST_WORDS[word] if cue in low]
    return found if low.isascii() else found + [cue for cue in _JOINED if cue in low]
