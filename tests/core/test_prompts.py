"""The published prompts, character for character."""

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.prompts import messages, prompt_text, target
from medvlt_lib.core.records import Question

QUESTION = Question(
    "q", "d", "test", "image", "Which organ?", {"A": "Heart", "B": "Lung"}, "B", "Lung", images=["x.png"]
)


def test_medvlthinker_prompt_has_a_literal_backslash_n():
    assert prompt_text(QUESTION) == (
        "You will solve a problem/request. You should provide your thoughts within <think> </think> tags before "
        "providing "
        "the answer.\\nWrite your final answer within <answer> </answer> tags."
        "\n\nQuestion: Which organ?\n\nOptions:\n\nA. Heart\n\nB. Lung"
    )


def test_medvlm_r1_prompt_keeps_indents_and_trailing_blanks():
    assert prompt_text(QUESTION, "medvlm-r1").split("\n") == [
        "",
        "        Which organ?",
        "A) Heart",
        "B) Lung ",
        "        Your task: ",
        "        1. Think through the question step by step, "
        "enclose your reasoning process in <think>...</think> tags. ",
        "        2. Then provide the correct single-letter choice (A, B, C, D,...) inside <answer>...</answer> tags.",
        "        3. No extra information or text outside of these tags.",
        "        ",
    ]


@pytest.mark.parametrize("style", ["medvlthinker", "medvlm-r1", "no-think"])
def test_images_come_first_in_one_user_turn(style):
    (turn,) = messages(QUESTION, style)
    assert turn["role"] == "user"
    assert [part["type"] for part in turn["content"]] == ["image", "text"]


def test_targets():
    assert target(" because ", "B") == "<think> because </think>\n<answer> B </answer>"
    assert target("because", "B", "no-think") == "<answer> B </answer>"


def test_unknown_style_is_named():
    with pytest.raises(UserError, match="haiku"):
        prompt_text(QUESTION, "haiku")
