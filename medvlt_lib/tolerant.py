"""The tolerant reading of an answer: every common way of stating one, and never a guess.

Read are the answer tag, \\boxed{}, JSON, sentences such as "the correct option is B" and lines that are nothing but an
answer. The last statement wins, and disagreement with an earlier one is flagged. Thinking does not count. Where nothing
is stated, or two letters at once, there is no answer: no default letter, no nearest match, no letter from mere prose.
Every step looks at a bounded piece of text, so that long responses take time in proportion to their length.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

LAST = 8  # statements of each kind that are read, from the end
SPAN = 300  # characters of a statement that are read

_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_WIDE = {i: chr(i - 0xFEE0) for i in range(0xFF01, 0xFF5F)} | {0x3000: " "}  # full-width forms of ASCII
_LATEX = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|boxed|rm|bf)\s*\{([^{}]{0,300})\}")
_TRIM = " \t\r\n*_`~#|$\"'“”‘’«»<>()[]{}.,;:!?"
_LOOSE = re.compile(r"(?<!\d)[^\w\s%<>=+](?!\d)|[\"'“”‘’`*$]")
_LEAD = re.compile(
    r"(?:(?:the |my )?(?:final |correct |best )?(?:options?|choice|answer|letter)(?: is)?[\s:(\[\"'*]{1,4})?([A-Za-z])"
    r"(?:([)\].:*\"'}]+|\s?[-–—=,/&+]\s?)|(?=\s)|$)",
    re.IGNORECASE,
)
_ALSO = re.compile(r"\s*(?:and|or|and/or|/|,|&|\+|vs\.?|versus)\s*(?:option |choice )?[(\[*\"']*[A-J](?![\w'])")
_LETTERED = re.compile(r"(?:^|[\s(,;])([A-J])[).:](?=\s|$|\w)")
_REASON = re.compile(r"(?:because|since|as|due|for|which|that|this|given|based|with|who|where|when)\b|[(\[—–;-]", re.IGNORECASE)
_NEGATED = re.compile(
    r"\b(?:not|neither|nor|rather than|instead of)\s+(?:options? |choice )?[(\[*\"']*[A-J](?![\w'])[)\]*\"']*", re.IGNORECASE
)
_NOT_BUT = re.compile(r"^(?:it is |it's )?not\s.{1,200}?\bbut\s+(?:rather |instead )?(?:is |it is )?")
_CUES = ("answer", "option", "choice", "diagnosis", "choose", "select", "pick", "correct")
_VERBS = ("choose", "select", "pick")
_IS = re.compile(
    r"([^.\n:=?]{0,60}?)(?:\bis\b|\bwas\b|\bare\b|\bbe\b|[:=])[\s\"'*_`:>]*"
    r"(?:(?:is|therefore|thus|hence|indeed|clearly|definitely|most likely|likely|probably|simply|just)\b,?[\s\"'*_`:]*){0,2}"
)
_TAKE = re.compile(r"(?:ing|ed|s)?[\s:]+")
_GAP = re.compile(r"(?:^|[\s(])[A-J](?=[\s)]|$)|\b(?:not|never|cannot|n't|isn)\b|n't\b")
_DOUBT = re.compile(r"\b(?:if|whether|unless|suppose|had|why|not|were)\b[^.;:\n]*$", re.IGNORECASE)
_IS_CORRECT = re.compile(
    r"(?:^|[\s(\[*\"'])(?:options?\s+|choice\s+|answer\s+)?[(\[*\"']*([A-J])[)\]*\"']*[.:]?\s+"
    r"(?:is|was|seems|must be|would be|appears to be|remains)\s+(?:the\s+)?(?:only\s+|most\s+|clearly\s+|likely\s+|single\s+)*$"
)


def outside_thinking(response: str) -> str:
    """The response without its think blocks. What follows an unclosed block, or stands before a lone closing tag, is thinking."""
    parts, start, thinking = [], 0, False
    for tag in _THINK.finditer(response):
        if tag.group(1):
            if not thinking:
                parts.clear()
            start, thinking = tag.end(), False
        elif not thinking:
            parts.append(response[start : tag.start()])
            thinking = True
    if not thinking:
        parts.append(response[start:])
    return "\n".join(parts) if len(parts) > 1 else (parts[0] if parts else "")


def fold(text: str) -> str:
    """Text for comparison: without case, leading article and punctuation (but signs and points beside digits count)."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text[:SPAN])
    text = " ".join(_LOOSE.sub(" ", text.strip(_TRIM).casefold()).split())
    for article in ("the ", "a ", "an "):
        text = text.removeprefix(article)
    return text.strip(_TRIM)


class _Texts(dict):
    """Folded option texts to their letters, None where two options read alike; `of` is the way back."""

    def __init__(self, options: tuple[tuple[str, str], ...]) -> None:
        self.of = {letter: fold(text) for letter, text in options}
        self.longest = max((len(text) for _, text in options), default=0) + 16  # nothing longer folds to an option
        for letter, key in self.of.items():
            self[key] = None if key in self or not key else letter
        self.starts = tuple({key[:1] for key in self} | {"the ", "a ", "an ", "-", "+", "<", ">", "%", "="})

    def may_hold(self, low: str) -> bool:
        """A quick look before folding: the length and the first letter fit an option."""
        return len(low) <= self.longest and (low.startswith(self.starts) or not low.isascii())


_texts = lru_cache(maxsize=1 << 16)(_Texts)


def tolerant_answer(response: str, options: dict[str, str], finish_reason: str | None = None) -> tuple[str | None, str]:
    """(letter or None, how it was stated). `how` ends in ", contradicted" when an earlier statement named another letter.

    `options` maps letters to texts; a response that ran into its length limit has no answer in a tag that it left open.
    """
    text = outside_thinking(response if response.isascii() else response.translate(_WIDE))
    low = text.lower()
    if len(low) != len(text):  # some letters grow in lower case; positions must agree
        low = text
    texts = _texts(tuple(options.items()))
    found = [*_tags(text, low, options, texts, finish_reason), *_boxes(text, options, texts), *_sentences(text, low, options, texts)]
    if not found:
        letter = _lines(text, options, texts)
        return letter, "line" if letter else "no answer"
    found.sort()
    _, last, how = found[-1]
    if not last:
        return None, "no answer"
    contradicted = any(letter and letter != last for _, letter, _ in found)
    return last, how + (", contradicted" if contradicted else "")


def _tags(text, low, options, texts, finish_reason) -> list[tuple[int, str, str]]:
    """Statements (position, letter or '', how) in answer tags; a tag that states no option says '' and stands."""
    found, end = [], len(low)
    for _ in range(LAST):
        start = low.rfind("<answer>", 0, end)
        if start < 0:
            break
        close = low.find("</answer>", start + 8, end)
        content = text[start + 8 : close if close >= 0 else end]
        if close >= 0 or finish_reason != "length":
            found.append((start, _state(content, options, texts), "tag"))
        end = start
    return found


def _boxes(text, options, texts) -> list[tuple[int, str, str]]:
    found, end = [], len(text)
    for _ in range(LAST):
        start = text.rfind("\\boxed{", 0, end)
        if start < 0:
            break
        content, depth = text[start + 7 : start + 7 + SPAN], 1
        for i, character in enumerate(content):
            depth += (character == "{") - (character == "}")
            if depth == 0:
                found.append((start, _state(content[:i], options, texts), "boxed"))
                break
        end = start
    return found


def _state(content: str, options, texts) -> str:
    """The letter that the content of a tag or box states, also in a sentence inside it; '' for none."""
    content = content.strip()
    if len(content) > 10 * SPAN:
        return ""
    letter = _read(content[:SPAN], options, texts, strict=False)
    if letter is not None:
        return letter
    first = content.split("\n", 1)[0]
    if first != content and (letter := _read(first[:SPAN], options, texts, strict=True)):
        others = {x for line in content.split("\n")[1:LAST] if (x := _read(line[:SPAN], options, texts, strict=True))}
        return letter if others <= {letter} else ""
    said = sorted(_sentences(content, content.lower(), options, texts))
    return said[-1][1] if said else ""


def _sentences(text, low, options, texts) -> list[tuple[int, str, str]]:
    """Statements such as "the answer is B", "I choose B", "B is correct" and {"answer": "B"}."""
    found = []
    if len(low) != len(text):
        return found
    for cue in _CUES:
        at, left = low.rfind(cue), LAST
        while at >= 0 and left:
            if at and low[at - 1] in "</":  # a tag, read elsewhere
                at = low.rfind(cue, 0, at)
                continue
            left -= 1
            if letter := _sentence(text, cue, at, options, texts):
                json = text[at - 1 : at] in '"_' and at > 0 and '"' in text[at + len(cue) : at + len(cue) + 12]
                found.append((at, letter, "json" if json else "sentence"))
            at = low.rfind(cue, 0, at)
    return found


def _sentence(text: str, cue: str, at: int, options, texts) -> str | None:
    before = text[max(0, at - 60) : at]
    if cue == "correct" or before.endswith(("the ", "correct ", "right ", "best ")):
        named = _IS_CORRECT.search(before.removesuffix("correct ").removesuffix("right ").removesuffix("best "))
        if named:
            return None if named.group(1) not in options or _DOUBT.search(before[: named.start(1)]) else named.group(1)
    if cue == "correct":
        return None
    after = text[at + len(cue) : at + len(cue) + SPAN]
    said = (_TAKE if cue in _VERBS else _IS).match(after)
    if not said or (cue not in _VERBS and _GAP.search(said.group(1))) or _DOUBT.search(before):
        return None
    content = after[said.end() :].split("\n", 1)[0]
    if "?" in content[:80] or content.strip(" .*") == "a":
        return None
    letter = _read(content, options, texts, strict=True)
    return _read(_clause(content), options, texts, strict=True) if letter is None else letter


def _clause(content: str) -> str:
    """A sentence's content up to its first full stop, comma or bracket that is followed by a blank."""
    cut = re.search(r"[.,;]\s|\s[(—–-]|[}\]\"]|</", content)
    return content[: cut.start()] if cut else content


def _lines(text: str, options, texts) -> str | None:
    """The one letter that lines which are nothing but an answer name; None when they name several."""
    lines = [line for line in text[: 10 * SPAN].split("\n") if line.strip()]
    if len(text) > 10 * SPAN or len(lines) > 6:
        lines = lines[:3] + [line for line in text[-10 * SPAN :].split("\n") if line.strip()][-3:]
    letters = {letter for line in lines if (letter := _read(line[:SPAN], options, texts, strict=True))}
    return letters.pop() if len(letters) == 1 else None


def _read(content: str, options, texts, strict: bool) -> str | None:
    """The letter that a short piece of text states. None: it states nothing; '': something that is no option of its own.

    `strict`: what follows the letter must be its option's text or a reason, not any words.
    """
    if "\\" in content or "$" in content:
        content = _LATEX.sub(r"\1", content).replace("\\(", "").replace("\\)", "").replace("$", "")
    bare = content.strip(_TRIM)
    if len(bare) == 1 and bare.isalpha():
        letter = bare.upper()
        return "" if letter not in options or texts.get(fold(bare), letter) != letter else letter
    low = bare.lower()
    if texts.may_hold(low) and (key := fold(bare)) in texts:
        return texts[key] or ""
    if "not " in low or "neither " in low or "instead of " in low or "rather than " in low:
        rest = _NOT_BUT.sub("", bare)
        rest = _NEGATED.sub(" ", rest if rest != bare else bare).strip(_TRIM)
        rest = re.sub(r"^(?:but|rather|instead|it is|it's)\s+", "", rest, flags=re.IGNORECASE)
        return _read(rest, options, texts, strict=True) if rest != bare and rest else None
    lead = _LEAD.match(bare)
    if not lead:
        return None
    letter, mark, rest = lead.group(1).upper(), (lead.group(2) or "").strip(), bare[lead.end() :]
    return _follow(letter, mark, rest, bare[lead.start(1)].isupper(), options, texts, strict)


def _follow(letter: str, mark: str, rest: str, capital: bool, options, texts, strict: bool) -> str | None:
    """Judge a leading letter by what comes after it: its own option's text, a reason, another letter, other words."""
    if not rest.strip(_TRIM):
        return letter if letter in options and (capital or mark) else None
    joined = mark + rest
    if _ALSO.match(joined) or any(x != letter for x in _LETTERED.findall(rest)):
        return "" if capital else None
    own = texts.of.get(letter, "")
    if len(rest) <= texts.longest and texts.get(fold(rest), letter) != letter:
        return ""  # letter and text disagree
    if own and (fold(rest[: texts.longest]) + " ").startswith(own + " "):
        return letter
    if letter not in options or mark in ("-", "–", "—", "=", "/", "&", "+"):
        return None
    reason = capital and (letter not in "AI" or mark) and _REASON.match(rest.lstrip())
    if reason:
        return letter
    return letter if mark and mark != "," and not strict else None
