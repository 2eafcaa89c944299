"""Steps by kind: traces in which one thing of a known kind was made wrong, and a model's answers labelled by hand."""

import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from medvlt_lib.phantom.plain import PART
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.phantom.rationale import grounded, judge
from medvlt_lib.phantom.teacher import own_trace, write_trace
from medvlt_lib.phantom.true_steps import FIRST_ERRORS, TrueSteps, true_steps
from medvlt_lib.training.rewarding import reward_columns

LABELLED = Path(__file__).parent / "labelled_outputs.jsonl"
SCORES = ("curb65", "glasgow_coma_scale", "qsofa", "cha2ds2_vasc", "apgar")
P, R, A = "perception", "rule", "arithmetic"
KINDS = {  # what the working of a family states
    **{name: {P, R, A} for name in SCORES}, "anion_gap": {P, R, A}, "mean_arterial_pressure": {P, R, A},
    "shock_index": {P, R, A}, "cardiothoracic_ratio": {P, A}, "nodule_count": {P, A}, "midline_shift": {P, R},
    "bleed_type": {P, R}, "lesion_site": {P, R}, "lesion_size": {P}, "cup_to_disc_ratio": {P, A}, "dark_nuclei": {P, A},
}  # fmt: skip
PAID = (50940, 4392, "2421764fb710f5c3")  # completions, how many were paid for, and the hash of all the rewards
MIRROR = {"left": "right", "right": "left"}
HEIGHTS = {"top": "frontal", "middle": "temporal", "bottom": "occipital"}
SIGNS = {
    "none": "no bright blood", "epidural": "bright lens at the skull", "subdural": "bright crescent along the skull",
    "intracerebral": "bright ball in the brain", "intraventricular": "bright ventricles",
}  # fmt: skip


@dataclass
class Case:
    """Steps with one thing of a kind made wrong, and the value that they lead to."""

    steps: list[str]
    value: str
    wrong: str | None = None  # the kind
    place: int | None = None  # the step


def parts_of(steps: list[str]) -> list[tuple[str, int]]:
    return [(found[1], int(found[2])) for found in map(PART.fullmatch, steps)]


def summed(parts: list[tuple[str, int]]) -> list[str]:
    totals = [sum(points for _, points in parts[: i + 1]) for i in range(len(parts))]
    return [f"{name} {points}, total {total}" for (name, points), total in zip(parts, totals, strict=True)]


def sum_cases(question, rng, pool):
    """A sum: another patient's finding, points that are not due, a total that is off. `pool`: findings with their
    points, as the teacher gives them, by their first word ("mind" for a word alone)."""
    parts = parts_of(question.extra["steps"])
    names = {name for name, _ in parts}
    score = question.family in SCORES
    for i, (name, points) in enumerate(parts):
        for wrong in (P, R, A):
            new = list(parts)
            if wrong == P and score:
                others = sorted((n, p) for n, p in pool[sign(name)] if n not in names)
                if not others:
                    continue
                new[i] = rng.choice(others)
            elif wrong == (R if score else P):
                new[i] = (name, points + rng.choice([d for d in (-1, 1, 2) if points + d >= 0]))
            elif wrong == R:
                continue
            steps = summed(new)
            if wrong == A:
                off = int(steps[i].rpartition(" ")[2])
                off += rng.choice([d for d in (-2, -1, 1, 2, 3) if off + d >= 0])
                steps[i] = f"{name} {points}, total {off}"
            yield Case(steps, steps[-1].rpartition(" ")[2], wrong, i)


def sign(name: str) -> str:
    first, *rest = name.split()
    return first if rest and not first.startswith(("heart", "vascular")) else "word"


def formula_cases(question, rng, pool):
    """Calculations: a number that the vignette does not give, another sign or place, a result that is off."""
    facts, family = question.extra["facts"], question.family

    def text(n):
        return f"{n // 10}.{n % 10}" if family == "shock_index" else str(n)

    def off(number, *known):
        return rng.choice([d for n in range(-9, 10) if (d := number + n) > 0 and d not in (number, *known)])

    if family == "anion_gap":
        na, cl, bi = (facts[k] for k in ("sodium", "chloride", "bicarbonate"))
        for wrong, (a, b, c), (add, mul) in (
            (P, (off(na, cl, bi), cl, bi), (0, 0)), (P, (na, off(cl, na, bi), bi), (0, 0)),
            (P, (na, cl, off(bi, na, cl, na - cl)), (0, 0)), (R, (na, cl, bi), (0, 1)), (R, (na, cl, bi), (1, 0)),
        ):  # fmt: skip
            rest = a + b if add else a - b
            gap = rest + c if mul else rest - c
            steps = [f"{a} {'+' if add else '-'} {b} = {rest}", f"{rest} {'+' if mul else '-'} {c} = {gap}"]
            yield Case(steps, str(gap), wrong, int(mul or c != bi))
        rest = off(na - cl, na, cl, bi)
        yield Case([f"{na} - {cl} = {rest}", f"{rest} - {bi} = {rest - bi}"], str(rest - bi), A, 0)
        gap = off(na - cl - bi)
        yield Case([f"{na} - {cl} = {na - cl}", f"{na - cl} - {bi} = {gap}"], str(gap), A, 1)
        yield Case([f"{na} - {bi} = {na - bi}", f"{na - bi} - {bi} = {na - 2 * bi}"], str(na - 2 * bi), R, 0)
    elif family == "mean_arterial_pressure":
        high, low = facts["systolic"], facts["diastolic"]
        third = (high - low) // 3
        for wrong, place, (a, b, d, e) in (
            (P, 0, (high + 3, low, 3, low)), (P, 2, (high, low, 3, off(low, high, third, 3 * third))),
            (R, 1, (high, low, 2, low)), (R, 2, (high, low, 3, high)),
        ):  # fmt: skip
            steps = [f"{a} - {b} = {a - b}", f"{a - b} / {d} = {(a - b) // d}"]
            yield Case([*steps, f"{e} + {(a - b) // d} = {e + (a - b) // d}"], str(e + (a - b) // d), wrong, place)
        for place in range(3):
            pulse = high - low + (3 if place == 0 else 0)
            t = pulse // 3 + (2 if place == 1 else 0)
            mean = low + t + (5 if place == 2 else 0)
            steps = [f"{high} - {low} = {pulse}", f"{pulse} / 3 = {t}", f"{low} + {t} = {mean}"]
            yield Case(steps, str(mean), A, place)
    else:
        pulse, high = facts["pulse"], facts["systolic"]
        tenth = high // 10
        index = pulse // tenth
        other = off(high // 10) * 10
        for wrong, place, (a, b, c) in (
            (P, 1, (pulse + tenth, tenth, index + 1)), (A, 0, (pulse, tenth + 1, pulse // (tenth + 1))),
            (A, 1, (pulse, tenth, index + 2)), (R, 1, (pulse, high, pulse // high)),
        ):  # fmt: skip
            if a in (high, tenth):
                continue
            first = f"a tenth of {high} is {b if place == 0 else tenth}"
            yield Case([first, f"{a} / {b} = {c}", f"index {text(c)}"], text(c), wrong, place)
        if other != pulse:
            steps = [f"a tenth of {other} is {other // 10}", f"{pulse} / {other // 10} = {pulse * 10 // other}"]
            yield Case([*steps, f"index {text(pulse * 10 // other)}"], text(pulse * 10 // other), P, 0)
        clean = question.extra["steps"]
        yield Case([*clean[:2], f"index {text(index + 3)}"], text(index + 3), A, 2)


def ratio_cases(question, rng, pool):
    """A ratio of two lengths, and two counts that add up."""
    (first, second, _), values = question.extra["steps"], FAMILIES[question.family].values
    if question.family == "nodule_count":
        right, left = (int(step.split()[-1]) for step in (first, second))
        for place, (r, n) in enumerate(((right + rng.choice([1, 2]), left), (right, left + rng.choice([1, 2])))):
            yield Case([f"right lung {r}", f"left lung {n}", f"total {r + n}"], str(r + n), P, place)
        total = right + left + rng.choice([1, 2, 3])
        yield Case([first, second, f"total {total}"], str(total), A, 2)
        return
    unit, scale = (" cm", 100) if question.family == "cardiothoracic_ratio" else ("", 10)
    names = [step.split()[0] for step in (first, second)]
    whole, part = (int(re.search(r"\d+", step)[0]) for step in (first, second))
    show = FAMILIES[question.family].text

    def nearest(part, whole):
        ranked = sorted(values, key=lambda v: abs(scale * part / whole - v))
        tie = abs(abs(scale * part / whole - ranked[0]) - abs(scale * part / whole - ranked[1])) < 1e-9
        return None if tie else ranked[0]

    for place, (w, p) in enumerate(((whole + rng.choice([-4, 4, 6]), part), (whole, part + rng.choice([-2, 2, 4])))):
        value = nearest(p, w)
        if value is not None:
            yield Case(
                [f"{names[0]} {w}{unit}", f"{names[1]} {p}{unit}", f"ratio {show(value)}"], show(value), P, place
            )
    value = rng.choice([v for v in values if show(v) != question.answer])
    yield Case([first, second, f"ratio {show(value)}"], show(value), A, 2)


def head_cases(question, rng, pool):
    """Sides, and the mirror between picture and patient; a sign and the bleeding that it tells of."""
    facts = question.extra["facts"]
    if question.family == "bleed_type":
        true = facts["bleed_type"]
        other = rng.choice([kind for kind in SIGNS if kind != true])
        yield Case([SIGNS[other], f"bleed {other}"], other, P, 0)
        yield Case([SIGNS[true], f"bleed {other}"], other, R, 1)
        return
    if len(question.extra["steps"]) == 2:
        return
    amount, _, side = facts["midline_shift"].partition(" mm ")
    far = "16" if amount == "8" else "8"
    turned = MIRROR[side]
    first = f"septum off to picture {turned}"
    yield Case(
        [f"septum off to picture {side}", f"patient {turned}", f"shift {amount} mm {turned}"],
        f"{amount} mm {turned}",
        P,
        0,
    )
    yield Case([first, f"patient {turned}", f"shift {amount} mm {turned}"], f"{amount} mm {turned}", R, 1)
    yield Case([first, f"patient {side}", f"shift {far} mm {side}"], f"{far} mm {side}", P, 2)
    yield Case([first, f"patient {side}", f"shift {amount} mm {turned}"], f"{amount} mm {turned}", R, 2)


def brain_cases(question, rng, pool):
    side, lobe = question.extra["facts"]["lesion_site"].split()
    if question.family == "lesion_size":
        other = rng.choice([s for s in (8, 14, 20, 26, 32) if f"{s} mm" != question.answer])
        yield Case([f"bright spot {lobe}", f"diameter {other} mm"], f"{other} mm", P, 1)
        strange = rng.choice([x for x in HEIGHTS.values() if x != lobe])
        yield Case([f"bright spot {strange}", f"diameter {question.answer}"], question.answer, P, 0)
        return
    height = next(h for h, own in HEIGHTS.items() if own == lobe)
    turned, elsewhere = MIRROR[side], rng.choice([h for h in HEIGHTS if h != height])
    spot = f"bright spot on picture {turned}, {height}"
    wrong_lobe = HEIGHTS[elsewhere]
    yield Case(
        [f"bright spot on picture {side}, {height}", f"patient {turned}", f"site {turned} {lobe}"],
        f"{turned} {lobe}",
        P,
        0,
    )
    yield Case(
        [f"bright spot on picture {turned}, {elsewhere}", f"patient {side}", f"site {side} {wrong_lobe}"],
        f"{side} {wrong_lobe}", P, 0,
    )  # fmt: skip
    yield Case([spot, f"patient {turned}", f"site {turned} {lobe}"], f"{turned} {lobe}", R, 1)
    yield Case([spot, f"patient {side}", f"site {side} {wrong_lobe}"], f"{side} {wrong_lobe}", R, 2)


MAKERS = {
    **dict.fromkeys((*SCORES, "dark_nuclei"), sum_cases),
    **dict.fromkeys(("anion_gap", "mean_arterial_pressure", "shock_index"), formula_cases),
    **dict.fromkeys(("cardiothoracic_ratio", "nodule_count", "cup_to_disc_ratio"), ratio_cases),
    **dict.fromkeys(("midline_shift", "bleed_type"), head_cases),
    **dict.fromkeys(("lesion_site", "lesion_size"), brain_cases),
}


def asked_for(question, case, rng):
    """The question with options among which are the truth and what the steps lead to; its answer is the latter."""
    texts = {question.answer, case.value, *rng.sample([FAMILIES[question.family].text(v) for v in
             FAMILIES[question.family].values], 2)}  # fmt: skip
    texts = rng.sample(sorted(texts), len(texts))
    options = dict(zip("ABCDE", texts, strict=False))
    label = next(letter for letter, text in options.items() if text == case.value)
    extra = {**question.extra, "steps": case.steps}
    return replace(question, options=options, answer_label=label, answer=case.value, extra=extra)


def read(question, text, letter) -> TrueSteps:
    return true_steps(text, letter, True, question.family, question.extra["facts"], question.options)


def expected(question, case) -> TrueSteps:
    flags = {kind: (case.wrong != kind if kind in KINDS[question.family] else None) for kind in (P, R, A)}
    consistent = case.wrong != A and not contradicts(question, case)
    return TrueSteps(True, *flags.values(), True, case.wrong is None, consistent, case.wrong)


def contradicts(question, case) -> bool:
    """A shift to another side than the patient's that was just named."""
    return question.family == "midline_shift" and case.wrong == R and case.place == 2


@pytest.fixture(scope="module")
def questions():
    return make_questions("all", "train", 1600, seed=51)


@pytest.fixture(scope="module")
def cases(questions):
    """Questions with the clean steps and with each wrong thing."""
    rng, pool = random.Random(7), {}
    for q in questions:
        if q.family in SCORES:
            for name, points in parts_of(q.extra["steps"]):
                pool.setdefault(q.family, {}).setdefault(sign(name), set()).add((name, points))
    found = []
    for q in questions:
        own = [Case(q.extra["steps"], q.answer), *MAKERS[q.family](q, rng, pool.get(q.family))]
        found += [(asked_for(q, case, rng), case) for case in own]
    return found


def test_what_was_made_wrong_is_found_and_nothing_else(cases):
    """In both wordings of more than 5,000 traces: no true step is called false, no false one true."""
    seen = Counter((q.family, case.wrong) for q, case in cases)
    assert len(cases) > 5000
    assert set(seen) == {(family, kind) for family in FAMILIES for kind in (None, *KINDS[family])}
    for q, case in cases:
        # the foreign wording ends a sum by saying it again, with the true total
        last = case.wrong == A and len(case.steps) == case.place + 1 and q.family in (*SCORES, "dark_nuclei")
        for style in ("own",) if last else ("own", "foreign"):
            text = f"<think> {write_trace(q, style)} </think>\n<answer> {q.answer_label} </answer>"
            assert read(q, text, q.answer_label) == expected(q, case), (style, q, case)
        steps = judge(own_trace(case.steps, q.options, q.answer), q.family, q.extra["facts"], q.options).steps
        false = [i for i, step in enumerate(steps) if not all(claim.true for claim in step.claims)]
        assert false == ([] if case.place is None else [case.place]), (q, case)


def test_noise_in_a_trace_is_an_error_of_its_kind():
    """The teacher's own noise: the last number of a step, or its denial."""
    arithmetic = re.compile(r".*, total \d+|.* = \d+|(?:a tenth|ratio|index|total)\b.*")
    for clean, q in zip(
        make_questions("all", "train", 800, seed=52),
        make_questions("all", "train", 800, seed=52, trace_noise=1.0),
        strict=True,
    ):
        (false,) = [b for a, b in zip(clean.extra["steps"], q.extra["steps"], strict=True) if a != b]
        found = read(q, f"<think> {q.reasoning} </think>", q.answer_label)
        assert found.works and not found.all_true, (q, found)
        assert found.first_error == (A if arithmetic.fullmatch(false) else P), (false, found)


def test_a_wrong_letter_is_a_wrong_conclusion(questions):
    for q in questions[:400]:
        other = next(letter for letter in q.options if letter != q.answer_label)
        working = ". ".join(q.extra["steps"])
        misread = f"{working}. {other}. {q.options[other]} yes."
        for text, letter in ((q.reasoning, other), (misread, other), (f"{working}.", other)):
            found = read(q, f"<think> {text} </think>\n<answer> {letter} </answer>", letter)
            assert found == replace(
                expected(q, Case([], "")), conclusion=False, follows=False, first_error="conclusion"
            )


def test_a_glance_and_a_terse_answer_state_no_working(questions):
    for q in questions[:400]:
        other = next(letter for letter in q.options if letter != q.answer_label)
        for letter, error in ((q.answer_label, None), (other, "glance")):
            value = q.options[letter]
            glance = own_trace([f"at a glance {value}"], q.options, value)
            for text, conclusion in ((glance, True), (f"{letter}. {value}.", None)):
                found = read(q, f"<think> {text} </think>\n<answer> {letter} </answer>", letter)
                assert found == TrueSteps(False, None, None, None, conclusion, None, None, error), (text, found)


def test_the_value_alone_is_no_working(questions):
    """A step that only names what was found is a glance in other words."""
    for q in questions[:200]:
        last = q.extra["steps"][-1]
        if re.match(r"(?:bleed|diameter|index|ratio|shift|site|total) ", last):
            assert not read(q, f"<think> {last}. </think>", q.answer_label).works
            assert read(q, f"<think> {q.extra['steps'][0]}. {last}. </think>", q.answer_label).works


def test_a_part_that_was_left_out_is_an_error_only_where_it_counts(questions):
    for q in questions:
        if q.family in SCORES:
            parts = parts_of(q.extra["steps"])
            for i, (_, points) in enumerate(parts):
                steps = summed(parts[:i] + parts[i + 1 :])
                total = steps[-1].rpartition(" ")[2] if steps else ""
                case = asked_for(q, Case(steps, total), random.Random(1)) if steps else None
                if case is not None:
                    text = f"<think> {own_trace(steps, case.options, total)} </think>"
                    found = read(case, text, case.answer_label)
                    assert found.all_true and found.follows and found.first_error == (R if points else None)


def test_without_a_letter_the_form_is_what_is_wrong(questions):
    q = questions[0]
    cut = read(q, f"<think> {q.extra['steps'][0]}.", None)
    assert (cut.works, cut.all_true, cut.follows, cut.conclusion, cut.first_error) == (True, True, None, None, "form")
    loose = true_steps(q.reasoning, q.answer_label, False, q.family, q.extra["facts"], q.options)
    assert loose.first_error == "form" and loose.follows


@pytest.mark.parametrize("text", ["", ".", "<think>", "1 / 0 = 3", "total " * 3000, "a 1, total 9" * 2000,
                                  "urea " + "9" * 9999 + " 1, total 1", "9" * 5000 + " - 1 = 2", "B. "])  # fmt: skip
def test_any_text_gives_a_record(text):
    for q in make_questions("all", "train", 16, seed=1):
        assert read(q, text, "A").first_error in (*FIRST_ERRORS, None)


def test_the_reward_grounded_pays_as_before_kinds_were_read(cases):
    """Computed once with the checker as it was before it knew kinds of steps."""
    paid = []
    for q, _ in cases:
        for style in ("own", "foreign"):
            for letter in (q.answer_label, "A"):
                text = f"<think> {write_trace(q, style)} </think>\n<answer> {letter} </answer>"
                columns = {name: [value] for name, value in reward_columns(q).items()}
                paid += [str(int(value)) for value in grounded([text], **columns)]
    assert (len(paid), paid.count("1")) == PAID[:2]
    assert hashlib.sha256("".join(paid).encode()).hexdigest()[:16] == PAID[2]


def kinds_written(question, text) -> str:
    """The sentences of an answer in letters: P, R, A, C for what it claims, small where it is false; - where it is no
    step, or was said before."""
    steps = judge(text.partition("<answer>")[0], question["family"], question["facts"], question["options"]).steps
    return " ".join("".join(c.kind[0].upper() if c.true else c.kind[0] for c in step.claims) or "-" for step in steps)


def test_a_model_s_answers_are_read_as_by_hand():
    """What `base`, `small` and trained arms answered, greedy and at temperatures 1 and 1.4, labelled by reading each
    answer beside its question's facts, before the checker saw it. At first it read 6 of the 158 otherwise."""
    rows = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 100
    for row in rows:
        found = true_steps(*(row[key] for key in ("text", "letter", "formed", "family", "facts", "options")))
        hand = row["by_hand"]
        assert kinds_written(row, row["text"]) == hand["steps"], row
        assert (found.works, found.follows, found.first_error) == (hand["works"], hand["follows"], hand["error"]), row
