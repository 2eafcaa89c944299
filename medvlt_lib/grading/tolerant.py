"""The tolerant reading of an answer: every common way of stating one, and never a guess.

Read are the answer tag, \\boxed{}, JSON, sentences such as "the correct option is B" and lines that are nothing but an
answer. The last statement wins, and disagreement with an earlier one is flagged. Thinking does not count. Where nothing
is stated, or two options at once, or only under a condition, there is no answer: no default letter, no nearest match, no
letter from mere prose. A plain answer in an unusual wording may be missed; that is the price.
Every step looks at a bounded piece of text, so that long responses take time in proportion to their length.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache

LAST = 8  # statements of each kind that are read, from the end
SPAN = 300  # characters of a statement that are read

_THINK = re.compile(r"[<\[◁](/?)(?:think(?:ing)?|thoughts?|reasoning)\s*[>\]▷]", re.IGNORECASE)
_WIDE = {i: chr(i - 0xFEE0) for i in range(0xFF01, 0xFF5F)}  # full-width forms of ASCII
_WIDE |= {0x3000: " ", 0x3002: ".", 0x3001: ",", 0x200B: None, 0x200C: None, 0x200D: None, 0xFE0F: None, 0xFEFF: None}
_WIDE |= {
    base + i: chr(65 + i) for base in (0x1D400, 0x1D5D4, 0x24B6) for i in range(26)
}  # bold, sans bold, circled capitals
_MARKUP = re.compile(r"</?(?:b|i|u|em|strong|p|br|span|answer|final_answer)\s*/?>|<\|[^|>]{1,20}\|>", re.IGNORECASE)
_LATEX = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|boxed|rm|bf)\s*\{([^{}]{0,300})\}")
_TRIM = " \t\r\n*_`~#|$\"'“”‘’«»()[]{},;:!?"
_LOOSE = re.compile(r"(?<!\d)[^\w\s%<>=+.±-](?!\d)|(?<![\d\s])[-.](?!\d)|[\"'“”‘’`*$]")
_LEAD = re.compile(
    r"(?:(?:the |my )?(?:final |correct |best )?(?:option|choice|answer|letter)(?: is)?[\s:(\[\"'*]{1,4})?([A-Za-z])"
    r"(?:([)\].:*\"'}]+|\s?[-–—=,/&+]\s?)|(?=\s)|$)",
    re.IGNORECASE,
)
_ALSO = re.compile(
    r"[\s)\].*\"']*(?:(?:and|or|and/or|vs\.?|versus|as well as)\s|[,;/&+])\s*(?:or |and )?(?:option |choice )?[(\[*\"']*[A-J](?![\w'])"
)
_LETTERED = re.compile(r"(?:^|[\s(,;])([A-J])[).:](?=\s|$|\w)")
_REASON = re.compile(r"(?:because|since|as|due|based|given)\b", re.IGNORECASE)
_MORE_REASON = re.compile(r"(?:which|for|that|this|with|where|when)\b|[—–;-]\s", re.IGNORECASE)
_NEGATED = re.compile(
    r"(?:,?\s*(?:and|but)\s+)?\b(?:not|rather than|instead of)\s+(?:options? |choice )?[(\[*\"']*[A-J](?![\w'])[)\]*\"']*",
    re.IGNORECASE,
)
_NOT_BUT = re.compile(
    r"^(?:it is |it's )?not\s.{1,200}?(?:\bbut|;)\s+(?:rather |instead )?(?:is |it is |it's )?", re.IGNORECASE
)
_TEXT_THEN_LETTER = re.compile(r"^(.{1,200}?)\s*[(\[]([A-J])[)\]]$")
_STARTS = (
    "the ",
    "my ",
    "final",
    "correct",
    "best",
    "option",
    "choice",
    "answer",
    "letter",
    "not ",
    "it ",
    "yes",
    "no",
    "maybe",
    "true",
    "false",
)
_LINE_HEADS = (*_STARTS, "so", "thus", "hence", "therefore")
_PLAIN_WORDS = frozenset(("yes", "no", "maybe", "true", "false"))
_FIRST_WORD = re.compile(r"(yes|no|maybe|true|false)\s*[,.;:!—–-]", re.IGNORECASE)
_JSON_KEY = re.compile(
    r"\"(?:final[_ ]?|correct[_ ]?|predicted[_ ]?|selected[_ ]?)?(?:answer|option|choice|letter)(?:[_ ](?:letter|choice|option))?\"\s*:\s*\"([^\"]{0,300})\"",
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
    r"\b(?:if|whether|unless|suppose|assuming|why|not|never|cannot|neither|none|nor|no|doubt|false|wrong|incorrect|least|second|next|others?|another|"
    r"alternatives?|differential|reject\w*|exclud\w*|eliminat\w*|distract\w*|tempting|common|previous|initial\w*|original\w*|earlier|closest|"
    r"possibl\w*|maybe|perhaps|probably|could|might|may|many|some|someone|students?|people|often|when|had|were|in that case|instead of)\b|n't\b"
)  # in lower case
_CONDITION = re.compile(r"\b(?:with|without|in)\b")
_LONE_LETTER = re.compile(r"(?:^|[\s(])[A-J](?=[\s)]|$)")
_IS_CORRECT = re.compile(
    r"(?:^|[.;:!?\n]\s*|\b(?:so|thus|hence|therefore|that),?\s+)[\s*\"'(\[]*(?:the\s+)?(?:options?\s+|choice\s+|answer\s+)?[(\[*\"']*([A-J])[)\]*\"']*[.:]?"
    r"\s+is\s+(?:(?:the|my|only|most|clearly|likely|single|best|final|right)\s+)*$",
    re.IGNORECASE,
)
_ENDS = re.compile(
    r"(?:\s+(?:answer|option|choice|one))?[*\"']*\s*(?:[.!,;)]|$|\n|because\b|since\b|as\b)", re.IGNORECASE
)
_CLAUSE_END = re.compile(r"[,;.(]\s|\s(?:because|since|as|due|with)\b")
_LINE_START = re.compile(
    r"^(?:[-•–→➡👉✅✔>]+\s*)?(?:(?:therefore|thus|so|hence)[,:]?\s+)?(?:it is |it's )?", re.IGNORECASE
)


def outside_thinking(response: str) -> str:
    """The response without its think blocks. What follows an unclosed block, or stands before a lone closing tag, is thinking."""
    if response.startswith("<think>"):  # the usual form, quickly
        response = response[max(0, response.find("</think>")) :].removeprefix("</think>")
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
    return "\n".join(parts)


def fold(text: str) -> str:
    """Text for comparison: without case, leading article and punctuation; signs, points and comparisons of numbers count."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text[:SPAN])
    text = " ".join(_LOOSE.sub(" ", text.strip(_TRIM).casefold()).split())
    if text.startswith(("the ", "a ", "an ")):
        text = text.split(" ", 1)[1]
    return text.strip(_TRIM).rstrip(".")


class _Texts(dict):
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
    if "{" in text and (whole := _json(text)) is not None:
        letter = _read(whole, options, texts, strict=False) or None
        return letter, "json" if letter else "no answer"
    found, outside = _tags(text, low, options, texts, finish_reason)
    if "\\boxed{" in text:
        found += _boxes(text, options, texts)
    taken = max(found)[0] if found else -1  # after a tag or box, not every mention of an option takes it back
    for begin, end in outside:
        if end - begin > 3:
            found += [
                (begin + at, letter, how)
                for at, letter, how in _sentences(text[begin:end], options, texts, begin > taken >= 0)
            ]
    if not found:
        letter = _lines(text, options, texts)
        return letter, "line" if letter else "no answer"
    found.sort()
    _, last, how = found[-1]
    if not last:
        return None, "no answer"
    contradicted = any(letter and letter != last for _, letter, _ in found)
    return last, how + (", contradicted" if contradicted else "")


def _json(text: str) -> str | None:
    """The answer field of a response that is one JSON object, fenced or not ('' when it has none); None for other text."""
    bare = text.strip()
    if bare.startswith("```") and bare.endswith("```"):
        bare = bare.strip("`").removeprefix("json").strip()
    if not (bare.startswith("{") and bare.endswith("}")) or len(bare) > 100 * SPAN:
        return None
    try:
        value = json.loads(bare)
    except (ValueError, RecursionError):
        return None
    fields = {
        f'"{k}":"{v}"': v for k, v in value.items() if isinstance(v, str) and len(v) <= SPAN and '"' not in f"{k}{v}"
    }
    said = [v for field, v in fields.items() if _JSON_KEY.fullmatch(field)]
    return said[-1] if said else ""


def _tags(text, low, options, texts, finish_reason) -> tuple[list[tuple[int, str, str]], list[tuple[int, int]]]:
    """Statements (position, letter or '', how) in answer tags, and the spans of text before, between and after them.

    A tag that states no option says '' and stands.
    """
    found, outside, end = [], [], len(low)
    for _ in range(LAST):
        start = low.rfind("<answer>", 0, end)
        if start < 0:
            break
        close = low.find("</answer>", start + 8, end)
        content = text[start + 8 : close if close >= 0 else end]
        whole = close >= 0 or finish_reason != "length"
        found.append((start, _state(content, options, texts) if whole else "", "tag"))
        outside.append((close + 9 if close >= 0 else end, end))
        end = start
    return found, [(0, end), *reversed(outside)]


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
    said = sorted(_sentences(content, options, texts))
    return said[-1][1] if said else ""


def _sentences(text: str, options, texts, after_tag: bool = False) -> list[tuple[int, str, str]]:
    """Statements such as "the answer is B", "I choose B", "B is correct" and {"answer": "B"}; '' for one that names no one option."""
    found, low = [], text.lower()
    if len(low) != len(text):
        return found
    if '":' in text or '" :' in text:
        skipped = max(0, len(text) - 10 * SPAN)
        for field in _JSON_KEY.finditer(text, skipped):
            found.append((field.start(), _read(field.group(1), options, texts, strict=False) or "", "json"))
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


def _correct(text: str, cue: str, at: int, options, texts) -> str | None:
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


def _sentence(text: str, cue: str, at: int, options, texts) -> str | None:
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
    letter = _read(first, options, texts, strict=True)
    if "\n" in said.group():  # the answer on a line of its own: no list may follow, and the whole line must be it
        return None if _LETTERED.match(content[len(first) :].lstrip()) else letter
    return _clause(first, options, texts) if letter is None else letter


def _clause(content: str, options, texts) -> str | None:
    """The letter that a sentence's content up to its first full stop, comma or dash states; '' when another follows the comma."""
    cut = re.search(r"[,;]\s|\.\s+(?![a-z])|\s[—–-]\s|[}\]\"]|</|\s(?:or|and|as well as)\s", content)
    if not cut:
        return None
    letter = _read(content[: cut.start()], options, texts, strict=True)
    if letter and not cut.group().startswith("."):
        rest = _NEGATED.sub(" ", content[cut.start() :].split(". ", 1)[0])
        if (texts.named_in(rest) | set(_LONE_LETTER_NAMES.findall(rest))) - {letter}:
            return ""
    return letter


_LONE_LETTER_NAMES = re.compile(r"(?:or|and|,|;)\s*[(\[*\"']*([A-J])(?![\w'])")


def _lines(text: str, options, texts) -> str | None:
    """The one letter that lines which are nothing but an answer name; None when they name several."""
    lines = [line for line in text[: 10 * SPAN].split("\n") if line.strip()]
    if len(text) > 10 * SPAN or len(lines) > 6:
        lines = lines[:3] + [line for line in text[-10 * SPAN :].split("\n") if line.strip()][-3:]
    letters = set()
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        bare = line[:SPAN].strip()
        if (
            bare[:1].isalpha()
            and bare[1:2].isalpha()
            and not bare.lower().startswith(_LINE_HEADS)
            and not texts.may_hold(bare.lower())
        ):
            continue  # prose
        letter = _read(_LINE_START.sub("", bare), options, texts, strict=True)
        if letter and not (bare == "A" and following[:1].islower()):  # an article at the end of its line
            letters.add(letter)
    return letters.pop() if len(letters) == 1 else None


def _read(content: str, options, texts, strict: bool) -> str | None:
    """The letter that a short piece of text states. None: it states nothing; '': something that is no one option.

    `strict`: what follows the letter must be its option's text or a reason, not any words.
    """
    if "<" in content:
        content = _MARKUP.sub(" ", content)
    if "\\" in content or "$" in content:
        content = _LATEX.sub(r"\1", content).replace("\\(", "").replace("\\)", "").replace("\\,", " ").replace("$", "")
    bare = content.strip(_TRIM)
    if bare.endswith("."):
        bare = bare.rstrip(". ").rstrip(_TRIM)
    if len(bare) == 1 and bare.isalpha():
        letter, named = bare.upper(), texts.get(fold(bare))
        return (named or "") if letter not in options else letter if named in (None, letter) else ""
    low = bare.lower()
    if (
        bare[1:2].isalpha()
        and not low.startswith(_STARTS)
        and not texts.may_hold(low)
        and " " in low
        and not low.endswith((")", "]"))
    ):
        return None  # prose
    if texts.may_hold(low) and (key := fold(bare)) in texts:
        return texts[key] or ""
    if "not " in low or "instead of " in low or "rather than " in low:
        return _without_denial(bare, options, texts)
    if low.startswith(("yes", "no", "maybe", "true", "false")) and set(texts) <= _PLAIN_WORDS:
        said = _FIRST_WORD.match(bare)
        return texts.get(said.group(1).lower()) if said else None
    if bare.endswith((")", "]")) or content.rstrip(" .").endswith((")", "]")):
        pair = _TEXT_THEN_LETTER.match(content.strip(" .*"))
        if pair and pair.group(2) in options and fold(pair.group(1)) == texts.of[pair.group(2)] != "":
            return pair.group(2)
    lead = _LEAD.match(bare)
    if not lead:
        return None
    letter, mark, rest = lead.group(1).upper(), (lead.group(2) or "").strip(), bare[lead.end() :]
    return _follow(letter, mark, rest, bare[lead.start(1)].isupper(), options, texts, strict)


def _without_denial(bare: str, options, texts) -> str | None:
    """What is left of "not A but B" and "B, not A"; '' of a mere denial."""
    rest = _NEGATED.sub(" ", _NOT_BUT.sub("", bare)).strip(_TRIM)
    rest = re.sub(r"^(?:but|rather|instead|it is|it's)\s+", "", rest, flags=re.IGNORECASE)
    if rest == bare or re.search(r"\b(?:not|instead of|rather than)\s", rest, re.IGNORECASE):
        return None
    return _read(rest, options, texts, strict=True) if rest else ""


def _follow(letter: str, mark: str, rest: str, capital: bool, options, texts, strict: bool) -> str | None:
    """Judge a leading letter by what comes after it: its own option's text, a reason, another letter, other words."""
    if not rest.strip(_TRIM + "."):
        return letter if letter in options and (capital or mark) else None
    if _ALSO.match(mark + rest) or any(x != letter for x in _LETTERED.findall(rest)):
        return "" if capital else None
    own = texts.of.get(letter, "")
    start = fold(rest[: texts.longest])
    if own and f"{start} ".startswith(f"{own} "):
        return letter if texts.get(start, letter) == letter else ""
    if start in texts or texts.get(fold(_CLAUSE_END.split(rest[: texts.longest], maxsplit=1)[0])):
        return ""  # letter and text disagree
    if letter not in options or mark in ("-", "–", "—", "=", "/", "&", "+"):
        return None
    rest = rest.lstrip()
    if capital and (_REASON.match(rest) or ((letter not in "AI" or mark) and _MORE_REASON.match(rest))):
        return letter
    if strict or not mark or mark == ",":
        return None
    shared = {x: len(words & set(fold(rest).split())) for x, words in texts.words.items()}
    return (
        letter
        if shared[letter]
        and shared[letter] == max(shared.values())
        and list(shared.values()).count(shared[letter]) == 1
        else None
    )
