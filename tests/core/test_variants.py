"""Questions asked otherwise: the answer follows the text, pictures are others', and answers stay with their picture."""

import io
from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image

from medvlt_lib.core import variants
from medvlt_lib.core.images import load_image, pixel_id
from medvlt_lib.core.records import Question
from medvlt_lib.phantom.questions import make_questions

FAMILIES = "cardiothoracic_ratio,nodule_count,cup_to_disc_ratio"


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return make_questions(FAMILIES, "test", 60)


def png(size, colour) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_without_its_picture_a_question_is_its_words(questions):
    for question in questions:
        bare = variants.without_picture(question)
        assert (bare.modality, bare.images) == ("text", []) and bare.question == question.question
        assert (bare.cluster, bare.group) == (question.cluster, question.group)


def test_grey_has_the_size_of_the_picture_and_nothing_in_it(questions):
    picture, second = png((70, 40), "red"), png((30, 90), "blue")
    question = Question("x", "x", "test", "image", "?", {"A": "1", "B": "2"}, "A", "1", images=[picture, second])
    grey = [np.asarray(load_image(image)) for image in variants.grey(question).images]
    assert [pixels.shape for pixels in grey] == [(40, 70, 3), (90, 30, 3)]
    assert all((pixels == 127).all() for pixels in grey)
    assert variants.grey(questions[0]).cluster == questions[0].cluster


def test_another_picture_is_of_the_same_kind_and_really_another(questions):
    own = {q.id: pixel_id(load_image(q.images[0])) for q in questions}
    used = Counter()
    for changed, other in variants.with_pictures_of_others(questions):
        shown = pixel_id(load_image(changed.images[0]))
        assert shown == own[other.id] != own[changed.id] and other.group == changed.group
        used[changed.group, shown] += 1
    assert set(used.values()) == {1}  # no picture stands in for two questions of one family
    [alone] = variants.with_pictures_of_others(questions[:1])
    assert alone == (questions[0], None)


def test_options_move_and_the_right_answer_goes_with_its_text(questions):
    for question in questions:
        moved = variants.reordered(question, Random(question.id))
        assert moved.answer == question.answer == moved.options[moved.answer_label]
        assert moved.answer_label != question.answer_label
        assert list(moved.options) == list(question.options)
        assert Counter(moved.options.values()) == Counter(question.options.values())


def test_every_order_with_the_answer_elsewhere_is_equally_likely():
    question = Question("x", "x", "test", "text", "?", dict(zip("ABC", "xyz", strict=True)), "B", "y")
    orders = Counter("".join(variants.reordered(question, Random(i)).options.values()) for i in range(4000))
    assert set(orders) == {"yxz", "yzx", "xzy", "zxy"}
    assert all(times == pytest.approx(1000, abs=110) for times in orders.values())
