"""The phantom questions: right answers by independent rules, no shortcut, balance, splits, noise, and fixed hashes."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import chisquare

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image, pixel_id
from medvlt_lib.core.records import read_questions, write_questions
from medvlt_lib.core.variants import grey
from medvlt_lib.phantom import questions as phantom
from medvlt_lib.phantom.questions import FAMILIES, SPLITS, family_names, make_questions
from medvlt_lib.phantom.shortcuts import shortcut_scores
from medvlt_lib.phantom.text_family import TextFamily

HASHES = Path(__file__).parent / "hashes.json"
TEXT, IMAGE = family_names("text"), family_names("image")


def number(pattern: str, text: str) -> int:
    return int(re.search(pattern, text).group(1))


# The published rules again, written here from the references and read off the question's words alone.
def curb65(q):
    systolic, diastolic = map(int, re.search(r"pressure (\d+)/(\d+)", q).groups())
    return (
        ("confused" in q) + (number(r"urea (\d+)", q) > 7) + (number(r"rate (\d+)", q) >= 30)
        + (systolic < 90 or diastolic <= 60) + (number(r"of (\d+)", q) >= 65)
    )  # fmt: skip


def glasgow(q):
    eyes = {"eyes open to voice": 3, "eyes open to pain": 2, "eyes open": 4, "eyes stay shut": 1}
    speech = {"speech oriented": 5, "speech confused": 4, "speech words": 3, "speech sounds": 2, "speech silent": 1}
    motor = {
        "motor obeys": 6,
        "motor localises": 5,
        "motor withdraws": 4,
        "motor flexes": 3,
        "motor extends": 2,
        "motor still": 1,
    }
    return sum(next(v for k, v in table.items() if k in q) for table in (eyes, speech, motor))


def qsofa(q):
    return (number(r"rate (\d+)", q) >= 22) + (number(r"systolic (\d+)", q) <= 100) + (number(r"scale (\d+)", q) < 15)


def cha2ds2_vasc(q):
    age = number(r"of (\d+)", q)
    ones = ("heart failure", "hypertension", "diabetes", "vascular disease")
    return sum(x in q for x in ones) + 2 * ("stroke" in q) + (2 if age >= 75 else age >= 65) + q.startswith("Woman")


def apgar(q):
    pulse = number(r"pulse (\d+)", q)
    table = {
        "pink body, blue limbs": 1, "colour blue": 0, "colour pink": 2, "no response": 0, "grimace": 1, "cry": 2,
        "limp": 0, "some flexion": 1, "active": 2, "absent": 0, "slow": 1, "good": 2,
    }  # fmt: skip
    if "blue limbs" in q:
        table["colour pink"] = 0
    return (2 if pulse >= 100 else pulse > 0) + sum(v for k, v in table.items() if k in q)


def anion_gap(q):
    return number(r"sodium (\d+)", q) - number(r"chloride (\d+)", q) - number(r"bicarbonate (\d+)", q)


def mean_arterial_pressure(q):
    systolic, diastolic = map(int, re.search(r"(\d+)/(\d+) mmHg", q).groups())
    return (systolic + 2 * diastolic) / 3


def shock_index(q):
    return number(r"pulse (\d+)", q) / number(r"systolic (\d+)", q)


RULES = {
    "curb65": curb65, "glasgow_coma_scale": glasgow, "qsofa": qsofa, "cha2ds2_vasc": cha2ds2_vasc, "apgar": apgar,
    "anion_gap": anion_gap, "mean_arterial_pressure": mean_arterial_pressure, "shock_index": shock_index,
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT)
def test_text_answers_follow_the_published_rule(name):
    for q in make_questions(name, "train", 400, seed=3):
        assert float(q.answer) == pytest.approx(RULES[name](q.question)), q.question


def _blobs(mask: np.ndarray, least: int = 12) -> list[tuple[float, float]]:
    """Centres (x, y) of the connected regions of at least `least` pixels."""
    labels, count = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
    keep = [i + 1 for i, size in enumerate(sizes) if size >= least]
    return [(x, y) for y, x in ndimage.center_of_mass(mask, labels, keep)]


def _easy(name: str, n: int) -> list:
    return [
        (q, np.asarray(load_image(q.images[0])).astype(int))
        for q in make_questions(name, "train", n, seed=3)
        if q.difficulty == 1
    ]


def test_dark_nuclei_can_be_counted_in_the_pixels():
    for q, pixels in _easy("dark_nuclei", 60):
        assert len(_blobs(pixels[:, :, 0] < 110)) == int(q.answer)


def test_lesion_site_and_size_can_be_measured_in_the_pixels():
    for q, pixels in _easy("lesion_site,lesion_size", 120):
        labels, count = ndimage.label(pixels[:, :, 0] > 228)
        sizes = ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1))
        (y, x), area = ndimage.center_of_mass(labels == 1 + sizes.argmax()), sizes.max()
        if q.family == "lesion_site":  # radiological convention: the patient's left is on the picture's right
            side = "left" if x > 56 else "right"
            lobe = "frontal" if y < 44 else "occipital" if y > 70 else "temporal"
            assert q.answer == f"{side} {lobe}"
        else:
            assert 2 * np.sqrt(area / np.pi) / 0.6 == pytest.approx(float(q.answer.split()[0]), abs=3)


def test_cup_and_disc_can_be_measured_in_the_pixels():
    for q, pixels in _easy("cup_to_disc_ratio", 60):
        blue = pixels[:, :, 2]
        disc = (blue > 70).any(axis=0).sum()
        cup = (blue > 140).any(axis=0).sum()
        assert cup / disc == pytest.approx(float(q.answer), abs=0.13)


def test_midline_shift_lies_where_the_ventricles_lie():
    easy = _easy("midline_shift,bleed_type", 900)
    bloodless = {q.image_ids[0] for q, _ in easy if q.answer == "none" and q.family == "bleed_type"}
    seen = set()
    for q, pixels in easy:
        if q.family != "midline_shift" or q.image_ids[0] not in bloodless:
            continue
        grey = pixels[:, :, 0]
        skull = np.flatnonzero((grey > 200).any(axis=0))
        inside = np.zeros_like(grey, bool)
        inside[36:76, 30:82] = True
        shift = np.nonzero(inside & (grey < 75))[1].mean() - (skull[0] + skull[-1]) / 2
        expected = 0 if q.answer == "none" else int(q.answer.split()[0]) * 0.6 * (1 if "left" in q.answer else -1)
        assert shift == pytest.approx(expected, abs=2.5)
        seen.add(q.answer)
    assert len(seen) == 5


@pytest.mark.parametrize("name", [*TEXT, *IMAGE])
def test_options_give_nothing_away_and_gold_is_balanced(name, two_thousand):
    questions = two_thousand[name]
    chance = np.mean([1 / len(q.options) for q in questions])
    for rule, score in shortcut_scores(questions).items():
        assert score <= chance + 0.03, (rule, score, chance)
    values = Counter(q.answer for q in questions)
    assert len(values) == len(FAMILIES[name].values)
    assert chisquare(list(values.values())).pvalue > 1e-4
    letters = Counter((len(q.options), q.answer_label) for q in questions)
    for size in {n for n, _ in letters}:
        assert chisquare([letters[size, k] for k in "ABCDE"[:size]]).pvalue > 1e-4
    assert {q.difficulty for q in questions} == {1, 2, 3}
    assert {len(q.options) for q in questions} == set(range(2, 1 + min(5, len(FAMILIES[name].values))))


@pytest.mark.parametrize("name", [*TEXT, *IMAGE])
def test_rank_of_gold_among_sorted_options_is_uniform(name, two_thousand):
    texts = [FAMILIES[name].text(v) for v in FAMILIES[name].values]
    ranks = Counter()
    for q in two_thousand[name]:
        if len(q.options) == min(4, len(texts)):
            ranks[sorted(map(texts.index, q.options.values())).index(texts.index(q.answer))] += 1
    assert chisquare(list(ranks.values())).pvalue > 1e-4


@pytest.mark.parametrize("name", IMAGE)
def test_a_constant_answer_is_not_above_chance(name, two_thousand):
    questions = two_thousand[name]
    chance = np.mean([1 / len(q.options) for q in questions])
    for value in FAMILIES[name].values:
        # always answer this value where it is offered, else guess
        offered = [q for q in questions if FAMILIES[name].text(value) in q.options.values()]
        right = np.array([q.answer == FAMILIES[name].text(value) for q in offered])
        expected = np.mean([1 / len(q.options) for q in offered])
        assert right.mean() - 1.96 * right.std() / np.sqrt(len(right)) <= expected + 0.02, (value, chance)


@pytest.fixture(scope="module")
def two_thousand():
    """2,000 questions a family; image families are drawn together, since they share pictures."""
    rows = {name: make_questions(name, "train", 2000, seed=11) for name in TEXT}
    drawn = make_questions("image", "train", 2000 * len(IMAGE), seed=11)
    return {**rows, **{name: [q for q in drawn if q.family == name] for name in IMAGE}}


def test_world_has_the_promised_breadth():
    assert len(TEXT) >= 8
    assert len(IMAGE) >= 8
    assert len({FAMILIES[n].image_modality for n in IMAGE}) >= 5
    assert all(re.search(r"\d{4}", f.reference) for f in FAMILIES.values())  # a year: a real citation


def test_some_images_carry_several_questions():
    shared = Counter(q.image_ids[0] for q in make_questions("image", "train", 80))
    assert max(shared.values()) == 2


def test_splits_are_disjoint_whatever_the_seed():
    stems, pictures = {}, {}
    for split in ("train", "validation", "test"):
        for seed in (0, 1):
            for q in make_questions("all", split, 800, seed):
                key, seen = (q.image_ids[0], pictures) if q.images else (q.question, stems)
                assert seen.setdefault(key, split) == split


def hashes(family: str) -> dict:
    """For each split, the hash of the words of a family's first two questions, and their pictures' pixel ids."""
    found = {}
    for split in SPLITS:
        questions = make_questions(family, split, 2, seed=0)
        rows = [[q.id, q.question, q.options, q.answer_label, q.reasoning] for q in questions]
        records = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        found[split] = {"records": records, "pixels": [q.image_ids[0] for q in questions if q.images]}
    return found


def test_questions_of_a_seed_are_the_committed_ones():
    committed = json.loads(HASHES.read_text())
    assert list(committed) == list(FAMILIES), "write the file anew: python -m tests.phantom.test_questions"
    for family, expected in committed.items():
        assert hashes(family) == expected, family


def test_families_are_drawn_alike_alone_and_together():
    together = make_questions("all", "test", 2 * len(FAMILIES))
    for name in FAMILIES:
        assert [q for q in together if q.family == name] == make_questions(name, "test", 2)


def test_more_questions_begin_with_the_same_ones():
    assert make_questions("all", "test", 40)[:16] == make_questions("all", "test", 16)


def test_label_noise_is_an_exact_recorded_share():
    clean = make_questions("all", "train", 200, seed=5)
    noisy = make_questions("all", "train", 200, seed=5, label_noise=0.3)
    changed = [a.answer_label != b.answer_label for a, b in zip(clean, noisy, strict=True)]
    assert sum(changed) == 60
    assert changed == [q.noise["label"] for q in noisy]
    for q in noisy:
        assert q.reasoning.endswith(f"{q.answer_label}. {q.answer} yes.")


def test_trace_noise_changes_a_step_and_keeps_the_label():
    clean = make_questions("all", "train", 200, seed=5)
    noisy = make_questions("all", "train", 200, seed=5, trace_noise=0.25)
    assert [q.answer_label for q in clean] == [q.answer_label for q in noisy]
    changed = [a.reasoning != b.reasoning for a, b in zip(clean, noisy, strict=True)]
    assert sum(changed) == 50
    assert changed == [q.noise["trace"] for q in noisy]


def test_the_picture_and_the_vignette_follow_from_the_facts(tmp_path):
    """Also after the way through a file, by which they reach the reward."""
    write_questions(make_questions("all", "train", 64, seed=5), tmp_path / "q.parquet")
    for q in read_questions(tmp_path / "q.parquet"):
        family, facts = FAMILIES[q.family], q.extra["facts"]
        if q.modality == "image":
            assert pixel_id(family.scene.render(facts)) == q.image_ids[0]
        else:
            assert family.stem(facts) == q.question
        assert family.text(family.rule(facts)) == q.answer


def test_noise_leaves_the_facts_true():
    clean = make_questions("all", "train", 64, seed=5)
    noisy = make_questions("all", "train", 64, seed=5, label_noise=0.5, trace_noise=0.5)
    assert sum(a.extra["steps"] != b.extra["steps"] for a, b in zip(clean, noisy, strict=True)) == 32
    assert [q.extra["facts"] for q in clean] == [q.extra["facts"] for q in noisy]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"families": "curb66"}, "curb66"),
        ({"split": "exam"}, "exam"),
        ({"n": 0}, "n is 0"),
        ({"label_noise": 1.2}, "label_noise"),
        ({"trace_noise": -0.1}, "trace_noise"),
        ({"split": "test", "label_noise": 0.1}, "only training"),
    ],
)
def test_bad_requests_are_sentences(arguments, word):
    with pytest.raises(UserError, match=word):
        make_questions(**arguments)


class Coin(TextFamily):
    """A family of 100 vignettes, whose answers are 1 and, with two sides, 2."""

    name, reference, values = "coin", "nobody 2000", (1, 2)

    def __init__(self, sides: int):
        self.sides = sides

    def draw(self, rng, level, aim):
        return {"toss": rng.randrange(100)}

    def rule(self, f):
        return 1 + f["toss"] % self.sides

    def stem(self, f):
        return f"Toss {f['toss']}. Heads?"

    def steps(self, f):
        return ["heads 1, total 1"]


def test_a_family_that_has_no_more_questions_is_a_sentence(monkeypatch):
    monkeypatch.setattr(phantom, "TRIES", 500)
    monkeypatch.setitem(FAMILIES, "coin", Coin(sides=1))
    with pytest.raises(UserError, match=r"family coin: after .* 500 tries gave no new one with the answer 2; ask for"):
        make_questions("coin", "train", 10)
    monkeypatch.setitem(FAMILIES, "coin", Coin(sides=2))
    assert len(make_questions("coin", "train", 60)) == 60
    with pytest.raises(UserError, match=r"family coin: after \d+ validation questions .* ask for fewer"):
        make_questions("coin", "validation", 50)


def test_a_scene_that_never_falls_into_a_split_is_a_sentence(monkeypatch):
    monkeypatch.setattr(phantom, "TRIES", 20)
    monkeypatch.setattr(phantom, "_split_of", lambda content: "train")
    assert len(make_questions("bleed_type", "train", 2)) == 2
    with pytest.raises(UserError, match=r"scene head_ct: 20 tries gave no test picture with .*; let it draw more"):
        make_questions("bleed_type", "test", 1)


def test_a_blanked_question_keeps_everything_but_the_picture():
    question = make_questions("bleed_type", "test", 1)[0]
    empty = grey(question)
    assert (empty.question, empty.options, empty.answer) == (question.question, question.options, question.answer)
    assert np.ptp(np.asarray(load_image(empty.images[0]))) == 0


if __name__ == "__main__":  # `python -m tests.phantom.test_questions`, after a family was added
    HASHES.write_text(json.dumps({name: hashes(name) for name in FAMILIES}, indent=1) + "\n")
