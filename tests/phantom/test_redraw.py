"""A picture drawn with another value shows that value, and nothing else about it changes."""

import json

import numpy as np
import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.phantom.redraw import drawable_values, redrawn

QUESTIONS = {q.family: q for q in make_questions("image", "test", 8, seed=5)}


def heart_width(question) -> int:
    """Columns of the picture in which the heart is seen against the dark lungs, in the row where it is widest."""
    pixels = np.asarray(load_image(question.images[0]).convert("L"), dtype=float)
    return int((pixels[60:96].mean(0) > pixels[60:96].mean()).sum())


@pytest.mark.parametrize("family", sorted(QUESTIONS))
def test_every_value_can_be_drawn_and_is_the_answer(family):
    question, rules = QUESTIONS[family], FAMILIES[family]
    before = json.dumps(question.extra["facts"], sort_keys=True)
    for text in drawable_values(question):
        drawn = redrawn(question, text)
        assert drawn.answer == text == rules.text(rules.rule(drawn.extra["facts"]))
        assert drawn.options[drawn.answer_label] == text and list(drawn.options) == list(question.options)
        assert len(set(drawn.options.values())) == len(drawn.options)
        assert drawn.image_ids[0] != question.image_ids[0] or text == question.answer
        kept = {k: v for k, v in drawn.extra["facts"].items() if k not in (family, "nodules", "nuclei")}
        assert kept == {k: v for k, v in question.extra["facts"].items() if k in kept}
    assert json.dumps(question.extra["facts"], sort_keys=True) == before  # the question itself is as it was


def test_the_same_value_draws_the_same_picture_again():
    question = QUESTIONS["cup_to_disc_ratio"]
    assert redrawn(question, question.answer).image_ids == question.image_ids


def test_a_wider_heart_is_wider_in_the_pixels():
    question = QUESTIONS["cardiothoracic_ratio"]
    facts = {**question.extra["facts"], "nodules": [], "tilt": 0}
    plain = redrawn(type(question)(**{**vars(question), "extra": {**question.extra, "facts": facts}}), "40%")
    widths = [heart_width(redrawn(plain, text)) for text in drawable_values(question)]
    assert widths[0] < widths[-1] and widths == sorted(widths)


def test_nodules_are_as_many_as_were_asked_for():
    question = QUESTIONS["nodule_count"]
    for text in drawable_values(question):
        assert len(redrawn(question, text).extra["facts"]["nodules"]) == int(text)


def test_what_cannot_be_drawn_is_a_sentence():
    with pytest.raises(UserError, match="choose from 40%"):
        redrawn(QUESTIONS["cardiothoracic_ratio"], "41%")
    [text] = make_questions("curb65", "test", 1)
    with pytest.raises(UserError, match="only pictures of the embedded world"):
        redrawn(text, text.answer)
