"""Steps checked against facts: clean, reordered and corrupted traces of every family, and a model's answers."""

import random
import re
from collections import Counter
from dataclasses import dataclass

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.phantom.rationale import grounded, judge
from medvlt_lib.phantom.teacher import own_trace
from medvlt_lib.training.rewarding import reward_columns

OTHER = {
    "left": "right", "right": "left", "top": "bottom", "bottom": "top", "middle": "top", "alert": "confused",
    "man": "woman", "woman": "man", "epidural": "subdural", "subdural": "none", "lens": "ball", "ball": "lens",
    "frontal": "temporal", "temporal": "occipital", "occipital": "frontal", "none": "epidural", "oriented": "silent",
    "open": "shut", "obeys": "withdraws", "still": "extends", "limp": "active", "active": "limp", "pink": "blue",
    "good": "slow", "slow": "absent", "absent": "good", "cry": "grimace", "grimace": "cry", "diabetes": "lupus",
    "stroke": "tremor", "hypertension": "fever", "gout": "stroke", "chest": "heart", "disc": "cup", "cup": "disc",
}  # fmt: skip


@dataclass
class Trace:
    """A trace with the one step in it that is false, if any."""

    question: object
    steps: list[str]
    false: str | None = None

    def judge(self):
        q = self.question
        return judge(own_trace(self.steps, q.options, q.answer), q.family, q.extra["facts"], q.options)


def summed(steps: list[str]) -> list[str]:
    """Steps in an order or a number of their own, with the running totals of a sum worked out anew."""
    parts = [re.fullmatch(r"(.+ )(\d+), total \d+", step) for step in steps]
    if not all(parts):
        return steps
    totals = [sum(int(part[2]) for part in parts[: i + 1]) for i in range(len(parts))]
    return [f"{part[1]}{part[2]}, total {total}" for part, total in zip(parts, totals, strict=True)]


def corruptions(steps: list[str], rng: random.Random):
    """Every number changed, every word that has another turned, every step denied: (all steps, the false one).

    Left out is what became a true step of another place, such as the same count of another corner."""
    parts = [step.partition(", total")[0] for step in steps]
    for i, step in enumerate(steps):
        changed = [f"not {step}"]
        for number in re.finditer(r"\d+", step):
            wrong = int(number[0]) + rng.choice([d for d in (-2, -1, 1, 2) if int(number[0]) + d >= 0])
            changed.append(step[: number.start()] + str(wrong) + step[number.end() :])
        for word in re.finditer(r"[a-z]+", step):
            if word[0] in OTHER:
                changed.append(step[: word.start()] + OTHER[word[0]] + step[word.end() :])
        for one in changed:
            if one.partition(", total")[0] in parts[:i] + parts[i + 1 :]:
                continue
            yield [*steps[:i], one, *steps[i + 1 :]], one


@pytest.fixture(scope="module")
def questions():
    return make_questions("all", "train", 352, seed=21)


@pytest.fixture(scope="module")
def traces(questions) -> list[Trace]:
    """Thousands of traces: as the teacher gives them, in another order, with one step made false, and with one of
    another question put in."""
    rng = random.Random(4)
    found = []
    for place, q in enumerate(questions):
        steps, other = q.extra["steps"], summed(rng.sample(q.extra["steps"], len(q.extra["steps"])))
        found += [Trace(q, steps), Trace(q, other)]
        found += [Trace(q, *pair) for pair in corruptions(steps, rng)]
        stranger = rng.choice(questions[place - 1].extra["steps"])  # of the family before
        at = rng.randint(0, len(steps))
        found.append(Trace(q, [*steps[:at], stranger, *steps[at:]], stranger))
    noisy = make_questions("all", "train", 352, seed=21, trace_noise=1.0)
    for clean, q in zip(questions, noisy, strict=True):
        (false,) = [b for a, b in zip(clean.extra["steps"], q.extra["steps"], strict=True) if a != b]
        found.append(Trace(q, q.extra["steps"], false))
    return found


def test_of_five_thousand_traces_none_is_misjudged(traces):
    assert len(traces) > 5000
    assert {t.question.family for t in traces if t.false is None} == set(FAMILIES)
    for t in traces:
        judgement = t.judge()
        assert judgement.grounded == (t.false is None), (t, judgement)
        assert [s.text for s in judgement.steps if s.verdict == "false"] == ([t.false] if t.false else []), t
        assert {s.verdict for s in judgement.steps if s.text != t.false} == {"true"}, (t, judgement)


def test_a_reordered_sum_with_one_wrong_total_is_false(questions):
    """Wrong where it stands, also where it is the vignette's own total at another place."""
    rng, seen = random.Random(5), 0
    for q in questions * 4:
        steps = summed(rng.sample(q.extra["steps"], len(q.extra["steps"])))
        if not all(", total " in step for step in steps):
            continue
        for step in q.extra["steps"]:
            own = next(i for i, s in enumerate(steps) if s.rpartition(",")[0] == step.rpartition(",")[0])
            if steps[own] != step:
                judgement = Trace(q, [*steps[:own], step, *steps[own + 1 :]]).judge()
                assert [s.text for s in judgement.steps if s.verdict == "false"] == [step]
                seen += 1
    assert seen > 500


def test_every_family_s_steps_are_known_as_steps_to_every_other(questions):
    """A family whose steps begin in a new way must be added to OPENINGS."""
    one = {q.family: q for q in questions}
    for q in questions:
        for family, other in one.items():
            if family != q.family:
                steps = judge(own_trace(q.extra["steps"], q.options, q.answer), family, other.extra["facts"], {}).steps
                working = [s for s in steps if s.kind != "option"]
                assert {s.kind for s in working} == {"working"}, (q.family, working)


@pytest.mark.parametrize("name", ["qsofa", "shock_index"])  # a sum, and a line of statements
def test_capital_letters_make_no_difference(name, monkeypatch):
    class Capitals(type(FAMILIES[name])):
        def steps(self, f):
            return [step.capitalize() for step in super().steps(f)]

    plain = make_questions(name, "train", 8, seed=3)
    monkeypatch.setitem(FAMILIES, name, Capitals())
    for q, shouted in zip(plain, make_questions(name, "train", 8, seed=3), strict=True):
        assert shouted.extra["steps"] != q.extra["steps"]
        assert Trace(q, q.extra["steps"]).judge().grounded
        assert Trace(shouted, shouted.extra["steps"]).judge().grounded
        assert not Trace(shouted, shouted.extra["steps"][1:]).judge().grounded


def test_all_the_working_and_the_letter_are_needed(questions):
    for q in questions:
        steps = q.extra["steps"]
        for i in range(len(steps)):
            judgement = Trace(q, summed(steps[:i] + steps[i + 1 :])).judge()
            assert not judgement.grounded
            assert judgement.missing == [re.sub(r", total \d+", "", steps[i])]
        assert judge(". ".join(steps) + ".", q.family, q.extra["facts"], q.options).letter is None


def test_a_glance_states_no_step(questions):
    for q in questions:
        judgement = Trace(q, [f"at a glance {q.answer}"]).judge()
        assert (judgement.steps[0].kind, judgement.steps[0].verdict) == ("other", "no step")
        assert judgement.letter == q.answer_label and not judgement.grounded


def test_repeated_and_padded_steps_gain_nothing(questions):
    for q in questions:
        steps = q.extra["steps"]
        counted = Counter(s.verdict for s in Trace(q, steps * 3).judge().steps if s.kind == "working")
        assert counted == {"true": len(steps), "repeated": 2 * len(steps)}
        assert not Trace(q, steps[:-1] * 5).judge().grounded
        assert not Trace(q, [*steps[:-1], "let us see", "let us see"]).judge().grounded


def test_a_finding_counted_twice_is_false():
    q = make_questions("qsofa", "train", 1)[0]
    facts = {"age": 50, "sex": "man", "rate": 30, "systolic": 120, "coma": 15, "order": ["rate", "systolic", "coma"]}
    again = "rate 30 1, total 1. systolic 120 0, total 1. rate 30 1, total {}. coma scale 15 0, total 1."
    verdicts = [[s.verdict for s in judge(again.format(n), "qsofa", facts, q.options).steps] for n in (1, 2)]
    assert verdicts == [["true", "true", "repeated", "true"], ["true", "true", "false", "true"]]


def test_a_foreign_part_that_does_not_add_up_makes_no_later_one_false():
    facts = {"age": 50, "sex": "man", "rate": 30, "systolic": 120, "coma": 12, "order": ["rate", "systolic", "coma"]}
    said = "0 + 1 is 3 with coma scale 12. 1 + 0 is 1 with systolic 120. 1 + 1 is 2 with rate 30."
    steps = judge(said, "qsofa", facts, {"A": "2", "B": "3"}).steps
    assert [step.verdict for step in steps] == ["false", "true", "true"]


# What the shipped base model and its trained arms answered (assets/reference), read and labelled by hand.
# family, facts, options, rationale, its false sentences
CHEST = {"chest_cm": 26, "cardiothoracic_ratio": 40, "nodule_count": 1, "nodules": [[-20.0, 4, 5.0]]}
CURB = {
    "age": 71, "sex": "man", "confused": True, "urea": 5, "rate": 26, "systolic": 125, "diastolic": 60,
    "order": ["urea", "mind", "pressure", "rate"],
}  # fmt: skip
APGAR = {
    "colour": 1, "reflex": 0, "tone": 0, "breathing": 0, "pulse": 0, "minutes": 5,
    "order": ["pulse", "breathing", "tone", "colour", "reflex"],
}  # fmt: skip
ANSWERS = [
    ("cardiothoracic_ratio", CHEST, "45% 50% 60% 40%",
     "chest 26 cm. heart 10 cm. ratio 40%. A. 45% no. B. 50% no. C. 60% no. D. 40% yes.", []),
    ("cardiothoracic_ratio", CHEST, "45% 50% 60% 40%",
     "chest 26 cm. heart 12 cm. ratio 45%. A. 45% yes.", ["heart 12 cm", "ratio 45%", "A. 45% yes"]),
    ("nodule_count", CHEST, "4 1",
     "right lung 2. left lung 0. total 2. A. 4 no. B. 1 no. C. 3 no. D. 0 no. E. 2 yes.",
     ["right lung 2", "total 2", "B. 1 no", "C. 3 no", "D. 0 no", "E. 2 yes"]),
    ("curb65", CURB, "1 3",
     "age 71 1, total 1. urea 5 0, total 1. confused 1, total 2. pressure 125/60 0, total 2. rate 26 0, total 2. "
     "A. 1 no. B. 3 no. C. 5 no. D. 1 no. E. 2 yes.",
     ["pressure 125/60 0, total 2", "rate 26 0, total 2", "B. 3 no", "C. 5 no", "D. 1 no", "E. 2 yes"]),
    ("apgar", APGAR, "7 2 10 1",
     "pulse 0 0, total 0. breathing absent 0, total 0. tone limp 0, total 0. reflex no response 0, total 0. "
     "colour pink body, blue limbs 1, total 1. A. 7 no. B. 2 no. C. 10 no. D. 1 yes.", []),
    ("apgar", APGAR, "7 2 10 1",
     "pulse 0 0, total 0. breathing absent 0, total 0. tone limp 0, total 0. colour pink body, blue limbs 1, total 1. "
     "reflex no response 0, total 1. A. 7 no. B. 2 no. C. 1 yes.", ["C. 1 yes"]),
    ("apgar", APGAR, "7 2 10 1", "at a glance 1. A. 7 no. B. 2 no. C. 10 no. D. 10 no. E. 1 yes.",
     ["D. 10 no", "E. 1 yes"]),
]  # fmt: skip


@pytest.mark.parametrize(("family", "facts", "texts", "rationale", "false"), ANSWERS)
def test_a_model_s_answers_are_judged_as_by_hand(family, facts, texts, rationale, false):
    judgement = judge(rationale, family, facts, dict(zip("ABCDE", texts.split(), strict=False)))
    assert [s.text for s in judgement.steps if s.verdict == "false"] == false
    assert judgement.grounded == (not false)


@pytest.mark.parametrize(
    "text", ["", ".", "<think>", "total " * 3000, "a 1, total 9" * 2000, "x, total " + "9" * 9999, "\u2028.\x00. B. "]
)
def test_any_text_is_judged(text):
    q = make_questions("apgar", "train", 1)[0]
    assert not judge(text, q.family, q.extra["facts"], q.options).grounded


def reward(question, response: str, **columns) -> float:
    row = {**reward_columns(question), **columns}
    return grounded([response], **{name: [value] for name, value in row.items()})[0]


def test_the_reward_wants_the_right_answer_and_true_steps(questions):
    for q in questions[:64]:
        wrong = next(letter for letter in q.options if letter != q.answer_label)
        right = f"<think> {q.reasoning} </think>\n<answer> {q.answer_label} </answer>"
        assert reward(q, right) == 1
        assert reward(q, right.replace(f"> {q.answer_label} <", f"> {wrong} <")) == 0
        assert reward(q, right.removesuffix("</answer>")) == 0
        assert reward(q, right.replace("<think> ", "<think> not ")) == 0
        assert reward(q, f"<think> {q.answer} </think>\n<answer> {q.answer_label} </answer>") == 0
        # a step that is false, hidden between the blocks of an answer in good form
        assert reward(q, right.replace("</think>", "</think> ratio 7%. <think></think>")) == 0


def test_a_wrong_label_is_never_paid_for():
    """Neither what the noisy trace argues for, nor the truth, nor true steps before the wrong letter."""
    clean = make_questions("text", "train", 80, seed=5)
    noisy = make_questions("text", "train", 80, seed=5, label_noise=1.0)
    for true, q in zip(clean, noisy, strict=True):
        for reasoning in (true.reasoning, q.reasoning):
            for letter in (true.answer_label, q.answer_label):
                assert reward(q, f"<think> {reasoning} </think>\n<answer> {letter} </answer>") == 0


def test_messages_are_read_like_texts(questions):
    q = questions[0]
    right = f"<think> {q.reasoning} </think>\n<answer> {q.answer_label} </answer>"
    assert reward(q, [{"role": "assistant", "content": right}]) == 1


def test_without_facts_a_sentence_says_what_to_do(questions):
    with pytest.raises(UserError, match=r"facts, and there are none; .*--redo 01"):
        reward(questions[0], "anything", facts=None)
