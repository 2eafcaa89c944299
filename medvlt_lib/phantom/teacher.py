"""The phantom teacher: a question's working written down as a chain of thought, in one of four styles.

`own` is the style that the tiny models were raised on. `foreign` says the same in another order and wording, longer,
with what was found said again: what DeepSeek-R1 is to Qwen. `terse` names the answer alone. `plain` says it in the
sentences of medvlt_lib/phantom/plain.py. All of them tell what the question's `extra["steps"]` tell, which noise may
have changed, and no new facts. `foreign` uses words that the tiny models' tokenizer knows; a free rewording would be
spelled letter by letter. No torch here.
"""

from __future__ import annotations

import re

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import Question
from medvlt_lib.phantom.plain import PART, TWO_WORDS, as_note, plain_trace, without_denial

STYLES = ("own", "foreign", "terse", "plain")
_FOREIGN_PART = re.compile(r"(-?\d{1,9}) \+ (-?\d{1,9}) is (-?\d{1,9}) with (.+)")
_FOREIGN_SUM = re.compile(r"in total (-?\d{1,9}(?: \+ -?\d{1,9})*) is (-?\d{1,9})")
_FOREIGN_LOOK = re.compile(r"([A-J]) is (.+), (good|off)")
_CALCULATION = re.compile(r"(.+) = (.+)")
_FOREIGN_CALCULATION = re.compile(r"(-?[\d.]+) is (-?\d.* [-+/*] .+)")
_FOREIGN_TENTH = re.compile(r"(-?\d+) is a tenth of (-?\d+)")


def write_trace(question: Question, style: str) -> str:
    """A question's chain of thought in a style. Raises UserError for an unknown style, and for a question that is not
    of this world and so has no steps to write down."""
    if style not in STYLES:
        raise UserError(f"unknown style of the phantom teacher '{style}'; choose one of {', '.join(STYLES)}.")
    steps = question.extra.get("steps")
    if not steps:
        raise UserError(
            f"question {question.id} has no steps, which the phantom teacher writes down; ask it phantom questions."
        )
    if style == "own":
        return own_trace(steps, question.options, question.answer)
    if style == "terse":
        return f"{question.answer_label}. {question.answer}."
    if style == "plain":
        return plain_trace(steps, question.options, question.answer)
    return _foreign(question.question, steps, question.options, question.answer)


def own_trace(steps: list[str], options: dict[str, str], answer: str) -> str:
    """The working, then the options in turn up to the one that matches."""
    sentences = [f"{step}." for step in steps]
    for letter, text in options.items():
        sentences.append(f"{letter}. {text} {'yes' if text == answer else 'no'}.")
        if text == answer:
            break
    return " ".join(sentences)


def _foreign(question: str, steps: list[str], options: dict[str, str], answer: str) -> str:
    """What is asked; the working, the parts of a sum from the last to the first; what was found, once more; then the
    options from the last on up to the one that matches."""
    parts = [PART.fullmatch(step) for step in steps]
    if all(parts):
        sentences = _sum_from_the_end([(part[1], int(part[2]), int(part[3])) for part in parts])
    else:
        sentences = [_reworded(step) for step in steps]
        sentences.append(f"in other words, {sentences[-1]}")
    for letter, text in reversed(options.items()):
        sentences.append(f"{letter} is {text}, {'good' if text == answer else 'off'}")
        if text == answer:
            break
    asked = re.split(r"[.:] ", question)[-1].rstrip("?")
    return " ".join(f"{sentence}." for sentence in (f"find {asked}", *sentences))


def _sum_from_the_end(parts: list[tuple[str, int, int]]) -> list[str]:
    """A sum's parts (name, points, total so far), the last first. A total that is off is off by as much here."""
    points = [own_points for _, own_points, _ in parts]
    sentences, total = [], 0
    for place in reversed(range(len(parts))):
        name, _, stated = parts[place]
        off = stated - sum(points[: place + 1])
        sentences.append(f"{total} + {points[place]} is {total + points[place] + off} with {name}")
        total += points[place]
    return [*sentences, f"in total {' + '.join(map(str, points))} is {total}"]


def _reworded(step: str) -> str:
    """A step that is no part of a sum in the foreign wording; `as_own` turns it back."""
    if calculation := _CALCULATION.fullmatch(step):
        return f"{calculation[2]} is {calculation[1]}"
    if step.startswith("a tenth of "):
        tenth, _, value = step.rpartition(" is ")
        return f"{value} is {tenth}"
    denied, bare = without_denial(step)
    words, about = bare.split(), 1 + bare.startswith(TWO_WORDS)
    if words[0] == "no":
        return f"{denied}{bare} is on the picture"
    return f"{denied}the {' '.join(words[:about])} is {' '.join(words[about:])}".rstrip()


def as_own(sentence: str) -> str:
    """A sentence in the foreign or the plain wording as the teacher's own style has it; any other one as it is.

    A sum of points that is said again comes back as it is, see `said_again`.
    """
    if (note := as_note(sentence)) is not None:
        return note
    sentence = sentence.removeprefix("in other words, ")
    if part := _FOREIGN_PART.fullmatch(sentence):
        before, points, total, name = part.groups()
        return f"{name} {points}, total {total}" if int(before) + int(points) == int(total) else f"{sentence}, total"
    if look := _FOREIGN_LOOK.fullmatch(sentence):
        return f"{look[1]}. {look[2]} {'yes' if look[3] == 'good' else 'no'}"
    if tenth := _FOREIGN_TENTH.fullmatch(sentence):
        return f"a tenth of {tenth[2]} is {tenth[1]}"
    if calculation := _FOREIGN_CALCULATION.fullmatch(sentence):
        return f"{calculation[2]} = {calculation[1]}"
    denied, bare = without_denial(sentence)
    if bare.startswith("no ") and bare.endswith(" is on the picture"):
        return denied + bare.removesuffix(" is on the picture")
    if bare.startswith("the ") and (" is " in bare or bare.endswith(" is")):
        about, _, rest = bare.removeprefix("the ").partition(" is")
        return f"{denied}{about}{rest}"
    return sentence


def said_again(sentence: str) -> tuple[list[int], int] | None:
    """The points and the total of a sum that is said once more ("in total 1 + 0 is 1"); None for another sentence."""
    if found := _FOREIGN_SUM.fullmatch(sentence):
        return [int(points) for points in found[1].split(" + ")], int(found[2])
    return None
