"""The tolerant reading of an answer: every common way of stating one, and never a guess.

Read are the answer tag, \\boxed{}, JSON, sentences such as "the correct option is B" and lines that are nothing but an
answer. The last statement wins, and disagreement with an earlier one is flagged. Thinking does not count. Where nothing
is stated, or two options at once, or only under a condition, there is no answer: no default letter, no nearest match,
no letter from mere prose. A plain answer in an unusual wording may be missed; that is the price.
Every step looks at a bounded piece of text, so that long responses take time in proportion to their length.
"""

from __future__ import annotations

import json
import re

from medvlt_lib.grading.option_texts import SPAN, OptionTexts, option_texts
from medvlt_lib.grading.sentences import JSON_KEY, LAST, Statement, stated_in_sentences
from medvlt_lib.grading.short_answer import STARTS, read_short_answer

_THINK = re.compile(r"[<\[◁](/?)(?:think(?:ing)?|thoughts?|reasoning)\s*[>\]▷]", re.IGNORECASE)
_WIDE = {i: chr(i - 0xFEE0) for i in range(0xFF01, 0xFF5F)}  # full-width forms of ASCII
_WIDE |= {0x3000: " ", 0x3002: ".", 0x3001: ",", 0x200B: None, 0x200C: None, 0x200D: None, 0xFE0F: None, 0xFEFF: None}
_WIDE |= {
    base + i: chr(65 + i) for base in (0x1D400, 0x1D5D4, 0x24B6) for i in range(26)
}  # bold, sans bold, circled capitals
_LINE_HEADS = (*STARTS, "so", "thus", "hence", "therefore")
_LINE_START = re.compile(
    r"^(?:[-•–→➡👉✅✔>]+\s*)?(?:(?:therefore|thus|so|hence)[,:]?\s+)?(?:it is |it's )?", re.IGNORECASE
)


def outside_thinking(response: str) -> str:
    """The response without its think blocks.

    What follows an unclosed block, or stands before a lone closing tag, is thinking.
    """
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


def tolerant_answer(response: str, options: dict[str, str], finish_reason: str | None = None) -> tuple[str | None, str]:
    """(letter or None, how it was stated). `how` ends in ", contradicted" when an earlier statement named another
    letter.

    `options` maps letters to texts; a response that ran into its length limit has no answer in a tag that it left open.
    """
    text = outside_thinking(response if response.isascii() else response.translate(_WIDE))
    low = text.lower()
    if len(low) != len(text):  # some letters grow in lower case; positions must agree
        low = text
    texts = option_texts(tuple(options.items()))
    if "{" in text and (whole := _json(text)) is not None:
        letter = read_short_answer(whole, options, texts, strict=False) or None
        return letter, "json" if letter else "no answer"
    found, outside = _tags(text, low, options, texts, finish_reason)
    if "\\boxed{" in text:
        found += _boxes(text, options, texts)
    taken = max(found)[0] if found else -1  # after a tag or box, not every mention of an option takes it back
    for begin, end in outside:
        if end - begin > 3:
            found += [
                (begin + at, letter, how)
                for at, letter, how in stated_in_sentences(text[begin:end], options, texts, begin > taken >= 0)
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
    """The answer field of a response that is one JSON object, fenced or not; '' when it has none, None for other
    text."""
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
    said = [v for field, v in fields.items() if JSON_KEY.fullmatch(field)]
    return said[-1] if said else ""


def _tags(
    text: str, low: str, options: dict[str, str], texts: OptionTexts, finish_reason: str | None
) -> tuple[list[Statement], list[tuple[int, int]]]:
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


def _boxes(text: str, options: dict[str, str], texts: OptionTexts) -> list[Statement]:
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


def _state(content: str, options: dict[str, str], texts: OptionTexts) -> str:
    """The letter that the content of a tag or box states, also in a sentence inside it; '' for none."""
    content = content.strip()
    if len(content) > 10 * SPAN:
        return ""
    letter = read_short_answer(content[:SPAN], options, texts, strict=False)
    if letter is not None:
        return letter
    first = content.split("\n", 1)[0]
    if first != content and (letter := read_short_answer(first[:SPAN], options, texts, strict=True)):
        others = {
            x
            for line in content.split("\n")[1:LAST]
            if (x := read_short_answer(line[:SPAN], options, texts, strict=True))
        }
        return letter if others <= {letter} else ""
    said = sorted(stated_in_sentences(content, options, texts))
    return said[-1][1] if said else ""


def _lines(text: str, options: dict[str, str], texts: OptionTexts) -> str | None:
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
        letter = read_short_answer(_LINE_START.sub("", bare), options, texts, strict=True)
        if letter and not (bare == "A" and following[:1].islower()):  # an article at the end of its line
            letters.add(letter)
    return letters.pop() if len(letters) == 1 else None
