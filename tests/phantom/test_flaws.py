"""Flaws of machine-written questions: labels that are wrong the same way, and options that give the answer away."""

from collections import Counter

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.phantom.rationale import judge
from medvlt_lib.phantom.shortcuts import best_shortcut

# Written by hand from the families' scales and from anatomy: what a writer with the habit reads.
HABITS = {
    "cardiothoracic_ratio": {"40%": "45%", "50%": "55%", "60%": "65%", "65%": "60%"},
    "nodule_count": {"0": "1", "3": "4", "4": "3"},
    "cup_to_disc_ratio": {"0.2": "0.3", "0.8": "0.7"},
    "lesion_size": {"8 mm": "14 mm", "32 mm": "26 mm"},
    "dark_nuclei": {"1": "2", "5": "4"},
    "lesion_site": {"left frontal": "right frontal", "right occipital": "left occipital"},
    "midline_shift": {"8 mm left": "8 mm right", "16 mm right": "16 mm left"},
    "bleed_type": {"epidural": "subdural", "subdural": "epidural", "intraventricular": "intracerebral"},
}


def true_text(question):
    family = FAMILIES[question.family]
    return family.text(family.rule(question.extra["facts"]))


def test_a_systematic_mistake_is_the_same_wherever_it_is_made():
    noisy = make_questions("image", "train", 600, seed=3, label_noise=0.6, noise_kind="systematic")
    read_as = {}
    for q in (q for q in noisy if q.noise["label"]):
        assert read_as.setdefault((q.family, true_text(q)), q.answer) == q.answer
    assert sum(q.noise["label"] for q in noisy) == 360
    for family, habit in HABITS.items():
        for true, mistaken in habit.items():
            assert read_as[family, true] == mistaken
    assert ("bleed_type", "none") not in read_as
    assert ("midline_shift", "none") not in read_as


def test_a_random_mistake_is_not():
    noisy = make_questions("cup_to_disc_ratio", "train", 200, seed=3, label_noise=0.6)
    answers = Counter((true_text(q), q.answer) for q in noisy if q.noise["label"])
    assert len({answer for true, answer in answers if true == "0.5"}) > 3


def test_the_trace_argues_for_the_systematic_mistake_and_the_facts_contradict_it():
    for q in make_questions("image", "train", 160, seed=4, label_noise=0.5, noise_kind="systematic"):
        said = judge(q.reasoning, q.family, q.extra["facts"], q.options)
        assert said.grounded != q.noise["label"]
        if q.noise["label"]:
            assert q.reasoning.endswith(f" {q.answer} yes.")
            assert q.reasoning.split(". ")[len(q.extra["steps"]) - 1].endswith(q.answer)
            assert q.options[q.answer_label] == q.answer
            assert true_text(q) in q.options.values()
            assert len(set(q.options.values())) == len(q.options)


def test_what_is_not_labelled_wrong_stays_as_it_was():
    clean = make_questions("image", "train", 80, seed=5)
    noisy = make_questions("image", "train", 80, seed=5, label_noise=0.25, noise_kind="systematic")
    assert [q for q in noisy if not q.noise["label"]] == [
        c for c, q in zip(clean, noisy, strict=True) if not q.noise["label"]
    ]
    assert [q.extra["facts"] for q in noisy] == [q.extra["facts"] for q in clean]


def test_a_question_that_is_given_away_has_one_option_of_its_kind():
    questions = make_questions("image", "train", 200, seed=6, given_away=0.3)
    easy = [q for q in questions if q.extra.get("given_away")]
    assert len(easy) == 60
    for q in easy:
        own = {FAMILIES[q.family].text(v) for v in FAMILIES[q.family].values}
        assert [text for text in q.options.values() if text in own] == [q.answer] == [true_text(q)]


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.36), (0.3, 0.48, 0.7), (0.6, 0.66, 0.9)])
def test_the_shortcuts_find_what_is_given_away(share, low, high):
    """With the options alone; of two to five options the right one is guessed in 31 % of questions."""
    questions = make_questions("cardiothoracic_ratio,nodule_count,cup_to_disc_ratio", "train", 900, 7, given_away=share)
    assert low < best_shortcut(questions)[1] < high


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"noise_kind": "wild"}, "wild"),
        ({"given_away": 1.5}, "given_away"),
        ({"given_away": 0.5, "split": "test"}, "only training"),
        ({"families": "bleed_type", "label_noise": 1.0, "noise_kind": "systematic"}, "systematic mistake"),
    ],
)
def test_impossible_flaws_are_one_sentence(arguments, word):
    with pytest.raises(UserError, match=word):
        make_questions(**{"families": "image", "n": 50, **arguments})
