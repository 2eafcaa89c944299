"""Figures of a run: what is drawn where, read off the axes."""

import pytest

from medvlt_lib.phantom.true_steps import FIRST_ERRORS
from medvlt_lib.stages import figures

SFT = [{"step": 0, "validation_accuracy": 0.5, "validation_low": 0.4, "validation_high": 0.7}]
SFT += [{"step": i, "loss": 1 / i} for i in (1, 2, 3)]
RL = [{"step": i, "loss": 0.1, "reward": 0.1 * i} for i in (1, 2, 3)]


def test_training_draws_the_loss_of_sft_and_the_reward_of_grpo():
    loss, reward, validation = figures.training({"sft_text": SFT, "rl_text": RL}).axes
    assert list(loss.lines[0].get_ydata()) == pytest.approx([1, 1 / 2, 1 / 3])
    assert list(loss.lines[1].get_ydata()) == pytest.approx([1, 3 / 4, 11 / 18])  # the running mean
    assert sum(len(line.get_xdata()) > 0 for line in loss.lines) == 2  # GRPO's loss tells nothing
    assert list(reward.lines[0].get_ydata()) == pytest.approx([0.1, 0.2, 0.3])
    [(low, high)] = [(bar[0][1], bar[1][1]) for bar in validation.containers[0].lines[2][0].get_segments()]
    assert (low, high) == pytest.approx((0.4, 0.7))


def test_a_panel_without_rows_is_left_out():
    assert len(figures.training({"rl_text": RL}).axes) == 1
    assert "no step" in figures.training({"rl_text": []}).axes[0].texts[0].get_text()


def test_lengths_are_medians_of_right_and_wrong_answers():
    rows = [{"modality": "text", "correct": i < 10, "tokens": 10 + i if i < 10 else 50} for i in range(12)]
    [axis] = figures.lengths({"base": rows}).axes
    right, wrong = axis.containers
    assert right.lines[0].get_xdata()[0] == pytest.approx(14.5) and wrong.lines[0].get_xdata()[0] == 50
    [bar] = right.lines[2][0].get_segments()
    assert (bar[0][0], bar[1][0]) == pytest.approx((10.9, 18.1))
    assert [text.get_text() for text in axis.texts] == ["10", "2"]


def shares(share: float, answers: int) -> dict:
    return {"share": share, "answers": answers, "interval": (share - 0.1, share + 0.1)}


def stated(arm: str, modality: str, **errors: int) -> dict:
    row = {"arm": arm, "modality": modality, "answers": 40, "first_errors": {n: errors.get(n, 0) for n in FIRST_ERRORS}}
    return row | {"works": shares(0.5, 40), "all_true": shares(0.8, 20), "follows": None}


ROWS = [stated("base", "text", glance=20, rule=4), stated("base", "image", perception=10), stated("base", "all")]


def test_steps_have_a_mark_for_each_kind_of_question():
    works, true, follows = figures.stated_steps(ROWS).axes
    assert [c.lines[0].get_xdata()[0] for c in works.containers] == [50, 50]
    assert [c.lines[0].get_xdata()[0] for c in true.containers] == [80, 80] and not follows.containers
    assert {text.get_text() for text in true.texts} == {"20"}


def test_where_no_steps_can_be_checked_the_figures_say_so():
    """Real questions hold no facts that a working could be checked against."""
    for figure in (figures.stated_steps([]), figures.first_errors([])):
        assert [text.get_text() for text in figure.axes[0].texts] == [figures.NO_STEPS]


def test_errors_are_stacked_in_percent_of_all_answers():
    [axis] = figures.first_errors(ROWS).axes
    ends = [
        max(bar.get_x() + bar.get_width() for bar in axis.patches if round(bar.get_y() + 0.35) == row) for row in (0, 1)
    ]
    assert ends == pytest.approx([60, 25])  # 24 and 10 of 40
    labels = [label.get_text().replace("\xa0", " ") for label in axis.get_yticklabels()]  # no break within "n = 40"
    assert labels == ["base, text (n = 40)", "base, image (n = 40)"]
