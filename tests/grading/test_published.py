"""The published rules, against vectors obtained by executing the released functions (gold B, "Lung") and by hand."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import Question
from medvlt_lib.grading.grade import grade, truncated, well_formed
from medvlt_lib.grading.published import (
    medvlm_r1_accuracy,
    medvlm_r1_letter,
    medvlm_r1_reward,
    medvlthinker_reward,
    online_answer,
    regrade_answer,
    same_answer,
)


@pytest.fixture
def question() -> Question:
    return Question("q", "d", "test", "text", "Which organ?", {"A": "Heart", "B": "Lung", "C": "Liver"}, "B", "Lung")


# response, training reward, online grade, re-grade
MEDVLTHINKER = [
    ("<think>x</think>\n<answer>B</answer>", 1, 1, 1),
    ("<think></think><answer>b</answer>", 1, 1, 1),
    ("<think>x</think><answer>B. Lung</answer>", 1, 1, 1),
    ("<think>x</think><answer>lung</answer>", 1, 1, 1),
    ("<think>x</think><answer>B.</answer>", 0, 0, 0),
    ("<think>x</think><answer>B) Lung</answer>", 0, 0, 0),
    ("<think>x</think><answer>B: Lung</answer>", 0, 0, 0),
    ("<think>x</think><answer>\nB\n</answer>", 0, 1, 1),
    (" <think>x</think>\n<answer>B</answer>", 0, 1, 1),
    ("<think>x</think>\n<answer>B</answer>\n", 0, 1, 1),
    ("<answer>B</answer>", 0, 1, 1),
    ("<think>x</think> so <answer>B</answer>", 0, 1, 1),
    ("<think>x</think><answer>B</answer><answer>A</answer>", 1, 1, 0),
    ("<think>x</think><answer>A</answer><answer>B</answer>", 0, 0, 1),
    ("<think>x</think><answer>B\nbecause</answer>", 0, 0, 1),
    ("The answer is B", 0, 0, 1),
    ("The answer is: B", 0, 0, 1),
    ("Final Answer: B. Lung", 0, 0, 1),
    ("The answer is B.", 0, 0, 0),
    ("B", 0, 1, 1),
    ("<think>a</think> no tags, it is: lung", 0, 0, 1),
    ("<think>cut off", 0, 0, 0),
]


@pytest.mark.parametrize(("response", "reward", "online", "regraded"), MEDVLTHINKER)
def test_medvlthinker_rules(question, response, reward, online, regraded):
    assert medvlthinker_reward(response, "B", "Lung") == reward
    assert same_answer(online_answer(response), "B", "Lung") == online
    assert same_answer(regrade_answer(response)[0], "B", "Lung") == regraded
    verdict = grade(response, question)
    assert (verdict.reward, verdict.online, verdict.correct) == (reward, bool(online), bool(regraded))


# response, accuracy, format, evaluation letter: worked out by hand from the released rules (gold B)
MEDVLM_R1 = [
    ("<think>x</think>\n<answer>B</answer>", 1.0, 1.0, "B"),
    ("<think>x</think><answer> b </answer>", 1.0, 1.0, None),
    ("<think>x</think><answer>(B)</answer>", 0.5, 1.0, None),
    ("<think>x</think><answer>B.</answer>", 0.5, 1.0, None),
    ("<think>x</think><answer>B) no nut</answer>", 0.5, 1.0, None),
    ("<think>x</think><answer>B. Lung</answer>", 0.0, 1.0, None),  # the g of "Lung" is a second character in A-J
    ("<think>x</think><answer>BB</answer>", 0.0, 1.0, None),
    ("<think>x</think><answer>A</answer>", 0.0, 1.0, "A"),
    ("<think>x</think><answer></answer>", 0.0, 1.0, None),
    ("<ANSWER>B</ANSWER>", 1.0, 0.0, None),
    ("<answer>\nB\n</answer>", 1.0, 0.0, "B"),
    ("<think>x</think><answer>B</answer> ok", 1.0, 0.0, "B"),
    ("<answer>A or C</answer><answer>B</answer>", 0.0, 0.0, "B"),
    ("B", 0.0, 0.0, None),
]


@pytest.mark.parametrize(("response", "accuracy", "form", "letter"), MEDVLM_R1)
def test_medvlm_r1_rules(question, response, accuracy, form, letter):
    assert medvlm_r1_accuracy(response, "B") == accuracy
    assert medvlm_r1_reward(response, "B") == accuracy + form
    assert medvlm_r1_letter(response) == letter
    verdict = grade(response, question, "published-medvlm-r1")
    assert (verdict.reward, verdict.correct, verdict.letter) == (accuracy + form, letter == "B", letter)


def test_prediction_is_mapped_to_a_letter_by_any_option(question):
    assert grade("<think>x</think><answer>liver</answer>", question).letter == "C"
    assert grade("<think>x</think><answer>spleen</answer>", question).letter is None


@pytest.mark.parametrize(
    ("response", "reason", "expected"),
    [
        ("<think>a</think><answer>B</answer>", None, False),
        ("<think>a", None, True),
        ("<think>a</think><answer>B", None, True),
        ("B", "length", True),
        ("B", "stop", False),
    ],
)
def test_truncation(response, reason, expected):
    assert truncated(response, reason) is expected


def test_form_follows_the_prompt_style():
    assert well_formed("<answer> B </answer>", "no-think")
    assert not well_formed("<answer> B </answer>")


def test_unknown_grader_is_named(question):
    with pytest.raises(UserError, match="lenient"):
        grade("B", question, "lenient")


@given(st.text(alphabet=st.sampled_from(list("<>/thinkanswer AB.:\n")), max_size=80))
def test_never_raises_and_reward_implies_online(response):
    q = Question("q", "d", "test", "text", "?", {"A": "Heart", "B": "Lung"}, "B", "Lung")
    verdict = grade(response, q)
    assert not verdict.reward or verdict.online  # the reward's answer is the online answer, in stricter form
    grade(response, q, "published-medvlm-r1")


# The released functions' regular expressions, which take quadratic time on hostile text; ours must say the same.
FORM = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
ONE_LINE = re.compile(r"<answer>(.*?)</answer>")
OVER_LINES = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
ANY_CASE = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<ANSWER>",
    "</Answer>",
    "A",
    "b",
    "B. Lung",
    "lung",
    " ",
    "\n",
    "\r",
    "\u2028",
    "<",
    "answer: ",
    "is: ",
]


@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join))
@settings(max_examples=1500)
def test_linear_rules_equal_the_released_expressions(response):
    assert well_formed(response) == bool(FORM.fullmatch(response))
    assert well_formed(response, "no-think") == bool(re.fullmatch(r"\s*<answer>.*?</answer>\s*", response, re.DOTALL))
    found = ONE_LINE.search(response)
    right = same_answer(found.group(1) if found else response, "B", "Lung")
    assert medvlthinker_reward(response, "B", "Lung") == float(bool(FORM.fullmatch(response)) and right)
    found = OVER_LINES.search(response)
    assert online_answer(response) == (found.group(1) if found else response).strip()
    blocks = OVER_LINES.findall(response)
    if blocks:
        lines = [line.strip() for line in blocks[-1].splitlines() if line.strip()]
        assert regrade_answer(response) == (
            re.sub(r"</?(?:think|answer)>", "", lines[0] if lines else "").strip(),
            "tag",
        )
    else:
        assert regrade_answer(response)[1] != "tag"
    found = ANY_CASE.search(response)
    content = found.group(1).strip() if found else ""
    letters = re.findall("[A-J]", content.upper())
    assert medvlm_r1_accuracy(response, "B") == (0.0 if letters != ["B"] else 1.0 if len(content) == 1 else 0.5)
