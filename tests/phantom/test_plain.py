"""Plain sentences: they say what the notes say, and the checker of steps reads them back."""

import re
from dataclasses import replace

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.phantom.plain import as_note, plain_question, plain_step
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.phantom.rationale import judge


@pytest.mark.parametrize(
    ("short", "plain"),
    [
        (
            "Man of 41 with pneumonia: pressure 123/70, rate 30, confused. CURB-65 score?",
            "A man of 41 with pneumonia has these findings: pressure 123/70, rate 30, confused. "
            "What is the CURB-65 score?",
        ),
        (
            "Newborn at 1 minutes: reflex cry, pulse 123. Apgar score?",
            "A newborn has these findings at 1 minute: reflex cry, pulse 123. What is the Apgar score?",
        ),
        (
            "Woman of 39, unwell: sodium 146, chloride 110, bicarbonate 30 mmol/L. Anion gap?",
            "A woman of 39 who is unwell has these findings: sodium 146, chloride 110, bicarbonate 30 mmol/L. "
            "What is the anion gap?",
        ),
        (
            "Man of 27, blood pressure 115/55 mmHg. Mean arterial pressure?",
            "A man of 27 has these findings: blood pressure 115/55 mmHg. What is the mean arterial pressure?",
        ),
        ("Woman of 75 with infection: rate 24. qSOFA score?",
         "A woman of 75 with infection has these findings: rate 24. What is the qSOFA score?"),
        ("Chest film. How many lung nodules?", "This is a chest film. How many lung nodules does it show?"),
        ("Head CT. Midline shift?", "This is a head CT. What is the midline shift?"),
        ("Fundus. Cup-to-disc ratio?", "This is a photograph of the fundus. What is the cup-to-disc ratio?"),
        ("Which drug helps?", "Which drug helps?"),
    ],
)  # fmt: skip
def test_questions_by_hand(short, plain):
    assert plain_question(short) == plain


@pytest.mark.parametrize(
    ("note", "plain"),
    [
        ("age 72 1, total 3", "age 72 adds 1, which makes 3"),
        ("colour pink body, blue limbs 1, total 1", "colour pink body, blue limbs adds 1, which makes 1"),
        ("55 + 20 = 75", "55 plus 20 is 75"),
        ("60 / 3 = 20", "60 divided by 3 is 20"),
        ("index 0.5", "the index is 0.5"),
        ("left lung 3", "the left lung is 3"),
        ("septum off to picture left", "the septum is off to picture left"),
        ("no bright blood", "there is no bright blood"),
        ("bright ventricles", "there are bright ventricles"),
        ("a tenth of 90 is 9", "a tenth of 90 is 9"),
        ("not patient left", "it is not so that the patient is left"),
    ],
)
def test_steps_by_hand_and_back(note, plain):
    assert plain_step(note) == plain
    capital = plain[:1].upper() + plain[1:]
    assert {as_note(plain) or plain, as_note(capital) or plain} == {note}


def test_every_question_has_a_plain_wording_with_the_same_facts():
    short = make_questions("all", "validation", 320, seed=9)
    plain = make_questions("all", "validation", 320, seed=9, wording="plain")
    for one, other in zip(short, plain, strict=True):
        assert replace(other, question=one.question) == one
        assert other.question != one.question and other.question.startswith(("A ", "This is a "))
        assert re.findall(r"\d+", other.question) == re.findall(r"\d+", one.question)
        assert other.question.endswith("?") and other.question.count("?") == 1
    assert {q.family for q in plain} == set(FAMILIES)


def judged(question):
    return judge(question.reasoning, question.family, question.extra["facts"], question.options)


def test_every_clean_plain_trace_is_true():
    for question in make_questions("all", "train", 800, seed=31, trace_style="plain", wording="plain"):
        judgement = judged(question)
        assert judgement.grounded and judgement.letter == question.answer_label, question.reasoning
        assert not any(sentence[0].islower() for sentence in question.reasoning.split(". "))


def test_a_wrong_step_is_wrong_in_plain_sentences_too():
    for question in make_questions("all", "train", 480, seed=32, trace_noise=1.0, trace_style="plain"):
        assert not judged(question).grounded, question.reasoning


def test_an_unknown_wording_is_a_sentence():
    with pytest.raises(UserError, match="unknown wording 'loud'; choose one of short, plain"):
        make_questions("curb65", "train", 1, wording="loud")
