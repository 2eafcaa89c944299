"""The letter that a short piece of text states: the content of a tag or box, or what follows "the answer is"."""

from __future__ import annotations

import re

from medvlt_lib.grading.option_texts import TRIM, OptionTexts, fold

_MARKUP = re.compile(r"</?(?:b|i|u|em|strong|p|br|span|answer|final_answer)\s*/?>|<\|[^|>]{1,20}\|>", re.IGNORECASE)
_LATEX = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|boxed|rm|bf)\s*\{([^{}]{0,300})\}")
_LEAD = re.compile(
    r"(?:(?:the |my )?(?:final |correct |best )?(?:option|choice|answer|letter)(?: is)?[\s:(\[\"'*]{1,4})?([A-Za-z])"
    r"(?:([)\].:*\"'}]+|\s?[-–—=,/&+]\s?)|(?=\s)|$)",
    re.IGNORECASE,
)
_ALSO = re.compile(
    r"[\s)\].*\"']*(?:(?:and|or|and/or|vs\.?|versus|as well as)\s|[,;/&+])\s*(?:or |and )?"
    r"(?:option |choice )?[(\[*\"']*[A-J](?![\w'])"
)
LETTERED = re.compile(r"(?:^|[\s(,;])([A-J])[).:](?=\s|$|\w)")
_REASON = re.compile(r"(?:because|since|as|due|based|given)\b", re.IGNORECASE)
_MORE_REASON = re.compile(r"(?:which|for|that|this|with|where|when)\b|[—–;-]\s", re.IGNORECASE)
NEGATED = re.compile(
    r"(?:,?\s*(?:and|but)\s+)?\b(?:not|rather than|instead of)\s+(?:options? |choice )?"
    r"[(\[*\"']*[A-J](?![\w'])[)\]*\"']*",
    re.IGNORECASE,
)
_NOT_BUT = re.compile(
    r"^(?:it is |it's )?not\s.{1,200}?(?:\bbut|;)\s+(?:rather |instead )?(?:is |it is |it's )?", re.IGNORECASE
)
_TEXT_THEN_LETTER = re.compile(r"^(.{1,200}?)\s*[(\[]([A-J])[)\]]$")
STARTS = (
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
_PLAIN_WORDS = frozenset(("yes", "no", "maybe", "true", "false"))
_FIRST_WORD = re.compile(r"(yes|no|maybe|true|false)\s*[,.;:!—–-]", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[,;.(]\s|\s(?:because|since|as|due|with)\b")


def read_short_answer(content: str, options: dict[str, str], texts: OptionTexts, strict: bool) -> str | None:
    """The letter that a short piece of text states. None: it states nothing; '': something that is no one option.

    `strict`: what follows the letter must be its option's text or a reason, not any words.
    """
    if "<" in content:
        content = _MARKUP.sub(" ", content)
    if "\\" in content or "$" in content:
        content = _LATEX.sub(r"\1", content).replace("\\(", "").replace("\\)", "").replace("\\,", " ").replace("$", "")
    bare = content.strip(TRIM)
    if bare.endswith("."):
        bare = bare.rstrip(". ").rstrip(TRIM)
    if len(bare) == 1 and bare.isalpha():
        letter, named = bare.upper(), texts.get(fold(bare))
        return (named or "") if letter not in options else letter if named in (None, letter) else ""
    low = bare.lower()
    if (
        bare[1:2].isalpha()
        and not low.startswith(STARTS)
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


def _without_denial(bare: str, options: dict[str, str], texts: OptionTexts) -> str | None:
    """What is left of "not A but B" and "B, not A"; '' of a mere denial."""
    rest = NEGATED.sub(" ", _NOT_BUT.sub("", bare)).strip(TRIM)
    rest = re.sub(r"^(?:but|rather|instead|it is|it's)\s+", "", rest, flags=re.IGNORECASE)
    if rest == bare or re.search(r"\b(?:not|instead of|rather than)\s", rest, re.IGNORECASE):
        return None
    return read_short_answer(rest, options, texts, strict=True) if rest else ""


def _follow(
    letter: str, mark: str, rest: str, capital: bool, options: dict[str, str], texts: OptionTexts, strict: bool
) -> str | None:
    """Judge a leading letter by what comes after it: its own option's text, a reason, another letter, other words."""
    if not rest.strip(TRIM + "."):
        return letter if letter in options and (capital or mark) else None
    if _ALSO.match(mark + rest) or any(x != letter for x in LETTERED.findall(rest)):
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
