"""Phantom questions: families to rows, with balanced options, splits, noise and the teacher's traces.

The gold value is drawn uniformly from the family's values and its distractors uniformly from the others, so the
options alone say nothing about the answer. A question belongs to one split by a hash of its content (text: the stem;
image: the scene), whatever the seed, so splits are disjoint. `extra` holds the facts, which are what the vignette says
or the picture shows and which no noise changes, and the teacher's steps, which noise may change. Synthetic, for
learning the method; not for clinical use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import pixel_id, png
from medvlt_lib.core.records import LETTERS, Question
from medvlt_lib.phantom import flaws
from medvlt_lib.phantom.image_families import IMAGE_FAMILIES, ImageFamily, Scene, SceneKind
from medvlt_lib.phantom.plain import plain_question
from medvlt_lib.phantom.teacher import write_trace
from medvlt_lib.phantom.text_families import TEXT_FAMILIES
from medvlt_lib.phantom.text_family import TextFamily

FAMILIES: dict[str, TextFamily | ImageFamily] = {family.name: family for family in (*TEXT_FAMILIES, *IMAGE_FAMILIES)}
SPLITS = ("train", "validation", "test")
WORDINGS = ("short", "plain")
OPTION_COUNTS = {2: 1, 3: 2, 4: 4, 5: 3}  # number of options: weight
TRIES = 100_000  # draws without a new question until a family counts as used up; a few seconds


def family_names(names: str | Iterable[str] | None) -> list[str]:
    """`all`, `text`, `image` or names (a list, or one string with commas), checked, in the order of FAMILIES."""
    wanted = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names or ["all"])
    groups = {
        "all": set(FAMILIES),
        **{m: {n for n, f in FAMILIES.items() if f.modality == m} for m in ("text", "image")},
    }
    chosen: set[str] = set()
    for name in wanted:
        if name not in groups and name not in FAMILIES:
            raise UserError(f"unknown family '{name}'; choose from all, text, image, {', '.join(FAMILIES)}.")
        chosen |= groups.get(name, {name})
    return [n for n in FAMILIES if n in chosen]


def make_questions(
    families: str | Iterable[str] | None = None,
    split: str = "train",
    n: int = 100,
    seed: int = 0,
    label_noise: float = 0.0,
    trace_noise: float = 0.0,
    trace_style: str = "own",
    noise_kind: str = "random",
    given_away: float = 0.0,
    wording: str = "short",
) -> list[Question]:
    """`n` questions spread evenly over `families`; the first k are the same for every n >= k without noise.

    `label_noise` and `trace_noise` (shares in [0, 1], training only): exactly round(share * n) questions get a wrong
    label (their trace argues for it), or a wrong step in the trace (their label stays); each is recorded in `noise`.
    `noise_kind`: how labels go wrong; `given_away` (a share, training only): questions that the options alone answer
    (both: medvlt_lib/phantom/flaws.py). `trace_style`: how the teacher writes (medvlt_lib/phantom/teacher.py).
    `wording`: short, or plain sentences (medvlt_lib/phantom/plain.py).
    Raises UserError for an unknown family, split, style, wording or kind of noise, an impossible size, a share outside
    [0, 1], more label noise than questions have a systematic mistake, or a family that has no more questions.
    """
    names = family_names(families)
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'; choose one of {', '.join(SPLITS)}.")
    if n < 1:
        raise UserError(f"n is {n} for the {split} split; ask for at least 1 question.")
    if noise_kind not in flaws.NOISE_KINDS:
        raise UserError(f"unknown kind of noise '{noise_kind}'; choose one of {', '.join(flaws.NOISE_KINDS)}.")
    if wording not in WORDINGS:
        raise UserError(f"unknown wording '{wording}'; choose one of {', '.join(WORDINGS)}.")
    for key, share in (("label_noise", label_noise), ("trace_noise", trace_noise), ("given_away", given_away)):
        if not 0 <= share <= 1:
            raise UserError(f"{key} is {share}; it is a share and must lie in [0, 1].")
        if share and split != "train":
            raise UserError(
                f"{key} is {share} for the {split} split; only training questions may be corrupted, leave it 0."
            )
    questions = [q for q, _ in zip(_stream(names, split, seed), range(n), strict=False)]
    # The easy questions come first, so that a wrong label may fall on one of them.
    for index in Random(f"given away:{seed}").sample(range(n), round(given_away * n)):
        q = questions[index]
        others = _foreign_texts(FAMILIES[q.family])
        questions[index] = flaws.given_away(q, others, Random(f"given away:{seed}:{index}"))
    chooser = Random(f"noise:{seed}")
    for index in chooser.sample(_noisy(questions, noise_kind, label_noise), round(label_noise * n)):
        rng = Random(f"noise:label:{seed}:{index}")
        if noise_kind == "systematic":
            questions[index] = flaws.mistaken_label(questions[index], FAMILIES[questions[index].family], rng)
        else:
            questions[index] = flaws.wrong_label(questions[index], rng)
    for index in chooser.sample(range(n), round(trace_noise * n)):
        questions[index] = flaws.wrong_step(questions[index], Random(f"noise:trace:{seed}:{index}"))
    for question in questions:
        question.reasoning = write_trace(question, trace_style)
        if wording == "plain":
            question.question = plain_question(question.question)
    return questions


def _noisy(questions: list[Question], kind: str, share: float) -> range | list[int]:
    """The places of the questions whose label this kind of noise can make wrong. Raises UserError where they are too
    few for the share."""
    if kind == "random" or not share:
        return range(len(questions))
    families = [FAMILIES[q.family] for q in questions]
    places = [
        i for i, (f, q) in enumerate(zip(families, questions, strict=True)) if f.mistaken(f.rule(q.extra["facts"]))
    ]
    if len(places) < round(share * len(questions)):
        raise UserError(
            f"label_noise is {share}, but only {len(places)} of {len(questions)} questions have an answer that a "
            "systematic mistake turns into another; lower it."
        )
    return places


@dataclass(frozen=True)
class _Picture:
    """A scene with its level, its picture as PNG and the hash of the picture's pixels."""

    scene: Scene
    level: int
    png: bytes
    pixel_id: str


def _stream(names: list[str], split: str, seed: int) -> Iterator[Question]:
    """Round after round, one question of each family; families of one scene share the round's picture."""
    seen: set[str] = set()
    index = 0
    while True:
        pictures: dict[str, _Picture] = {}
        for name in names:
            family = FAMILIES[name]
            if isinstance(family, TextFamily):
                yield _text_question(family, split, seed, index, seen)
                continue
            kind = family.scene
            if kind.name not in pictures:
                pictures[kind.name] = _draw_picture(kind, split, seed, index)
            yield _image_question(family, pictures[kind.name], split, seed, index)
        index += 1


def _split_of(content: str) -> str:
    bucket = hashlib.sha256(content.encode()).digest()[0] % 10
    return {0: "test", 1: "validation"}.get(bucket, "train")


def _text_question(family: TextFamily, split: str, seed: int, index: int, seen: set[str]) -> Question:
    rng = Random(f"{family.name}:{split}:{seed}:{index}")
    value, level = rng.choice(family.values), rng.randint(1, 3)
    for _ in range(TRIES):
        facts = family.draw(rng, level, value)
        stem = family.stem(facts)
        if family.rule(facts) != value or _split_of(stem) != split:
            continue
        question = _question(family, value, stem, facts, level, rng, split, seed, index)
        key = f"{question.question} {question.options}"
        if key not in seen:
            seen.add(key)
            return question
    raise UserError(
        f"family {family.name}: after {index} {split} questions {TRIES:,} tries gave no new one with the answer "
        f"{family.text(value)}; ask for fewer questions, or let the family draw more vignettes for that answer."
    )


def _draw_picture(kind: SceneKind, split: str, seed: int, index: int) -> _Picture:
    rng = Random(f"{kind.name}:{split}:{seed}:{index}")
    values = {name: rng.choice(choices) for name, choices in kind.values.items()}
    level = rng.randint(1, 3)
    for _ in range(TRIES):
        scene = kind.draw(rng, level, values)
        if _split_of(json.dumps(scene, sort_keys=True)) == split:
            image = kind.render(scene)
            return _Picture(scene, level, png(image, compress_level=1), pixel_id(image))
    raise UserError(
        f"scene {kind.name}: {TRIES:,} tries gave no {split} picture with {values}; let it draw more different scenes."
    )


def _image_question(family: ImageFamily, picture: _Picture, split: str, seed: int, index: int) -> Question:
    rng = Random(f"{family.name}:{split}:{seed}:{index}")
    value, facts = picture.scene[family.name], picture.scene
    return _question(family, value, family.question, facts, picture.level, rng, split, seed, index, picture)


def _question(
    family: TextFamily | ImageFamily,
    value: Any,
    stem: str,
    facts: dict[str, Any],
    level: int,
    rng: Random,
    split: str,
    seed: int,
    index: int,
    picture: _Picture | None = None,
) -> Question:
    """A question with the gold value among options that are drawn from the family's other values."""
    count = min(rng.choices(list(OPTION_COUNTS), list(OPTION_COUNTS.values()))[0], len(family.values))
    choices = [value, *rng.sample([v for v in family.values if v != value], count - 1)]
    rng.shuffle(choices)
    options = {letter: family.text(v) for letter, v in zip(LETTERS, choices, strict=False)}
    label, steps = LETTERS[choices.index(value)], family.steps(facts)
    return Question(
        id=f"phantom-{family.name}-{split}-{seed}-{index}",
        dataset="phantom",
        split=split,
        modality=family.modality,
        image_modality=family.image_modality,
        images=[picture.png] if picture else [],
        image_ids=[picture.pixel_id] if picture else [],
        question=stem,
        options=options,
        answer_label=label,
        answer=options[label],
        family=family.name,
        difficulty=level,
        noise={"label": False, "trace": False},
        source={"name": "phantom", "revision": "1", "row": index, "licence": "Apache-2.0"},
        extra={"facts": facts, "steps": steps, "reference": family.reference},
    )


def _foreign_texts(family: TextFamily | ImageFamily) -> list[str]:
    """Answers of the other families of its modality that are none of its own, sorted."""
    others = {f.text(v) for f in FAMILIES.values() if f.modality == family.modality for v in f.values}
    return sorted(others - {family.text(v) for v in family.values})
