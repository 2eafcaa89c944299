"""Sentences that state an answer, by the table of languages: "the answer is B", "I choose B", "B is correct"."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from medvlt_lib.grading.option_texts import LETTER_FIRST, OptionTexts, read_piece
from medvlt_lib.grading.wordings import CUES, SPACE, TABLE, Language, any_of, cues_in

LAST = 8  # uses of one word that are looked at, from the end
HEAD = 120  # characters of a sentence before its word that are looked at
_LONE_LETTER = re.compile(r"(?:^|[\s(])[A-J](?=[\s)]|$)")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_ASIDE = re.compile(r"[,;:](?=\s)")
_SPACE = re.compile(SPACE)
_CORRECTION = re.compile(rf"(?:[\s,.:;!-]*no(?![a-z]))?[\s,.:;!-]*(?:{any_of(TABLE['it_is'])}\s+)?")
_ITEM = re.compile(r"(?<![\w'])[(\[]?([a-j])[)\].:][*_]*[ \t]*")
_ANNOUNCED = re.compile(  # a heading, or a line such as "Final answer:", leads to what follows
    r"\n[ \t>]*(?:#[^\n]*|\*\*[^\n]*\*\*|[^\n]*[^\n:]:[ \t*_]*)\n[\s>*_#-]*\Z"
)
_ITEM_START = re.compile(r"(?:^|\n)[ \t>*_#-]*(?:(?:options?|choice)\s+)?[*_]*$")


class Statement(NamedTuple):
    """Where a statement stands and where its content begins, what it names (see option_texts), the rule, its words."""

    at: int
    content: int
    name: str
    rule: str
    piece: str


class Text(NamedTuple):
    """A piece of a response, the same in lower case, where lists of options stand in it, and the cues that it uses."""

    text: str
    low: str
    lists: list[tuple[int, int]]
    cues: list[str]

    def listed(self, at: int) -> bool:
        before = bisect_right(self.lists, at, key=lambda span: span[0])  # they stand in order
        return before > 0 and at < self.lists[before - 1][1]


def in_sentences(text: Text, begin: int, end: int, options: OptionTexts, after_tag: bool) -> Iterator[Statement]:
    """The statements between two positions; `after_tag`: behind a tag or box fewer wordings count."""
    low = text.low
    for word in text.cues:
        for kind, later, language in CUES[word]:
            for at in _places(low, word, begin, end, language.spaces) if later or not after_tag else ():
                behind = at + len(word)
                if kind == "nouns":
                    ahead = low[behind : behind + HEAD]
                    for link in language.links:  # a quick look, since most uses of a word state nothing
                        if link in ahead:
                            yield from _after(text, at, language.link.match(low, behind, end), language, options)
                            break
                elif kind == "good":
                    if statement := _before(text, begin, at, word, language, options):
                        yield statement
                elif kind == "corrections":
                    yield from _corrected(text, at, _CORRECTION.match(low, behind, end), options)
                elif not language.subjects or language.subjects.search(low, max(begin, at - 16), at):
                    yield from _after(text, at, _SPACE.match(low, behind, end), language, options)


def _places(low: str, word: str, begin: int, end: int, spaces: bool) -> list[int]:
    """Where a word was last used, but not within another word, a tag or a key; the last one first."""
    places, at = [], low.rfind(word, begin, end)
    while at >= 0 and len(places) < LAST:
        if not (at and (low[at - 1] in '</"_' or (spaces and low[at - 1].isalpha()))):
            places.append(at)
        at = low.rfind(word, begin, at + len(word) - 1)
    return places


def _after(text: Text, at: int, link: re.Match | None, language: Language, options: OptionTexts) -> Iterator[Statement]:
    """What follows "the answer is" or "I choose", unless it is doubted, under a condition, asked, or a list."""
    if not link or text.listed(link.end()):
        return
    if link.lastindex and _LONE_LETTER.search(text.text, link.start(1), link.end(1)):
        return  # "option A is ..."
    if _refused(text.low, at, link.end(), language):
        return
    line = text.text[link.end() : link.end() + options.span].split("\n", 1)[0]
    name = options.whole(line)
    if name is None and "fillers" in link.re.groupindex and link["fillers"]:  # an option may begin with such a word
        name = options.whole(f"{link['fillers']}{line}")
    if name is None:
        own_line = "\n" in link.group() and not LETTER_FIRST.match(line)
        ended = _SENTENCE_END.search(line)
        asked = ended and ended.group() == "?"
        name = None if own_line or asked else read_piece(line, options)
    if name is not None and line.strip(" .*") != "a":  # the article, cut off
        yield Statement(at, link.end(), name, "sentence", line)


def _corrected(text: Text, at: int, link: re.Match | None, options: OptionTexts) -> Iterator[Statement]:
    """What follows "no wait, it's"."""
    if link:
        piece = text.text[link.end() : link.end() + options.span].split("\n", 1)[0]
        if name := read_piece(piece, options):
            yield Statement(at, link.end(), name, "sentence", piece)


def _before(text: Text, begin: int, at: int, word: str, language: Language, options: OptionTexts) -> Statement | None:
    """What stands before "is correct" or "is the answer", from the start of its clause."""
    low = text.low
    first = max(begin, at - 60)
    ahead = low[first:at]
    stops = [_be(low, be, language, first, at) for be in language.be if be in ahead]
    if not stops:  # most uses of such a word
        return None
    stop = min((stop for stop in stops if stop >= 0), default=-1)
    if stop < 0 or not language.good_end.match(low, at + len(word)):
        return None
    first = max(begin, stop - options.longest)
    starts = [max(first, low.rfind("\n", first, stop)), _sentence_start(low, stop, first)]
    starts += [concluded.end() for concluded in language.conclusion.finditer(low, starts[-1], stop)]
    clauses = [text.text[start:stop] for start in starts]  # the longest first: an option may be a sentence, too
    clause, name = next(((clause, name) for clause in clauses if (name := options.whole(clause))), ("", ""))
    if not name:
        return None
    return Statement(at, stop, name, "sentence", f"{clause.strip()}{text.text[stop : at + len(word)]}")


def _be(low: str, word: str, language: Language, first: int, at: int) -> int:
    """Where "is" stands that leads to a word of praise at `at`; -1 where it does not."""
    found = low.rfind(word, first, at)
    if found < 0 or (language.spaces and low[found - 1 : found].isalpha()):
        return -1
    filled = language.fillers.fullmatch(low, found + len(word), at)
    return found if filled else -1


def _sentence_start(low: str, at: int, first: int) -> int:
    ends = [low.rfind(end, first, at) for end in (". ", "\n", "; ", "! ", "? ", '."')]
    return max(first, 1 + max(ends))


def _refused(low: str, at: int, end: int, language: Language) -> bool:
    """Whether what is said up to `end`, with its word at `at`, is doubted in its clause or under a condition."""
    start = _sentence_start(low, at, max(0, at - HEAD))
    head = low[start:end]
    if language.would.within(head) and language.would_with.within(head):
        return True
    if not (language.doubt.within(head) or language.condition.within(head)):
        return False
    clause = max([start, *(found.end() for found in _ASIDE.finditer(low, start, at))])
    for concluded in language.conclusion.finditer(low, start, at):
        if concluded.end() >= clause:  # what stands before "so" does not matter
            start = clause = concluded.end()
    return language.doubt.within(low[clause:end]) or language.condition.within(low[start:end])


def without_lists(text: str, low: str, options: OptionTexts) -> Text:
    """A text in which listed options are blanks, with the places of the lists.

    A list is a run of lettered items from A on, each at the start of a line, or all options in their own words. It
    ends where a heading, or a line such as "Final answer:", leads to the next letter.
    """
    if not any(mark in low for mark in ("b)", "b.", "b:", "b]")) or not any(m in low for m in ("a)", "a.", "a:", "a]")):
        return Text(text, low, [], cues_in(low))
    runs: list[list[tuple[int, int, bool, bool]]] = [[]]
    for found in _ITEM.finditer(low):
        letter, own = found.group(1).upper(), options.lower.get(found.group(1).upper(), "")
        verbatim = bool(own) and low.startswith(own, found.end())
        at_start = bool(_ITEM_START.search(low, max(0, found.start() - 20), found.start()))
        if not (verbatim or at_start):
            continue
        announced = runs[-1] and _ANNOUNCED.search(low, runs[-1][-1][1], found.start())
        if ord(letter) - ord("A") != len(runs[-1]) or announced:
            runs.append([])
        if ord(letter) - ord("A") == len(runs[-1]):
            runs[-1].append((found.start(), found.end() + verbatim * len(own), verbatim, at_start))
    lists, blanks = [], list[tuple[int, int]]()
    for run in runs:
        if len(run) > 1 and (all(item[3] for item in run) or _adjacent(low, run, len(options.keys))):
            line_end = low.find("\n", run[-1][1])
            lists.append((run[0][0], run[-1][1] if not run[-1][3] else line_end if line_end >= 0 else len(low)))
            blanks += [item[:2] for item in run if item[2]]
    characters = list(text) if blanks else []
    for begin, end in blanks:
        characters[begin:end] = " " * (end - begin)
    text = "".join(characters) or text
    low = text.lower() if blanks else low
    return Text(text, low, lists, cues_in(low))


def _adjacent(low: str, run: list[tuple[int, int, bool, bool]], number: int) -> bool:
    """Whether a run is all options in their own words, with nothing but marks between them."""
    between = (low[a[1] : b[0]].strip(" ,;.\n*-|/") for a, b in pairwise(run))
    return len(run) == number and all(item[2] for item in run) and not any(between)
