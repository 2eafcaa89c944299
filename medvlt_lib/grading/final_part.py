"""The part of a response that answers: without thinking, and without a question that the model put to itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice

from medvlt_lib.grading.wordings import TABLE, any_of

HEADS = 4  # heads of new questions that are looked at
BEGINS = {mark: f"mark {i}" for i, (begins, _) in enumerate(TABLE["thinking_marks"]) for mark in begins}
ENDS = {mark: f"mark {i}" for i, (_, ends) in enumerate(TABLE["thinking_marks"]) for mark in ends}
_MARKS = {mark[:2] if mark[0] in "<#" else mark for mark in (*BEGINS, *ENDS)}
_STARTS = {"<", "[", "◁", *_MARKS}
_TAG = re.compile(rf"[<\[◁](/?)({any_of(TABLE['thinking_tags'], False)})\s*[>\]▷]")
_ANY_MARK = re.compile(rf"{_TAG.pattern}|{any_of([*BEGINS, *ENDS], False)}")
_TURN_END = re.compile(rf"[<\[]{any_of([mark[1:] for mark in TABLE['turn_ends']], False)}")
_HEAD = re.compile(rf"\n[ \t#*>]*{any_of(TABLE['question_heads'])}(?:\s*\d+)?[\s*]*[:.)]")


def without_thinking(text: str, low: str) -> tuple[str, str, list[str]]:
    """(what is left, the same in lower case, what was put aside) of a text, which is given in both forms.

    Thinking ends at its own closing mark; where only that mark is there, all before it is thinking. A block that is
    never closed ends at the last answer tag which is closed.
    """
    if not any(start in low for start in _STARTS):
        return text, low, []
    kept, aside, start, inside = list[tuple[int, int]](), list[tuple[int, int]](), 0, ""
    marks = _ANY_MARK if any(start in low for start in _MARKS) else _TAG  # the tags alone are found faster
    for mark in marks.finditer(low):
        name = mark.group(2) or BEGINS.get(mark.group()) or ENDS[mark.group()]
        closing = mark.group(1) == "/" or mark.group() in ENDS
        if inside and not (closing and name == inside):
            continue
        if closing and not inside:  # the opening mark is missing
            aside += kept
            kept = []
        (aside if closing else kept).append((start, mark.start()))
        start, inside = mark.end(), "" if closing else name
    if inside:
        answered = _last_closed_tag(low, start)
        aside.append((start, answered))
        start = answered
    if not (kept or aside):
        return text, low, []
    kept.append((start, len(text)))
    left, left_low = ("\n".join(form[begin:end] for begin, end in kept) for form in (text, low))
    return left, left_low, [text[begin:end] for begin, end in aside]


def _last_closed_tag(low: str, start: int) -> int:
    """Where the last answer tag that is closed begins; the end of the text where there is none."""
    closed = [low.rfind(f"<{name}>", start, max(start, low.rfind(f"</{name}>"))) for name in TABLE["answer_tags"]]
    return max(closed) if max(closed) >= 0 else len(low)


def without_new_questions(text: str, low: str, answers: Callable[[str], bool], texts: Iterable[str]) -> tuple[str, str]:
    """(what is left, what was put aside) of a text that may run on into another turn, or a question of its own.

    The asked question may be said again: its options (`texts`, in lower case) follow, and no answer stands before it.
    """
    end = len(text)
    for mark in islice(_TURN_END.finditer(low), 2) if "<" in low or "[" in low else ():
        if text[: mark.start()].strip():
            end = mark.start()
            break
    for head in islice(_HEAD.finditer(low, 0, end), HEADS):
        before = text[: head.start()]
        if before.strip() and (answers(before) or not _said_again(low, head.end(), texts)):
            end = head.start()
            break
    return text[:end], text[end:]


def _said_again(low: str, start: int, texts: Iterable[str]) -> bool:
    """Whether at least two of the options are listed within the next few thousand characters."""
    piece = low[start : start + 4000]
    return sum(text in piece for text in texts) >= 2
