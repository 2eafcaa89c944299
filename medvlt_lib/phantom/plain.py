"""Plain sentences: the questions and the working of the phantom world as a person would write them.

The families write short notes ("age 72 1, total 1"), which the tiny models can learn. A language model that others
pretrained knows sentences. `plain_question` and `plain_trace` say the same in sentences and add no fact; `as_note`
turns a sentence of the working back into the note, so that the checker of steps reads both. No torch here.
"""

from __future__ import annotations

import re

PART = re.compile(r"(.+) (-?\d{1,9}), total (-?\d{1,9})")  # a finding, its points, the total so far
TWO_WORDS = ("bright", "left lung", "right lung")  # what a statement is about, where that takes two words
SIGNS = {"+": "plus", "-": "minus", "/": "divided by"}
DENIED = "it is not so that "
SEEN = {  # the first sentence of a picture's question
    "Fundus": "photograph of the fundus",
    "Histology": "histology slide",
    "Chest film": "chest film",
}
ASKED = {  # the last one, where "What is the ...?" does not fit
    "How many lung nodules": "How many lung nodules does it show?",
    "How many dark nuclei": "How many dark nuclei does it show?",
    "Which bleed": "Which bleed does it show?",
    "Where is the lesion": "Where is the lesion?",
}

_CALCULATION = re.compile(r"(-?[\d.]+) ([-+/]) (-?[\d.]+) = (-?[\d.]+)")
_PERSON = re.compile(r"(Man|Woman) of (\d+)(?: (.+?))?[:,] (.+)")
_PLAIN_PART = re.compile(r"(.+) adds (-?\d{1,9}), which makes (-?\d{1,9})")
_PLAIN_CALCULATION = re.compile(rf"(-?[\d.]+) ({'|'.join(SIGNS.values())}) (-?[\d.]+) is (-?[\d.]+)")
_PLAIN_LOOK = re.compile(r"([A-J]) is (.+), which (fits|does not fit)")


def plain_question(short: str) -> str:
    """A family's question in sentences; of questions in another form, the question itself."""
    told, separator, asked = short.rpartition(". ")
    if not separator or not asked.endswith("?"):
        return short
    asked = asked.rstrip("?")
    asked = ASKED.get(asked) or f"What is the {_lowered(asked)}?"
    if person := _PERSON.fullmatch(told):
        who, age, state, findings = person.groups()
        state = f" {state}" if state else ""
        if findings.startswith("unwell: "):
            state, findings = " who is unwell", findings.removeprefix("unwell: ")
        return f"A {who.lower()} of {age}{state} has these findings: {findings}. {asked}"
    if told.startswith("Newborn at "):
        when, _, findings = told.removeprefix("Newborn at ").partition(": ")
        when = "1 minute" if when == "1 minutes" else when
        return f"A newborn has these findings at {when}: {findings}. {asked}"
    return f"This is a {SEEN.get(told) or _lowered(told)}. {asked}"


def plain_trace(steps: list[str], options: dict[str, str], answer: str) -> str:
    """The working in sentences, then the options in turn up to the one that fits."""
    sentences = [_capital(plain_step(step)) for step in steps]
    for letter, text in options.items():
        sentences.append(f"{letter} is {text}, which {'fits' if text == answer else 'does not fit'}")
        if text == answer:
            break
    return " ".join(f"{sentence}." for sentence in sentences)


def plain_step(note: str) -> str:
    """A step of the working as a sentence, without capital and full stop; `as_note` turns it back."""
    denied, bare = without_denial(note)
    if denied:
        return f"{DENIED}{plain_step(bare)}"
    if part := PART.fullmatch(note):
        return f"{part[1]} adds {part[2]}, which makes {part[3]}"
    if calculation := _CALCULATION.fullmatch(note):
        left, sign, right, result = calculation.groups()
        return f"{left} {SIGNS[sign]} {right} is {result}"
    if note.startswith("a tenth of "):
        return note
    words, about = note.split(), 1 + note.startswith(TWO_WORDS)
    if words[0] == "no":
        return f"there is {note}"
    thing, rest = " ".join(words[:about]), " ".join(words[about:])
    return f"the {thing} is {rest}" if rest else f"there are {thing}"


def as_note(sentence: str) -> str | None:
    """A plain sentence, with or without its capital, as the families' note; None for any other sentence."""
    if look := _PLAIN_LOOK.fullmatch(sentence):
        return f"{look[1]}. {look[2]} {'yes' if look[3] == 'fits' else 'no'}"
    sentence = sentence[:1].lower() + sentence[1:]
    if sentence.startswith(DENIED):
        note = as_note(sentence.removeprefix(DENIED))
        return note and f"not {note}"
    if part := _PLAIN_PART.fullmatch(sentence):
        return f"{part[1]} {part[2]}, total {part[3]}"
    if calculation := _PLAIN_CALCULATION.fullmatch(sentence):
        left, word, right, result = calculation.groups()
        return f"{left} {next(sign for sign, own in SIGNS.items() if own == word)} {right} = {result}"
    if sentence.startswith("the ") and " is " in sentence:
        about, _, rest = sentence.removeprefix("the ").partition(" is ")
        return f"{about} {rest}"
    for opening in ("there is no ", "there are "):
        if sentence.startswith(opening):
            return sentence.removeprefix("there is " if opening.endswith("no ") else opening)
    return None


def without_denial(note: str) -> tuple[str, str]:
    """("not " or "", the rest) of a step."""
    bare = note.removeprefix("not ")
    return note[: len(note) - len(bare)], bare


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lowered(text: str) -> str:
    """The text without the capital of its first word, where that is a word and not a name such as MRI or qSOFA."""
    first = text.split()[0].split("-")[0]
    return text if first in ("Glasgow", "Apgar") or not first[1:].islower() else text[:1].lower() + text[1:]
