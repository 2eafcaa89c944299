"""The tolerant grader: right on how models answer, and never a guess. Gold is B, "Lung"."""

import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medvlt_lib.grading.grade import grade_response
from medvlt_lib.grading.tolerant import outside_thinking, tolerant_answer

OPTIONS = {"A": "Heart", "B": "Lung", "C": "Liver", "D": "Small bowel, distal"}

STATED = [
    ("<think>x</think><answer>B</answer>", "B"),
    ("<answer>b</answer>", "B"),
    ("<answer>\nB\n</answer>", "B"),
    ("<answer>B.</answer>", "B"),
    ("<answer>(B)</answer>", "B"),
    ("<answer>B) Lung</answer>", "B"),
    ("<answer>B: Lung</answer>", "B"),
    ("<answer>B - Lung</answer>", "B"),
    ("<answer>B Lung</answer>", "B"),
    ("<answer>Option B</answer>", "B"),
    ("<answer>The lung.</answer>", "B"),
    ("<answer>LUNG</answer>", "B"),
    ("<answer>B\nbecause the film is dark</answer>", "B"),
    ("<answer>The correct answer is B.</answer>", "B"),
    ("<ANSWER>B</ANSWER>", "B"),
    ("<answer>B", "B"),
    ("(B)", "B"),
    ("B)", "B"),
    ("B.", "B"),
    ("**B**", "B"),
    ("**B.** Lung", "B"),
    ("B: Lung", "B"),
    ("B, because the film is dark.", "B"),
    ("lung", "B"),
    ("Lung.", "B"),
    ("small bowel distal", "D"),
    ("D. Small-bowel, distal", "D"),
    ("\\boxed{B}", "B"),
    ("So we get $\\boxed{\\text{B}}$.", "B"),
    ("\\boxed{\\text{(B) Lung}}", "B"),
    ("The answer is $\\mathrm{B}$.", "B"),
    ('{"answer": "B"}', "B"),
    ('```json\n{"reasoning": "dark film", "answer": "B"}\n```', "B"),
    ('{"answer": "B. Lung", "confidence": 0.9}', "B"),
    ('{"final_answer":"B"}', "B"),
    ("The correct option is B", "B"),
    ("The correct option is (B).", "B"),
    ("The answer is B.", "B"),
    ("The answer is: B", "B"),
    ("**Answer:** B", "B"),
    ("**Final answer: B**", "B"),
    ("Answer: (B) Lung", "B"),
    ("The film is dark and so\nthe best answer is B, since air is dark.", "B"),
    ("The answer is therefore B", "B"),
    ("The answer to this question is **lung**.", "B"),
    ("The most likely diagnosis is lung.", "B"),
    ("I would choose option B.", "B"),
    ("I select B", "B"),
    ("Option B is correct.", "B"),
    ("B is the correct answer.", "B"),
    ("It shows air. (B) is the most likely correct choice.", "B"),
    ("Not A but B", "B"),
    ("The answer is not A but B.", "B"),
    ("The answer is not heart, but lung", "B"),
    ("The answer is B, not A.", "B"),
    ("Ｂ", "B"),
    ("（Ｂ）", "B"),
    ("The answer is Ｂ．", "B"),
    ("B) Lung\n\nThe film is dark, as air is.", "B"),
    ("The film is dark.\n\nB", "B"),
    ("A\n", "A"),
    ("The answer is A.", "A"),
    ("The answer is a.", None),
    ("<think>The answer is A</think>The answer is B", "B"),
    ("<think>The answer is A <answer>B</answer>", "B"),
    ("thinking without an opening tag: A</think>B", "B"),
    ("Lung (B)", "B"),
    ("The answer is A because the film is bright.", "A"),
    ("B is my final answer.", "B"),
    ("Ans: B", "B"),
    ("I'd go with B", "B"),
    ("It is B.", "B"),
    ("Therefore, B.", "B"),
    ("Final answer - B", "B"),
    ("→ B", "B"),
    ("- B", "B"),
    ("<final_answer>B</final_answer>", "B"),
    ("<b>B</b>", "B"),
    ("B</answer>", "B"),
    ("B<|im_end|>", "B"),
    ("B\u200b", "B"),
    ("𝐁", "B"),
    ("B。", "B"),
    ("Final Answer:\n\nB", "B"),
    ("The answer is B and not A.", "B"),
    ("not A; it is B", "B"),
    ("The answer is B. The heart is normal.", "B"),
    ("The answer is lung, as air is dark.", "B"),
    ("The correct answer is B) Lung.\n\nIncorrect options:\nA) Heart: bright.\nC) Liver: solid.", "B"),
    ("<think>x</think>\n<answer>B</answer>\nOther options:\nA. Heart is bright.", "B"),
    ("Answer: B. Option A would be correct if the film was bright.", "B"),
    ("Answer: B. With fever the correct answer would be D.", "B"),
    ("Answer: B. The second best answer is A.", "B"),
    ("Answer: B. The incorrect option is A.", "B"),
    ('{"answer":"B","options":{"A":"Heart","B":"Lung"}}', "B"),
    ('{"answer":"B","rejected_options":["A"]}', "B"),
    ('{"answer":"B","second_choice":"C"}', "B"),
    ('{"thinking":"the answer is A","answer":"B"}', "B"),
    # several answers: the last stated wins
    ("The answer is A. Wait. The answer is B.", "B"),
    ("<answer>A</answer> no, <answer>B</answer>", "B"),
    ("<answer>A</answer> The correct answer is B.", "B"),
]

UNSTATED = [
    "",
    "   ",
    "I am not sure.",
    "A tumour of the lung is seen.",
    "The answer is a tumour.",
    "The answer is A tumour.",
    "A lung lesion",
    "I think so.",
    "B or C",
    "B and C",
    "A, B",
    "Both A and B",
    "The answer is B or C.",
    "Not B",
    "The answer is not B.",
    "The answer cannot be B.",
    "B is not correct.",
    "Option B is incorrect.",
    "If the answer is B, the film is dark.",
    "Is the answer B?",
    "E",
    "<answer>E</answer>",
    "The answer is F.",
    "<answer></answer>",
    "<answer>I cannot tell</answer>",
    "The answer is B. <answer>none of these</answer>",
    "<answer>B: Heart</answer>",
    "A. Heart\nB. Lung\nC. Liver\nD. Small bowel, distal",
    "Options: A. Heart B. Lung C. Liver",
    "Option A: Heart\nOption B: Lung",
    "Answer choices: A. Heart B. Lung",
    "<think>The answer is B",
    "<think>B",
    "<think>The answer is B</think>",
    "The answer is B</think>",
    "Vitamin B is low.",
    "The answer is B cells.",
    "The patient has B symptoms and the heart is large.",
    "Answer choices:\nA. Heart\nB. Lung\nC. Liver",
    "Rejected options: A (bright), C (solid)",
    "Neither A nor C is correct.",
    "None of A, C, or D is correct.",
    "I don't think the answer is B.",
    "I doubt the answer is B.",
    "I can't select B",
    "The wrong answer is B.",
    "The least likely option is B.",
    "A or B is correct.",
    "Hepatitis B is the correct diagnosis.",
    "Statement A is correct because of the film.",
    "A is correct only if the film is bright.",
    "With fever the correct answer would be D.",
    "Students often choose A.",
    "Many think the answer is B. This is incorrect.",
    "The answer could be B.",
    "The answer might be B.",
    '{"thinking":"the answer is A","answer":null}',
    "The answer is A. On reflection, the answer is B or C.",
    "The answer is A. On reflection, the answer is E.",
    "Answer: (B), (C)",
    "Answer: B; C",
    "The answer is lung, liver.",
    "The answer is heart or liver.",
    "<answer>B) is wrong</answer>",
    "<answer>B: or maybe C</answer>",
    "<answer>C. difficile</answer>",
    "<answer>B. Heart, because of the shape</answer>",
    "The answer is C. difficile colitis.",
    "A\n\npatient with a cough.".replace("\n\n", "\n"),
    "<reasoning>The answer is B",
    "◁think▷The answer is B",
    "<think\n>The answer is B",
    "Okay, maybe the answer is B.",
]


@pytest.mark.parametrize(("response", "letter"), STATED)
def test_stated_answers_are_read(response, letter):
    assert tolerant_answer(response, OPTIONS)[0] == letter


@pytest.mark.parametrize("response", UNSTATED)
def test_nothing_is_guessed(response):
    assert tolerant_answer(response, OPTIONS) == (None, "no answer")
    verdict = grade_response(response, OPTIONS, "B", "tolerant")
    assert (verdict.letter, verdict.correct, verdict.reward, verdict.online) == (None, False, None, None)


def test_contradictions_are_flagged():
    assert tolerant_answer("The answer is A. Wait. The answer is B.", OPTIONS) == ("B", "sentence, contradicted")
    assert tolerant_answer("<answer>B</answer> The answer is B.", OPTIONS) == ("B", "sentence")


def test_of_a_response_cut_by_its_limit_only_what_is_closed_counts():
    for closed in ("<answer>B</answer> and", "<answer>B</answer> <answer>C", "\\boxed{B} and", '{"answer": "B"} and'):
        assert tolerant_answer(closed, OPTIONS, "length")[0] == "B"
    for stated in ("<answer>B", "\\boxed{B", '{"answer": "B"', "The answer is B. It", "B", "B. Lung", "A. Heart"):
        assert tolerant_answer(stated, OPTIONS, "length") == (None, "no answer")


def test_numbers_keep_their_points_and_signs():
    numbers = {"A": "2.5", "B": "25", "C": "-5", "D": "5"}
    for letter, text in numbers.items():
        assert tolerant_answer(f"<answer>{text}</answer>", numbers)[0] == letter
        assert tolerant_answer(f"The answer is {text}.", numbers)[0] == letter


@pytest.mark.parametrize(
    ("options", "response", "letter"),
    [
        ({"A": "<5 mm", "B": ">5 mm"}, "<answer>A. <5 mm</answer>", "A"),
        ({"A": "<5 mm", "B": ">5 mm"}, "The answer is >5 mm", "B"),
        ({"A": "<5 mm", "B": "10 mm"}, "The answer is >5 mm", None),
        ({"A": "5 mg", "B": "0.5 mg"}, "The answer is .5 mg", None),
        ({"A": "Yes", "B": "No"}, "Yes, there is a fracture.", "A"),
        ({"A": "Yes", "B": "No"}, "<answer>No, it is not</answer>", "B"),
        ({"A": "Yes", "B": "No"}, "There is no fracture.", None),
        ({"A": "O", "B": "AB"}, "<answer>O</answer>", "A"),
        ({"A": "Left lung", "B": "Left lung, upper lobe"}, "The answer is left lung, upper lobe.", "B"),
        ({"A": "Left lung", "B": "Left lung, upper lobe"}, "<answer>B. Left lung, upper lobe</answer>", "B"),
        ({"A": "Left lung", "B": "Right lung"}, "The answer is left lung, right lung", None),
        ({"A": "Left lung", "B": "Right lung"}, "The answer is left lung as well as the right lung", None),
        ({"A": "10 mg", "B": "20 mg"}, "\\boxed{10\\,\\mathrm{mg}}", "A"),
        ({"A": "1", "B": "2", "C": "3"}, "Here is the answer:\n1. The film is dark.", None),
        ({"A": "1", "B": "2", "C": "3"}, "The answer is 2, 3.", None),
        ({"A": "Lung carcinoma", "B": "Heart failure"}, "<answer>A. carcinoma of the lung</answer>", "A"),
        ({"A": "B", "B": "A"}, "A is correct.", None),
        ({"A": "Hepatitis B", "B": "Hepatitis A"}, "The answer is Hepatitis B.", "A"),
    ],
)
def test_options_of_many_kinds(options, response, letter):
    assert tolerant_answer(response, options)[0] == letter


def test_options_that_read_alike_are_told_apart_by_letter_or_to_the_letter():
    alike = {"A": "Lung", "B": "lung."}
    assert tolerant_answer("<answer>lung</answer>", alike)[0] == "A"  # as the published rule reads it
    assert tolerant_answer("<answer>lung.</answer>", alike)[0] == "B"
    assert tolerant_answer("<answer>lung!</answer>", alike)[0] is None
    assert tolerant_answer("<answer>lung</answer>", {"A": "Lung", "B": "lung"})[0] is None
    assert tolerant_answer("<answer>B</answer>", alike)[0] == "B"


def test_letter_options_that_swap_letters_are_ambiguous():
    assert tolerant_answer("<answer>B</answer>", {"A": "B", "B": "A"})[0] is None


def _stands_outside(response: str, letter: str, text: str) -> bool:
    """By other means than the grader's: whether the gold letter or text stands outside the thinking."""
    plain = unicodedata.normalize("NFKC", response)
    pieces = re.split(r"(?i)(</?think(?:ing)?>)", plain)
    outside, depth = [], 0
    for i, piece in enumerate(pieces):
        if i % 2 == 0 and not depth:
            outside.append(piece)
        elif i % 2:
            closing = piece.startswith("</")
            if closing and not depth:
                outside = []
            depth = 0 if closing else 1
    words = re.findall(r"\w+", " ".join(outside).casefold())
    gold = re.findall(r"\w+", text.casefold())
    return letter.casefold() in words or any(words[i : i + len(gold)] == gold for i in range(len(words)))


PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "A",
    "B",
    "b",
    "C",
    "E",
    "Lung",
    "heart",
    " ",
    "\n",
    ".",
    ")",
    "(",
    ":",
    "**",
    "The answer is ",
    "not ",
    "but ",
    "or ",
    "\\boxed{",
    "}",
    '{"answer": "',
    '"',
    "is correct",
    "option ",
    "I choose ",
    "Ｂ",
    "a tumour",
    "because ",
    "?",
    "$",
    "ſ",
    "İ",
]


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=14).map("".join)))
@example("<think>B</think>")
@settings(max_examples=600, deadline=None)
def test_never_raises_and_never_correct_without_the_gold(response):
    for grader in ("published", "published-medvlm-r1", "tolerant"):
        verdict = grade_response(response, OPTIONS, "B", grader)
        assert verdict.letter is None or verdict.letter in "ABCDEFGHIJ"
    if verdict.correct:
        assert _stands_outside(response, "B", "Lung")


@given(st.text(alphabet="<>/thinkTHINKg AB", max_size=60))
def test_what_is_outside_the_thinking_is_in_the_response(response):
    assert all(piece in response for piece in outside_thinking(response).split("\n"))


HOSTILE = [
    "<think>",
    "<answer>",
    "</answer>",
    "<answer></answer>",
    "\\boxed{",
    "answer is ",
    "answer: A or ",
    "The answer is not ",
    "correct ",
    "<think></think>",
    "</think><answer></answer>",
    "(",
    "not but ",
    "\n",
    "B) ",
    "Ｂ",
    "option is is is ",
    "a\u0300",
    "*B*\n",
    "is: ",
    "answer:",
    "A. x\nB. y\n",
    "A. Heart\nB. Lung\n",
    "no wait, ",
    "\nQuestion: ",
    '{"answer": "',
    "<|im_end|>",
    "答案是",
    "that is wrong. ",
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("grader", ["published", "published-medvlm-r1", "tolerant"])
def test_a_hostile_megabyte_is_read_in_linear_time(piece, grader):
    """Sixteen times the text takes sixteen times the processor's time, where quadratic reading would take 256 times."""

    def seconds(size: int, cut: int) -> float:
        text = ("<think>" + piece * (size // len(piece)) + "x")[cut:]
        started = time.process_time()
        grade_response(text, OPTIONS, "B", grader)
        return time.process_time() - started

    for cut in (0, len("<think>")):
        short = min(seconds(62_500, cut) for _ in range(3))
        assert min(seconds(1_000_000, cut) for _ in range(2)) < 64 * short + 0.05
