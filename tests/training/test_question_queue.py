"""Which questions GRPO asks next."""

import json
from statistics import fmean

import numpy as np
import pytest
from scipy.stats import beta
from trl.trainer.utils import RepeatSampler

from medvlt_lib.training.question_queue import FORGETTING, QuestionQueue


def test_the_shuffled_order_is_that_of_trls_sampler():
    """Three times through eleven questions, four a step: each time three are left out, as TRL does."""
    theirs = RepeatSampler(range(11), mini_repeat_count=1, batch_size=4, repeat_count=1, seed=7)
    queue = QuestionQueue(11, seed=7)
    for _ in range(3):
        expected = list(theirs)
        assert [*queue.take(4), *queue.take(4)] == expected


def test_easy_questions_come_first():
    counts = [(1, 16), (9, 16), (5, 16), (12, 16), (5, 16)]
    for seed in range(4):
        line = QuestionQueue(5, "easy-first", seed, counts).take(5)
        assert line[:2] == [3, 1] and set(line[2:4]) == {2, 4} and line[4] == 0


def test_worth_is_the_expected_variance_of_a_reward():
    """Against the mean of p(1 - p) under scipy's Beta distribution."""
    queue = QuestionQueue(3, "online", 0, [(0, 0), (3, 16), (16, 16)])
    expected = [beta(1 + r, 1 + n - r).expect(lambda p: p * (1 - p)) for r, n in ((0, 0), (3, 16), (16, 16))]
    assert queue.worth() == pytest.approx(expected, rel=1e-6)


def test_online_asks_questions_of_middling_difficulty():
    """Of 40 questions whose pass rates go from 0 to 1, those near one half are asked most, once that is known.

    Drawn in proportion to v = p(1 - p), the mean variance is E[v^2] / E[v] = (1/30) / (1/6), 1.2 times that of chance.
    """
    rates = np.linspace(0, 1, 40)
    queue, random = QuestionQueue(40, "online", seed=1), np.random.default_rng(5)
    asked = []
    for step in range(120):
        chosen = queue.take(8)
        assert len(set(chosen)) == 8
        queue.learn(chosen, random.binomial(16, rates[chosen]).tolist(), 16)
        if step >= 40:
            asked.extend(chosen)
    variance = fmean(rates[asked] * (1 - rates[asked]))
    assert variance > 1.15 * fmean(rates * (1 - rates))


def test_what_was_counted_fades():
    queue = QuestionQueue(2, "online", 0, [(8, 16), (8, 16)])
    queue.learn([0], [4], 16)
    assert queue.right.tolist() == pytest.approx([8 * FORGETTING + 4, 8 * FORGETTING])
    assert queue.wrong.tolist() == pytest.approx([8 * FORGETTING + 12, 8 * FORGETTING])
    for _ in range(1000):
        queue.learn([], [], 16)
    assert queue.worth() == pytest.approx(1 / 6, rel=1e-4)  # nothing is known any more: the variance under a flat prior


@pytest.mark.parametrize("order", ["shuffled", "easy-first", "online"])
def test_a_restored_queue_goes_on_as_the_first_would(order):
    def new():
        return QuestionQueue(10, order, 3, [(i, 16) for i in range(10)])

    def step(queue):
        chosen = queue.take(4)
        queue.learn(chosen, [c % 5 for c in chosen], 16)
        return chosen

    unbroken, killed, resumed = new(), new(), new()
    expected = [step(unbroken) for _ in range(12)]
    assert [step(killed) for _ in range(7)] == expected[:7]
    resumed.restore(json.loads(json.dumps(killed.state())))
    assert [step(resumed) for _ in range(5)] == expected[7:]
    assert resumed.taken == 48


@pytest.mark.parametrize("order", ["shuffled", "easy-first", "online"])
def test_no_step_asks_a_question_twice(order):
    """Neither at once nor when groups are replaced, also where the line ends within a step."""
    queue = QuestionQueue(7, order, 2, [(i, 16) for i in range(7)])
    for _ in range(40):
        first = queue.take(3)
        second = queue.take(2, first)
        third = queue.take(2, [*first, *second])
        assert sorted([*first, *second, *third]) == list(range(7))
        with pytest.raises(ValueError, match="8 different questions were asked of 7"):
            queue.take(1, [*first, *second, *third])


def test_the_line_is_the_same_where_no_question_would_be_asked_again():
    plain, told = QuestionQueue(12, seed=3), QuestionQueue(12, seed=3)
    for _ in range(9):
        first = plain.take(4)
        assert told.take(4) == first
        if plain.place < 12:
            assert told.take(2, first) == plain.take(2)


def test_more_questions_than_there_are_is_an_error():
    queue = QuestionQueue(5)
    with pytest.raises(ValueError, match="6 different questions were asked of 5"):
        queue.take(6)
