"""The picture of a question drawn again with another value of what is asked: does the answer follow?

Everything else of the scene stays: pose, contrast, grain, and the values of the other questions. Only where it is
a count are the things that are counted placed anew. No torch here.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import pixel_id, png
from medvlt_lib.core.records import Question
from medvlt_lib.phantom.image_families import ImageFamily
from medvlt_lib.phantom.questions import FAMILIES

COUNTED = {"nodule_count": "nodules", "dark_nuclei": "nuclei"}  # where a scene keeps what is counted


def drawable_values(question: Question) -> list[str]:
    """The texts of the values with which a question's picture can be drawn, in their order; none for a question that
    was not drawn here."""
    family = FAMILIES.get(question.family or "")
    if not isinstance(family, ImageFamily) or not question.extra.get("facts"):
        return []
    return [family.text(value) for value in family.values]


def redrawn(question: Question, text: str) -> Question:
    """The question on a picture that shows the value `text`, with the options that it had; where `text` is none of
    them, it takes the place of the answer that was right. Raises UserError for a value that cannot be drawn."""
    if text not in drawable_values(question):
        raise UserError(f"the picture of {question.id} cannot be drawn with '{text}'; {_choices(question)}.")
    family, facts = FAMILIES[question.family or ""], question.extra["facts"]
    assert isinstance(family, ImageFamily)
    scene: dict[str, Any] = {**facts, family.name: next(v for v in family.values if family.text(v) == text)}
    if places := COUNTED.get(family.name):
        values = {name: scene[name] for name in family.scene.values}
        scene[places] = family.scene.draw(Random(f"redrawn:{question.id}:{text}"), facts["level"], values)[places]
    picture = family.scene.render(scene)
    options = dict(question.options)
    if text not in options.values():
        options[question.answer_label] = text
    label = next(letter for letter, own in options.items() if own == text)
    return replace(
        question,
        id=f"{question.id} (drawn with {text})",
        images=[png(picture, compress_level=1)],
        image_ids=[pixel_id(picture)],
        options=options,
        answer_label=label,
        answer=text,
        reasoning=None,
        extra={**question.extra, "facts": scene, "steps": family.steps(scene)},
    )


def _choices(question: Question) -> str:
    values = drawable_values(question)
    return f"choose from {', '.join(values)}" if values else "only pictures of the embedded world can be drawn again"
