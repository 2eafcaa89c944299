"""The tolerant reading of an answer. Its rules, in the order in which they are used:

1. Thinking does not count, nor does what follows a question that the model goes on to put to itself. Thinking that is
   never closed ends at the last closed answer tag.
2. An answer stands in an answer tag, in \\boxed{}, in a JSON field, in a sentence that states it ("the answer is B", "B
   is correct", in nine languages), or, where there is none of these, on a line of its own.
3. A piece is first compared with the letters and the options' texts as a whole. Only then are its words looked at.
4. The last answer stands. It falls when it is denied or taken back, when two options are named at once, or when its
   letter stands beside another option's text. A list of the options names none.
5. Of a response that ran into its length limit only what is closed counts: a tag, a box, a JSON object.
6. Where nothing is stated, or only under a condition or as a possibility, there is no answer: no default letter and no
   nearest match. A plain answer in an unusual wording may be missed; that is the price.

Marks and wordings stand in a table (assets/grading/wordings.toml). Every step looks at a bounded piece of text, so that
long responses take time in proportion to their length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from medvlt_lib.grading.final_part import without_new_questions, without_thinking
from medvlt_lib.grading.option_texts import LETTER_FIRST, SPAN, OptionTexts, clean, option_texts, plain, read_piece
from medvlt_lib.grading.sentences import Statement, Text, in_sentences, without_lists
from medvlt_lib.grading.wordings import TABLE, any_of

SHORTEST_RETRACTION = min(map(len, TABLE["retractions"]))
LAST = 8  # tags and boxes that are read, from the end
_TAG = re.compile(rf"(?i)<(/?){any_of(TABLE['answer_tags'], False)}\s*>")
_KEYS = r"(?:(?:final|correct|predicted|selected|best|your|my)[_ ]?)?(?:answer|option|choice|letter|prediction)"
_FIELD = re.compile(
    rf"(?i)(?<!\\)[\"']{_KEYS}(?:[_ ](?:letter|choice|option))?[\"']\s*:\s*\[?\s*"
    r"(?:\"([^\"\n]{0,300})\"|'([^'\n]{0,300})'|([a-j])\s*[,}\n])"
)
_LINE_START = re.compile(
    r"^(?:[-•>#➡👉✅✔→]+\s*)?(?:(?:therefore|thus|so|hence)[,:]?\s+)?(?:it is |it's )?", re.IGNORECASE
)


@dataclass(slots=True)
class Reading:
    """A response's answer with its evidence: the statement that stands, all in order, and what was put aside."""

    letter: str | None
    how: str
    standing: Statement | None = None
    statements: list[Statement] = field(default_factory=list)
    aside: dict[str, str] = field(default_factory=dict)


def tolerant_answer(response: str, options: dict[str, str], finish_reason: str | None = None) -> tuple[str | None, str]:
    """(letter or None, how it was stated). `how` ends in ", contradicted" when an earlier statement named another
    letter.

    `options` maps letters to texts; of a response whose `finish_reason` is "length" only what is closed counts.
    """
    reading = read_response(response, options, finish_reason)
    return reading.letter, reading.how


def outside_thinking(response: str) -> str:
    """The response without its think blocks."""
    return without_thinking(response, _lower(response))[0]


def read_response(response: str, options: dict[str, str], finish_reason: str | None = None) -> Reading:
    """The answer of a response with its evidence (see `tolerant_answer`)."""
    texts = option_texts(tuple(options.items()))
    thought, closed, rest = response.partition("</think>")
    usual = closed and response.startswith("<think>")  # the usual form, quickly
    text = plain(rest if usual else response)
    text, low, thinking = without_thinking(text, _lower(text))
    thinking = [thought, *thinking] if usual else thinking
    text, more = without_new_questions(
        text,
        low,
        lambda before: _read(before, low[: len(before)], texts, False).letter is not None,
        texts.lower.values(),
    )
    reading = _read(text, low[: len(text)] if more else low, texts, finish_reason == "length")
    if thinking or more:
        reading.aside |= {"thinking": "\n".join(thinking), "a question of its own": more}
    return reading


def _lower(text: str) -> str:
    low = text.lower()
    return low if len(low) == len(text) else text  # some letters grow in lower case; positions must agree


def _read(text: str, low: str, options: OptionTexts, cut: bool) -> Reading:
    """Read a final part: marks first, then sentences outside of them, else lines."""
    statements, spans = _marked(text, options, cut)
    aside = {}
    gaps = list(_gaps(spans, len(text)))
    if not cut and (gaps or not statements):
        piece = without_lists(text, low, options)
        last = max((statement.at for statement in statements), default=-1)
        for begin, end in gaps:
            statements += in_sentences(piece, begin, end, options, 0 <= last < begin)
        if not statements:
            statements = _lines(piece, options)
        if piece.lists:
            aside["a list of the options"] = "\n".join(text[begin:end] for begin, end in piece.lists)
    statements.sort()
    return _weigh(statements, text, options, aside)


def _weigh(statements: list[Statement], text: str, options: OptionTexts, aside: dict[str, str]) -> Reading:
    """The last statement that stands: not denied, not taken back in the next breath, not of two options."""
    standing = None
    for statement in statements:
        if not statement.name.startswith("!"):
            standing = statement if statement.name else None
        elif standing and standing.name == statement.name[1:]:
            standing = None
    if standing is None or _taken_back(standing, text, options):
        return Reading(None, "no answer", None, statements, aside)
    named = {s.name for s in statements if s.name and s.name[0] != "!"}
    how = standing.rule + (", contradicted" if len(named) > 1 else "")
    return Reading(standing.name, how, standing, statements, aside)


def _taken_back(statement: Statement, text: str, options: OptionTexts) -> bool:
    """Whether nothing but the answer itself stands between a statement and words that take it back."""
    behind = text[statement.content : statement.content + options.longest + 24].lower()
    for words in TABLE["retractions"] if len(behind) > SHORTEST_RETRACTION else ():
        if (at := behind.find(words)) >= 0:
            between = behind[:at].strip(" \n.,;:!*-")
            named = options.whole(between)
            if named == statement.name or (named is None and not set(between) & set(".:;\n")):
                return True
    return False


def _gaps(spans: list[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """What lies outside of spans, which may overlap."""
    at = 0
    for begin, stop in [*sorted(spans), (end, end)]:
        if begin - at > 3:
            yield at, begin
        at = max(at, stop)


def _marked(text: str, options: OptionTexts, cut: bool) -> tuple[list[Statement], list[tuple[int, int]]]:
    """Statements in answer tags, boxes and JSON fields, and the spans that those take up."""
    statements, spans = [], []
    if "<" in text:
        tags = list(_TAG.finditer(text))[-2 * LAST :]
        for tag, following in zip(tags, [*tags[1:], None], strict=False):
            closed = following is not None and following.group(1) == "/"
            if not tag.group(1) and (closed or not cut):
                content = text[tag.end() : following.start() if following else len(text)]
                end = following.end() if closed and following else tag.end() + len(content)
                statements.append(Statement(tag.start(), end, _stated(content, options), "tag", content))
                spans.append((tag.start(), end))
    if "\\boxed{" in text:
        for begin, end in _boxes(text):
            content = text[begin + len("\\boxed{") : end - 1]
            statements.append(Statement(begin, end, _stated(content, options), "boxed", content))
    if '":' in text or "':" in text or '" :' in text:
        for at, begin, end, value in _json_fields(text):
            if text[end - 1 : end] == "}" or not cut:
                statements.append(Statement(at, end, _stated(value, options), "json", value))
            spans.append((begin, end))
    return statements, spans


def _boxes(text: str) -> list[tuple[int, int]]:
    """Where the last boxes stand that are closed."""
    spans, end = [], len(text)
    for _ in range(LAST):
        begin = text.rfind("\\boxed{", 0, end)
        if begin < 0:
            break
        depth = 0
        for i in range(begin, min(begin + SPAN, len(text))):
            depth += (text[i] == "{") - (text[i] == "}")
            if text[i] == "}" and depth == 0:
                spans.append((begin, i + 1))
                break
        end = begin
    return spans


def _json_fields(text: str) -> Iterator[tuple[int, int, int, str]]:
    """(place, begin and end of its object, value) of the last answer fields.

    A response that is nothing but an object says nothing outside of its answer fields, and '' without one.
    """
    bare = text.strip().strip("`").removeprefix("json").strip()
    whole = bare.startswith("{") and bare.endswith("}")
    found = list(_FIELD.finditer(text))[-LAST:]
    if whole and not found:
        yield 0, 0, len(text), ""
    for one in found:
        begin, end = text.rfind("{", 0, one.start()), text.find("}", one.end() - 1) + 1
        yield (
            one.start(),
            0 if whole else begin if begin >= 0 else one.start(),
            len(text) if whole else end or one.end(),
            next(value for value in one.groups() if value is not None),
        )


def _stated(content: str, options: OptionTexts) -> str:
    """What the content of a tag, box or field names, also in a sentence inside it; '' for nothing."""
    if len(content) > 10 * options.span:
        return ""
    lines = [line for line in content.splitlines() if line.strip()] or [""]
    name = read_piece(content[: options.span], options, loose=True) if len(lines) == 1 else options.whole(content)
    if name is None and len(lines) > 1 and (name := read_piece(lines[0][: options.span], options)):
        others = {other for line in lines[1:LAST] if (other := options.whole(clean(line)))}
        name = name if others <= {name} else ""
    if name is None:
        said = sorted(in_sentences(without_lists(content, _lower(content), options), 0, len(content), options, False))
        name = _weigh(said, content, options, {}).letter if said else None
    return "" if name is None or name.startswith("!") else name


def _lines(piece: Text, options: OptionTexts) -> list[Statement]:
    """A statement for lines that are nothing but an answer, where they agree; an option's text alone counts at the
    start or the end of the response."""
    lines, at = [], 0
    for line in piece.text.split("\n"):
        if line.strip() and not piece.listed(at):
            lines.append((at, line))
        at += len(line) + 1
    ends = {line for line in (*lines[:1], *lines[-1:])}
    lines = lines if len(lines) <= 6 else lines[:3] + lines[-3:]
    found = []
    for (at, line), (_, following) in zip(lines, [*lines[1:], (0, "")], strict=False):
        name = _line(line, options, (at, line) in ends)
        if name and name[0] != "!" and not (line.strip() == "A" and following[:1].islower()):  # an article
            found.append(Statement(at, at + len(line), name, "line", line))
    return found[-1:] if len({statement.name for statement in found}) == 1 else []


def _line(line: str, options: OptionTexts, at_end: bool) -> str | None:
    """What a line names that holds nothing but an answer, or a letter with its reason."""
    bare = clean(line[: options.span])
    start = len(bare) - len(_LINE_START.sub("", bare, count=1))
    name = options.whole(bare) if at_end and start else None  # before a word is taken for no part of an option
    bare = bare[start:]
    lettered = LETTER_FIRST.match(bare)
    if not (lettered or at_end) or name is not None:
        return name
    name = options.whole(bare)
    if name is None and (lettered or options.closed):
        name = read_piece(bare, options)
    return name
