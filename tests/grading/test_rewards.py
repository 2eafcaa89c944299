"""The rewards as TRL calls them: the graders' own vectors, completions as texts and as messages, and scaling."""

import importlib.util
import json
import statistics
from pathlib import Path

import pytest

from medvlt_lib.grading import rewards
from tests.grading.test_published import MEDVLM_R1, MEDVLTHINKER

OPTIONS = json.dumps({"A": "Heart", "B": "Lung", "C": "Liver"})


def paid(reward, *responses: str, **more) -> list[float]:
    """What responses to one question earn (gold B, Lung); as messages they earn the same."""
    columns = {"answer_label": ["B"], "answer": ["Lung"], "options": [OPTIONS]}
    columns = {name: value * len(responses) for name, value in columns.items()} | more
    messages = [[{"role": "assistant", "content": response}] for response in responses]
    values = reward(completions=list(responses), prompts=[], **columns)
    assert values == reward(completions=messages, prompts=[], **columns)
    return values


def test_the_published_vectors_are_the_rewards():
    assert paid(rewards.published, *(v[0] for v in MEDVLTHINKER)) == [v[1] for v in MEDVLTHINKER]
    assert paid(rewards.published_signed, *(v[0] for v in MEDVLTHINKER)) == [1 if v[1] else -1 for v in MEDVLTHINKER]
    assert paid(rewards.published_medvlm_r1, *(v[0] for v in MEDVLM_R1)) == [v[1] + v[2] for v in MEDVLM_R1]


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("<think>x</think><answer>B.</answer>", 1),
        ("<think>x</think><answer>B) Lung</answer>", 1),
        ("<think>x</think> so <ANSWER>lung</ANSWER>", 1),
        ("<think>x</think><answer>A</answer>", 0),
        ("<think>x</think><answer>B or C</answer>", 0),
        ("<think>The answer is B</think><answer></answer>", 0),
    ],
)
def test_tolerant_pays_for_any_clear_wording(response, value):
    assert paid(rewards.tolerant, response) == [value]


@pytest.mark.parametrize(
    "response", ["B", "The answer is B", "<think>x</think><answer>B", "<think>x <answer>B</answer>", "\\boxed{B}"]
)
def test_without_a_closing_tag_nothing_is_earned(response):
    for reward in (rewards.published, rewards.published_signed, rewards.published_medvlm_r1, rewards.tolerant):
        if (reward, response) != (rewards.published_medvlm_r1, "<think>x <answer>B</answer>"):  # its rule: see C4
            assert paid(reward, response)[0] <= 0


def test_overlong_falls_in_a_line_from_the_soft_limit_to_the_cap():
    lengths = {0: 0, 79: 0, 80: 0, 85: -0.25, 90: -0.5, 99: -0.95, 100: -1, 130: -1}
    completions = [[7] * n for n in lengths]
    assert rewards.overlong(completion_ids=completions, soft_limit=80, cap=100) == pytest.approx(list(lengths.values()))


def test_overlong_is_trl_s_for_every_length():
    path = Path(importlib.util.find_spec("trl").origin).parent / "rewards" / "other_rewards.py"
    spec = importlib.util.spec_from_file_location("other_rewards", path)  # without TRL's and torch's slow import
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    completions = [[7] * n for n in range(60)]
    theirs = module.get_soft_overlong_punishment(50, 10)(completion_ids=completions)
    assert rewards.overlong(completion_ids=completions, soft_limit=40, cap=50) == pytest.approx(theirs)


def advantages(values: list[float], scaled: bool) -> list[float]:
    """TRL's: the distance from the group's mean, over its deviation + 1e-4 where rewards are scaled by group."""
    deviation = statistics.stdev(values) + 1e-4 if scaled else 1.0
    return [(value - statistics.mean(values)) / deviation for value in values]


@pytest.mark.parametrize("right", range(1, 8))
def test_plus_minus_one_equals_one_zero_under_group_scaling_and_not_without(right):
    responses = ["<think>x</think><answer>B</answer>"] * right + ["<think>x</think><answer>C</answer>"] * (8 - right)
    plain, signed = paid(rewards.published, *responses), paid(rewards.published_signed, *responses)
    deviation = statistics.stdev(plain)
    eps = (deviation + 1e-4) / (deviation + 0.5e-4)  # twice the deviation beside the same 1e-4
    assert advantages(signed, scaled=True) == pytest.approx([eps * a for a in advantages(plain, scaled=True)], rel=1e-9)
    assert 1 < eps < 1.00015
    assert advantages(signed, scaled=False) == pytest.approx([2 * a for a in advantages(plain, scaled=False)], rel=1e-9)
