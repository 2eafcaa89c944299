"""Sentences that state an answer: "the answer is B", "I choose B", "B is correct", or {"answer": "B"} within text."""

from __future__ import annotations

import re

from medvlt_lib.grading.option_texts import SPAN, OptionTexts, fold
from medvlt_lib.grading.short_answer import LETTERED, NEGATED, read_short_answer

Statement = tuple[int, str, str]  # position, letter or '', how it was stated

LAST = 8  # statements of each kind that are read, from the end
JSON_KEY = re.compile(
    r"\"(?:final[_ ]?|correct[_ ]?|predicted[_ ]?|selected[_ ]?)?(?:answer|option|choice|letter)"
    r"(?:[_ ](?:letter|choice|option))?\"\s*:\s*\"([^\"]{0,300})\"",
    re.IGNORECASE,
)
_CUES = ("answer", "option", "choice", "choose", "select", "pick", "go with", "correct", "ans:", "likely diagnosis")
_LATER_CUES = ("answer", "correct", "ans:")
_VERBS = frozenset(("choose", "select", "pick", "go with"))
_IS = re.compile(
    r"(?![a-z])([^.\n:=?!;]{0,60}?)(?:\bis\b|\bbe\b|[:=]|\s[-–—](?=\s))[\s\"'*_`:]*"
    r"(?:(?:is|therefore|thus|hence|indeed|clearly|definitely|most likely|simply)\b,?[\s\"'*_`:]*){0,2}"
)
_TAKE = re.compile(r"[\s:*\"']+")
_DOUBT = re.compile(
    r"\b(?:if|whether|unless|suppose|assuming|why|not|never|cannot|neither|none|nor|no|doubt|false|wrong|incorrect|"
    r"least|second|next|others?|another|"
    r"alternatives?|differential|reject\w*|exclud\w*|eliminat\w*|distract\w*|tempting|common|previous|"
    r"initial\w*|original\w*|earlier|closest|"
    r"possibl\w*|maybe|perhaps|probably|could|might|may|many|some|someone|students?|people|often|when|had|were|"
    r"in that case|instead of)\b|n't\b"
)  # in lower case
_CONDITION = re.compile(r"\b(?:with|without|in)\b")
_LONE_LETTER = re.compile(r"(?:^|[\s(])[A-J](?=[\s)]|$)")
_IS_CORRECT = re.compile(
    r"(?:^|[.;:!?\n]\s*|\b(?:so|thus|hence|therefore|that),?\s+)[\s*\"'(\[]*(?:the\s+)?"
    r"(?:options?\s+|choice\s+|answer\s+)?[(\[*\"']*([A-J])[)\]*\"']*[.:]?"
    r"\s+is\s+(?:(?:the|my|only|most|clearly|likely|single|best|final|right)\s+)*$",
    re.IGNORECASE,
)
_ENDS = re.compile(
    r"(?:\s+(?:answer|option|choice|one))?[*\"']*\s*(?:[.!,;)]|$|\n|because\b|since\b|as\b)", re.IGNORECASE
)


def stated_in_sentences(
    text: str, options: dict[str, str], texts: OptionTexts, after_tag: bool = False
) -> list[Statement]:
    """Every statement in a piece of text; its letter is '' for one that names no one option.

    `after_tag`: the text follows a tag or box, and fewer wordings count.
    """
    found, low = [], text.lower()
    if len(low) != len(text):
        return found
    if '":' in text or '" :' in text:
        skipped = max(0, len(text) - 10 * SPAN)
        for field in JSON_KEY.finditer(text, skipped):
            found.append((field.start(), read_short_answer(field.group(1), options, texts, strict=False) or "", "json"))
    for cue in _LATER_CUES if after_tag else _CUES:
        at, left = low.rfind(cue), LAST
        while at >= 0 and left:
            if not (at and low[at - 1] in '</"_'):  # else a tag or a key, read elsewhere
                left -= 1
                letter = _correct(text, cue, at, options, texts) or _sentence(text, cue, at, options, texts)
                if letter is not None:
                    found.append((at, letter, "sentence"))
            at = low.rfind(cue, 0, at)
    return found


def _before(text: str, at: int) -> str:
    """The part of the sentence that stands before a position."""
    before = text[max(0, at - 100) : at]
    return before[1 + max(before.rfind(end) for end in (". ", "\n", "; ", "! ", "? ")) :]


def _correct(text: str, cue: str, at: int, options: dict[str, str], texts: OptionTexts) -> str | None:
    """The letter of "B is correct" and "B is the (final) answer", said without condition or denial."""
    if cue not in ("correct", "answer") or " is " not in text[max(0, at - 30) : at]:
        return None
    before = text[max(0, at - 60) : at].removesuffix("correct ")
    named = _IS_CORRECT.search(before)
    if not named or not named.group(1).isupper() or not _ENDS.match(text[at + len(cue) : at + len(cue) + 40]):
        return None
    letter = named.group(1)
    if (
        letter not in options
        or texts.get(fold(letter), letter) != letter
        or _DOUBT.search(before[named.start() : named.start(1)].lower())
    ):
        return None
    return letter


def _sentence(text: str, cue: str, at: int, options: dict[str, str], texts: OptionTexts) -> str | None:
    """The letter of "the answer is B" or "I choose B"; '' when it names two, none of them, or takes one back."""
    if cue == "correct":
        return None
    after = text[at + len(cue) : at + len(cue) + SPAN]
    if cue in _VERBS:
        said = _TAKE.match(after)
        if not said or not text[max(0, at - 12) : at].endswith(("I ", "I would ", "I will ", "I'd ", "I'll ")):
            return None
    else:
        said = _TAKE.match(after) if cue == "ans:" else _IS.match(after)
        if not said or _LONE_LETTER.search(said.group(1) if said.re is _IS else ""):
            return None
    head = (_before(text, at) + said.group()).lower()
    if _DOUBT.search(head) or ("would" in head and _CONDITION.search(head)):
        return None
    content = after[said.end() :]
    first = content.split("\n", 1)[0]
    if "?" in first[:80] or first.strip(" .*") == "a":
        return None
    letter = read_short_answer(first, options, texts, strict=True)
    if "\n" in said.group():  # the answer on a line of its own: no list may follow, and the whole line must be it
        return None if LETTERED.match(content[len(first) :].lstrip()) else letter
    return _clause(first, options, texts) if letter is None else letter


def _clause(content: str, options: dict[str, str], texts: OptionTexts) -> str | None:
    """The letter that a sentence's content up to its first full stop, comma or dash states.

    '' when another letter follows the comma.
    """
    cut = re.search(r"[,;]\s|\.\s+(?![a-z])|\s[—–-]\s|[}\]\"]|</|\s(?:or|and|as well as)\s", content)
    if not cut:
        return None
    letter = read_short_answer(content[: cut.start()], options, texts, strict=True)
    if letter and not cut.group().startswith("."):
        rest = NEGATED.sub(" ", content[cut.start() :].split(". ", 1)[0])
        if (texts.named_in(rest) | set(_LONE_LETTER_NAMES.findall(rest))) - {letter}:
            return ""
    return letter


_LONE_LETTER_NAMES = re.compile(r"(?:or|and|,|;)\s*[(\[*\"']*([A-J])(?![\w'])")
