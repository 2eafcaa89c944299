"""The phantom teacher's styles: the same steps in other words, which the checker of steps reads back."""

import re
from dataclasses import replace

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.models.loading import shipped
from medvlt_lib.models.processor import load_processor
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.phantom.rationale import judge
from medvlt_lib.phantom.teacher import STYLES, write_trace


@pytest.fixture(scope="module")
def questions():
    return make_questions("all", "train", 800, seed=31)


def judged(question, text):
    return judge(text, question.family, question.extra["facts"], question.options)


def test_the_foreign_style_by_hand():
    [question] = make_questions("curb65", "train", 1, seed=0)
    steps = ["age 70 1, total 1", "confused 1, total 2", "urea 5 0, total 2"]
    asked = replace(
        question, question="Man of 70 with pneumonia: confused, urea 5. CURB-65 score?", answer="2", answer_label="B",
        options={"A": "3", "B": "2", "C": "0"}, extra={**question.extra, "steps": steps},
    )  # fmt: skip
    assert write_trace(asked, "foreign") == (
        "find CURB-65 score. 0 + 0 is 0 with urea 5. 0 + 1 is 1 with confused. 1 + 1 is 2 with age 70. "
        "in total 1 + 1 + 0 is 2. C is 0, off. B is 2, good."
    )
    slipped = replace(asked, extra={**question.extra, "steps": [steps[0], "confused 1, total 4", steps[2]]})
    assert "0 + 1 is 3 with confused. 1 + 1 is 2 with age 70." in write_trace(slipped, "foreign")
    assert write_trace(asked, "own") == (
        "age 70 1, total 1. confused 1, total 2. urea 5 0, total 2. A. 3 no. B. 2 yes."
    )
    assert write_trace(asked, "terse") == "B. 2."


def test_every_clean_trace_is_true_in_both_wordings(questions):
    for question in questions:
        for style in ("own", "foreign"):
            judgement = judged(question, write_trace(question, style))
            assert judgement.grounded and judgement.letter == question.answer_label, (style, question.id)
        terse = judged(question, write_trace(question, "terse"))
        assert terse.missing and not terse.grounded


def test_every_noisy_trace_is_false_in_both_wordings():
    """A wrong step stays wrong in the foreign wording, and is the only false one there."""
    for question in make_questions("all", "train", 800, seed=32, trace_noise=1.0):
        own, foreign = (judged(question, write_trace(question, style)) for style in ("own", "foreign"))
        assert not own.grounded and not foreign.grounded, question.id
        for judgement in (own, foreign):
            false = [step.text for step in judgement.steps if step.verdict == "false"]
            assert judgement.missing or false, question.id
    for question in make_questions("all", "train", 160, seed=33, label_noise=1.0):
        looks = [s for s in judged(question, write_trace(question, "foreign")).steps if s.kind == "option"]
        assert looks[-1].verdict == "false" and looks[-1].text.startswith(question.answer_label)


def test_foreign_numbers_that_do_not_add_up_are_false(questions):
    [question] = [q for q in questions if q.family == "apgar"][:1]
    text = write_trace(question, "foreign")
    first = re.search(r"0 \+ (\d) is \d with", text)
    for wrong in (
        text.replace(first[0], f"3 + {first[1]} is {first[1]} with"),
        text.replace("in total ", "in total 9 + "),
    ):
        assert any(step.verdict == "false" for step in judged(question, wrong).steps)


def test_the_foreign_style_is_longer_but_not_much_and_of_known_words(questions):
    tokenizer = load_processor(str(shipped("base"))).tokenizer
    length = {style: dict.fromkeys(FAMILIES, 0) for style in STYLES}
    words = set()
    for question in questions:
        for style in STYLES:
            length[style][question.family] += len(tokenizer(write_trace(question, style)).input_ids)
        words |= set(re.findall(r"(?<= )[a-z]+", write_trace(question, "foreign")))
    for family in FAMILIES:
        assert 1.3 < length["foreign"][family] / length["own"][family] <= 2.5, family
        assert length["terse"][family] < 0.4 * length["own"][family], family
    spelled = {word for word in words if len(tokenizer(f" {word}").input_ids) > 2}
    assert not spelled, spelled


def test_noise_reaches_every_style_and_the_facts_stay(questions):
    for style in STYLES:
        same = make_questions("all", "train", 48, seed=5, trace_style=style)
        for question, own in zip(same, make_questions("all", "train", 48, seed=5), strict=True):
            assert replace(question, reasoning=own.reasoning) == own
            assert question.reasoning == write_trace(own, style)


def test_bad_requests_are_sentences(questions):
    with pytest.raises(UserError, match=r"unknown style .* 'loud'; choose one of own, foreign, terse"):
        make_questions("curb65", "train", 1, trace_style="loud")
    with pytest.raises(UserError, match=r"question .* has no steps"):
        write_trace(replace(questions[0], extra={}), "foreign")
