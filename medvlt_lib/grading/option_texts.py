"""What a piece of text names: an option's letter, its text, or both, whatever the case, the marks and the markup.

Letters and texts are compared before any rule looks at words, so that an option which says "not" or "(D)" is an answer
like any other. A name is '' where a piece names no one option (two of them, or a letter beside another option's text),
"!B" where it says that B is not the answer, and None where it states nothing.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import islice

from rapidfuzz.fuzz import ratio, token_set_ratio

from medvlt_lib.grading.wordings import TABLE, any_of

SPAN = 300  # characters of a statement that are read, or more where an option is longer
ENDS = 8  # ends of clauses that are tried
LIKE = 85  # of 100: how like an option a misspelt text beside its letter is
_ODD = re.compile(r"[^\x00-\x7f]+")
_MARKUP = re.compile(r"</?(?:b|i|u|em|strong|p|br|span|sub|sup|answer|final_answer)\s*/?>|<\|[^|>]{1,20}\|>", re.I)
_LATEX = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|boxed|rm|bf)\s*\{([^{}]{0,300})\}|\\[(),\[\]]|\$")
_PUNCTUATION = str.maketrans(dict.fromkeys("()[]{},;:!?\"'`*_~#|$\\/", " "))
_LOOSE = re.compile(r"\.(?!\d)|(?<=\w)-|-(?!\d)")  # full stops and hyphens that belong to no number
_LEADS = re.compile(rf"(?:{any_of(TABLE['leads'])}\s+|{any_of(TABLE['leads_joined'], False)}\s*)+(?=\S)", re.I)
_TAILS = re.compile(any_of(TABLE["tails_joined"], False) + r"\W*$")
_WORDS = TABLE["joins"] + TABLE["clause_words"]
_CLAUSE_END = re.compile(
    rf"[,;:!?](?!\d)|\.(?=\s+(?:(?-i:[^a-z\s])|{any_of(TABLE['sentence_words'])})|\s*$|[^\x00-\x7f])|(?<=[\s)])(?:-\s|[(\[])"
    rf"|[\n\"}}\]]|</|\s{any_of(_WORDS)}|{any_of([w for w in _WORDS if ord(w[0]) > 0x2000], False)}",
    re.I,
)
_JOIN = re.compile(
    rf"[\s).\"'*]*(?:[,;:/&+]\s*)?(?:{any_of(TABLE['joins'], False)}(?![a-z])|(?<=[,;:/&+])|(?<=[,;:/&+]\s))\s*"
    r"(?:maybe |perhaps |possibly )?",
    re.I,
)
LETTER_FIRST = re.compile(r"(?:[^\W\d_]+\s+){0,3}[(\[\"'*]*[A-J](?![\w'])|not\s", re.I)
_ITEM = re.compile(r"[\s,;]*[(\[]?([A-J])[).:\]]")
_LETTER = re.compile(r"[(\[\"'*]*([A-Za-z])(?![\w'])([)\].:\"'*]*)\s*")
_DENIAL = re.compile(rf"(?:,\s(?!not|no))?[\s.):;=?!\"'-]*{any_of(TABLE['denials'])}", re.I)
_NOT = re.compile(r"(?:it is |it's )?not\s+", re.I)
_BUT = re.compile(r"(?:\bbut|;)\s+(?:rather |instead )?(?:is |it is |it's )?", re.I)
_REASON = re.compile(rf"[\s,;-]*{any_of(TABLE['clause_words'] + TABLE['letter_words'])}", re.I)
_COUNTED = re.compile(r"([-+]?\d+(?:\.\d+)?)\s+[^\W\d]+(?:\s+[^\W\d]+){0,2}\.?")


class _Plain(dict):
    """From characters in another dress (full-width, circled, bold, invisible) to plain ones, found when asked for."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        dress = unicodedata.decomposition(character).partition(" ")[0]
        value: str | None = character
        if unicodedata.category(character) == "Cf" or code == 0xFE0F:
            value = None
        elif dress in ("<wide>", "<narrow>", "<font>", "<circle>", "<square>", "<noBreak>"):
            value = unicodedata.normalize("NFKC", character)
        self[code] = value
        return value


_ALIKE = {".": "。", ",": "、", "I": "İ", "-": "–−‑‐", "'": "’‘", '"': "“”「」『』《》", "[": "【", "]": "】"}
_PLAIN = _Plain({ord(character): as_ for as_, characters in _ALIKE.items() for character in characters})
_PLAIN[ord("—")] = " - "


def plain(text: str) -> str:
    """A text with plain letters and marks for full-width, circled and typographic ones."""
    return text if text.isascii() else _ODD.sub(lambda odd: odd.group().translate(_PLAIN), text)


def clean(text: str) -> str:
    """A text without HTML tags, LaTeX wrappers and the stars round it."""
    if "<" in text:
        text = _MARKUP.sub(" ", text)
    if "\\" in text or "$" in text:
        text = _LATEX.sub(lambda found: found.group(1) or " ", text)
    return text.strip(" \t\r\n*_`")


def fold(text: str) -> str:
    """A text for comparison: without case and punctuation, but with the signs and points of numbers."""
    return " ".join(_LOOSE.sub(" ", text.translate(_PUNCTUATION)).casefold().split())


class OptionTexts:
    """The ways of writing each option of one question."""

    def __init__(self, options: tuple[tuple[str, str], ...]) -> None:
        texts = {letter: plain(text).strip() for letter, text in options}
        self.lower = {letter: text.lower() for letter, text in texts.items()}
        self.keys = {letter: fold(text) for letter, text in texts.items()}
        self.exact: dict[str, str] = {}
        self.folded: dict[str, str] = {}
        for letter, text in texts.items():
            key, small = self.keys[letter], letter.lower()
            self._put(self.exact, letter, small, text.lower(), f"{letter}. {text}".lower())
            bare = _LEADS.sub("", key, count=1)
            bare = bare if len(bare) > 1 else key  # else "A, B" would be the letter B after an article
            self._put(self.folded, letter, small, key, f"{small} {key}", f"{key} {small}", bare)
        self.longest = max(map(len, texts.values()), default=0) + 24  # nothing longer is an option
        self.span = max(SPAN, self.longest)
        self.closed = all(text.lower() in TABLE["closed_words"] for text in texts.values())

    @staticmethod
    def _put(table: dict[str, str], letter: str, *forms: str) -> None:
        for form in filter(None, forms):
            table[form] = letter if table.get(form, letter) == letter else ""

    def whole(self, piece: str) -> str | None:
        """The letter that a whole piece names; '' for two, or for a letter beside another option's text."""
        if len(piece) > self.longest:
            return None
        found = self.exact.get(piece.strip().lower())
        if found is None and (key := fold(piece)):
            found = self.folded.get(key)
            return self._without_leads(key, piece) if found is None else found
        return found

    def _without_leads(self, key: str, piece: str) -> str | None:
        """The letter of a key after "the option" and the like; '' where a letter stands beside another's text."""
        first, _, rest = key.partition(" ")
        before, _, last = key.rpartition(" ")
        article = first == "a" and (piece.lstrip(" *\"'").startswith("a ") or _LEADS.match(rest))
        for letter, text in ((first, rest), (last, before)):
            if letter.upper() in self.keys and text in self.keys.values() and not article:
                return ""
        if len(key) == 1 and key.isalpha():
            return ""  # a letter that is no option
        bare = _LEADS.sub("", _TAILS.sub("", key).strip(), count=1)
        return self.folded.get(bare) if bare != key and (first != "a" or article) else None

    def lead(self, text: str) -> tuple[str, int] | None:
        """(letter or '', end) of the option that a text begins with, up to the end of a clause; the longest counts."""
        ends = [found.start() for found in islice(_CLAUSE_END.finditer(text, 1, self.longest), ENDS)]
        for end in (len(text), *reversed(ends)):
            if (letter := self.whole(text[:end])) is not None:
                return letter, end
        return None

    def like(self, letter: str, text: str) -> bool | None:
        """Whether a text beside a letter is its option's, misspelt; False: it is another's; None: neither."""
        key = fold(text[: self.longest])
        other = max((ratio(key, text) for of, text in self.keys.items() if of != letter), default=0)
        if other >= LIKE and other > ratio(key, self.keys[letter]):
            return False
        score = {of: token_set_ratio(key, text) for of, text in self.keys.items()}
        own = score.pop(letter)
        return True if own >= LIKE and own > max(score.values(), default=0) else None


option_texts = lru_cache(maxsize=1 << 16)(OptionTexts)


def read_piece(piece: str, options: OptionTexts, loose: bool = False) -> str | None:
    """The name that a short piece begins with; `loose`: in a tag or box, where "2 nodules" is the option 2."""
    if (found := options.whole(piece)) is not None:
        return found
    piece = clean(piece)
    if said_not := _NOT.match(piece):
        if (found := options.lead(piece)) is not None:
            return found[0]
        but = _BUT.search(piece, said_not.end(), options.span)
        name = read_piece(piece[but.end() if but else said_not.end() :], options)
        return name if but else f"!{name}" if name else None
    if found := options.lead(piece):
        return _and_no_other(*found, piece, options)
    name = _letter_with_words(piece, options)
    if name is None and loose and (counted := _COUNTED.fullmatch(piece)):
        return options.folded.get(counted.group(1))
    return name


def _and_no_other(letter: str, end: int, piece: str, options: OptionTexts) -> str:
    """The option at the start of a piece, unless a second one or a denial stands right behind it."""
    rest = piece[end : end + options.longest]
    if not letter:
        return ""
    said = 0  # where a letter's own text ends
    for own in (options.keys[letter], options.lower[letter]):
        begins = rest.lower().find(own, 0, len(options.lower[letter]) + 4) if own else -1
        said = begins + len(own) if begins >= 0 else said
    item = _ITEM.match(rest) or _ITEM.match(rest, said)
    if item and item.group(1) != letter and item.group(1) in options.keys:
        return ""
    for at in {0, said}:
        denied = _DENIAL.match(rest, at)
        if denied and not ((second := options.lead(rest[denied.end() :].lstrip())) and second[0] != letter):
            return f"!{letter}"  # "B is wrong", but not "B, not A"
    if (joined := _JOIN.match(rest)) and _second(rest[joined.end() :], letter, options):
        return ""
    if rest[:1] in (".", ":") and len(fold(piece[:end])) == 1 and options.like(letter, rest) is False:
        return ""
    return letter


def _second(rest: str, letter: str, options: OptionTexts) -> bool:
    """Whether what is joined to an option is another one."""
    if found := options.lead(rest):
        return found[0] != letter
    also = _LETTER.match(rest)
    return bool(
        also and also.group(1) != letter and also.group(1) in options.keys and not _DENIAL.match(rest, also.end())
    )


def _letter_with_words(piece: str, options: OptionTexts) -> str | None:
    """A letter with other words behind it: a denial, its option's text misspelt, a reason, a sentence."""
    lead = _LEADS.match(piece)
    found = _LETTER.match(piece, lead.end() if lead else 0)
    letter = found.group(1).upper() if found else ""
    if not found or letter not in options.keys:
        return None
    marks, rest, capital = found.group(2), piece[found.end() :], found.group(1).isupper()
    marked = any(mark in marks for mark in ").:]")
    own = options.lower[letter]
    said = len(own) if rest.lower().startswith(own) else 0
    if (marked or capital) and (_DENIAL.match(rest) or _DENIAL.match(rest, said)):
        return f"!{letter}"
    if not marked:
        return letter if capital and _REASON.match(rest) else None
    if any(item in options.keys and item != letter for item in _ITEM.findall(rest[: options.span])):
        return ""
    like = options.like(letter, rest)
    if like is False or ((second := options.lead(rest)) and second[0] not in ("", letter)):
        return ""
    sentence = marks.strip("*\"'") != "." or not rest[:1].islower()
    return letter if like or sentence or _REASON.match(rest) else None
