"""A question asked otherwise, for controls: without its picture, in grey, with another's, options reordered.

Each keeps the question's `image_ids`, so that answers still belong to the picture that it came with. No torch.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from random import Random

from PIL import Image

from medvlt_lib.core.images import load_image, png
from medvlt_lib.core.records import Question

GREY = (127, 127, 127)


def without_picture(question: Question) -> Question:
    """The words alone."""
    return replace(question, modality="text", images=[])


def grey(question: Question) -> Question:
    """A uniformly grey picture of the same size in the place of each picture."""
    return replace(question, images=[_grey_png(load_image(image).size) for image in question.images])


def with_pictures_of_others(questions: list[Question]) -> list[tuple[Question, Question | None]]:
    """Each question with the pictures of the next question of its data set or family that has another picture, and that
    question; unchanged and with None where there is no such question."""
    groups = defaultdict(list)
    for question in questions:
        groups[question.group].append(question)
    places = {id(q): (own, i) for own in groups.values() for i, q in enumerate(own)}
    found: list[tuple[Question, Question | None]] = []
    for question in questions:
        own, place = places[id(question)]
        following = (*own[place + 1 :], *own[:place])
        other = next((q for q in following if q.image_ids != question.image_ids), None)
        found.append((replace(question, images=other.images) if other else question, other))
    return found


def reordered(question: Question, rng: Random) -> Question:
    """The options in another order, in which the right one has another letter; each such order is equally likely."""
    letters = list(question.options)
    right = letters.index(question.answer_label)
    place = rng.choice([i for i in range(len(letters)) if i != right])
    texts = [text for letter, text in question.options.items() if letter != question.answer_label]
    rng.shuffle(texts)
    texts.insert(place, question.answer)
    return replace(question, options=dict(zip(letters, texts, strict=True)), answer_label=letters[place])


def _grey_png(size: tuple[int, int]) -> bytes:
    return png(Image.new("RGB", size, GREY), compress_level=1)
