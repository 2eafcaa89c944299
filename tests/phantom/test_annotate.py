"""The lengths that are drawn into a picture end where the pixels change, and give the gold answer."""

import numpy as np
import pytest
from scipy import ndimage

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.phantom.annotate import annotated, measured
from medvlt_lib.phantom.questions import make_questions


def edge_from(pixels: np.ndarray, end: tuple[float, float], towards: tuple[float, float]) -> float:
    """How many pixels from `end`, along the direction from `towards` through it, the brightness changes most."""
    direction = np.subtract(end, towards) / np.linalg.norm(np.subtract(end, towards))
    steps = np.arange(-3, 3.01, 0.25)
    aside = np.array([-direction[1], direction[0]])
    profiles = []
    for beside in (-0.5, 0, 0.5):  # a pixel's middle lies half a pixel from its corner
        x, y = (np.array(end) + steps[:, None] * direction + beside * aside - 0.5).T
        profiles.append(ndimage.map_coordinates(pixels, [y, x], order=1, mode="nearest"))
    smooth = ndimage.gaussian_filter1d(np.mean(profiles, 0), 3)
    return steps[np.abs(np.gradient(smooth)).argmax()]


def picture(question) -> np.ndarray:
    return np.asarray(load_image(question.images[0])).astype(float)[:, :, 2]


@pytest.mark.parametrize("family", ["cardiothoracic_ratio", "cup_to_disc_ratio"])
def test_measured_widths_end_at_edges_and_give_the_ratio(family):
    seen = 0
    for question in make_questions(family, "train", 120, seed=3):
        facts = question.extra["facts"]
        if facts.get("nodules") or facts.get("cup_to_disc_ratio", 6) not in (5, 6, 7):
            continue  # a nodule, a vessel or the other edge too near to tell apart
        whole, part = measured(question)
        for mark in (whole, part):
            middle = np.add(mark.start, mark.end) / 2
            assert abs(edge_from(picture(question), mark.start, middle)) <= 1.75, (question.id, mark)
            assert abs(edge_from(picture(question), mark.end, middle)) <= 1.75, (question.id, mark)
        gold = float(question.answer.rstrip("%")) / (100 if family == "cardiothoracic_ratio" else 1)
        assert part.length / whole.length == pytest.approx(gold)
        seen += 1
    assert seen >= 12 and {q.extra["facts"]["tilt"] for q in make_questions(family, "train", 120, seed=3)} > {0, 1, -1}


def test_a_ring_lies_around_every_nodule_and_nowhere_else():
    for question in make_questions("nodule_count", "train", 60, seed=3):
        rings, pixels = measured(question), picture(question)
        assert len(rings) == int(question.answer)
        for ring in rings:
            assert ring.ring and 9 < ring.length < 11.5
            x, y = (np.add(ring.start, ring.end) / 2).round().astype(int)
            inside = pixels[y - 2 : y + 2, x - 2 : x + 2].mean()
            assert inside > 110  # a lung has 58, its ribs 74


def test_the_figure_shows_the_working_and_the_answer():
    questions = make_questions("cardiothoracic_ratio,nodule_count", "train", 2, seed=11)
    axes = annotated(questions).axes
    for axis, question in zip(axes, questions, strict=True):
        assert axis.get_xlabel().splitlines() == [
            *question.extra["steps"],
            f"answer: {question.answer_label}. {question.answer}",
        ]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == questions[0].extra["steps"][:2]
    assert len(axes[1].patches) == int(questions[1].answer)


def test_a_wrong_trace_does_not_change_what_the_picture_shows():
    [noisy] = make_questions("cardiothoracic_ratio", "train", 1, seed=11, trace_noise=1.0)
    [clean] = make_questions("cardiothoracic_ratio", "train", 1, seed=11)
    assert noisy.extra["steps"] != clean.extra["steps"]
    assert annotated([noisy]).axes[0].get_xlabel() == annotated([clean]).axes[0].get_xlabel()


def test_a_family_without_a_measure_is_named():
    [question] = make_questions("lesion_size", "train", 1)
    with pytest.raises(UserError, match="no measure is known for family lesion_size; choose from cardiothoracic"):
        measured(question)
