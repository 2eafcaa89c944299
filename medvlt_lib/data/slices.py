"""Questions on slices of a brain volume whose tissue is known: which plane, which side, which tissue.

Every answer is computed from the volume. A picture is one slice of 187 x 187 mm, reduced to the size of the embedded
world's pictures, with a red ring around one point. As radiologists have it, the patient's right is on the left of axial
and coronal slices; sagittal ones look to the left.

- *plane*: axial, coronal or sagittal.
- *side*: the patient's left or right, of axial and coronal slices; the ring is 10 mm or more from the midline.
- *tissue*: what lies at the middle of the ring. Grey and white matter are the volume's own maps, fluid is what they
  leave of the brain. A point is asked about only where all 3 x 3 mm around it are at least 90 % that tissue; outside
  the brain, where none of it is within 4 mm.

Along every axis, bands of 6 mm belong to one split each, with 4 mm between them that no split uses: slices of two
splits lie at least 5 mm apart. Of sagittal slices the distance from the midline counts, since the two halves may be
mirror images. All slices are of one volume: this asks whether pictures are read, not whether a new person's would be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import pixel_id, png
from medvlt_lib.core.records import LETTERS, Question

SIZE = 112  # pixels: pictures are as large as the phantom world's
HALF = 93  # voxels of 1 mm on either side of the volume's middle
SIDE = 2 * HALF + 1
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the axis that a plane's slices are counted along
AREA = 4000  # mm² of brain that a slice has at least
OFF_MIDLINE = 10  # mm
CERTAIN = 0.9  # share of a tissue
AROUND, AWAY = 3, 9  # mm: the width of the square that is all one tissue, and of that which holds no brain
BAND, UNUSED = 10, 4  # mm: from one band's beginning to the next one's, and of it what no split uses
BANDS = ("train", "test", "train", "validation")  # in turn
RING, RED = (3.5, 5.5), (255, 40, 40)  # pixels: radius inside and outside; the colour
FLUID, OUTSIDE = "cerebrospinal fluid", "outside the brain"
ANSWERS: dict[str, tuple[str, ...]] = {
    "plane": ("axial", "coronal", "sagittal"),
    "side": ("left", "right"),
    "tissue": ("grey matter", "white matter", FLUID, OUTSIDE),
}
QUESTIONS = {
    "plane": "This is an MRI slice of a brain. In which plane does it lie?",
    "side": "This is an MRI slice of a brain. The patient's right is on the left of the picture. On which side of the "
    "patient is the red ring?",
    "tissue": "This is an MRI slice of a brain. What lies at the middle of the red ring?",
}


@dataclass(frozen=True)
class Brain:
    """A volume of (187, 187, 187) voxels of 1 mm, 8 bits each, whose axes go to the patient's right, front and top.

    `t1` is 0 outside the brain; `grey` and `white` are shares of 255; the midline is at HALF of the first axis.
    `middle`: where the middle voxel lies, in the volume's own millimetres. `source`: a question's `source`.
    """

    t1: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    middle: tuple[int, int, int]
    source: dict[str, str]


def slice_families(names: str) -> list[str]:
    """The families of `all`, or of names with commas. Raises UserError for an unknown one."""
    wanted = [name.strip() for name in names.split(",")]
    if unknown := [name for name in wanted if name not in (*ANSWERS, "all")]:
        raise UserError(f"unknown family '{unknown[0]}' of slices; choose from all, {', '.join(ANSWERS)}.")
    return [name for name in ANSWERS if name in wanted or "all" in wanted]


def slice_questions(brain: Brain, families: str, split: str, n: int, seed: int) -> Iterator[Question]:
    """`n` questions of a split, one of each family in turn; the first k are the same for every n >= k.

    No point of a slice is asked about twice in a family. Raises UserError for an unknown family, and where a split has
    no point left with some answer.
    """
    names = slice_families(families)
    slices = {plane: slices_of(brain, plane, split) for plane in AXES}
    streams = [_family_questions(brain, name, slices, split, seed) for name in names]
    for number in range(n):
        yield next(streams[number % len(names)])


def slices_of(brain: Brain, plane: str, split: str) -> list[int]:
    """The slices of a plane that belong to a split and show enough of the brain, as places along its axis."""
    others = tuple(axis for axis in range(3) if axis != AXES[plane])
    areas = (brain.t1 > 0).sum(axis=others)
    return [i for i in range(SIDE) if areas[i] >= AREA and split_of(plane, i) == split]


def split_of(plane: str, place: int) -> str | None:
    """The split that a slice belongs to; None for those between two bands."""
    along = abs(place - HALF) if plane == "sagittal" else place
    return BANDS[along // BAND % len(BANDS)] if along % BAND < BAND - UNUSED else None


def cut(volume: np.ndarray, plane: str, place: int) -> np.ndarray:
    """One slice as it is looked at, (rows, columns): top or front above, the patient's right or front on the left."""
    return np.moveaxis(volume, AXES[plane], 0)[place, ::-1, ::-1].T


def voxel(plane: str, place: int, row: int, column: int) -> tuple[int, int, int]:
    """The voxel that `cut` shows in a row and column."""
    at = [SIDE - 1 - column, SIDE - 1 - row]
    at.insert(AXES[plane], place)
    return at[0], at[1], at[2]


def points(brain: Brain, family: str, answer: str, plane: str, place: int) -> np.ndarray:
    """Where in a slice a ring gives a family this answer beyond doubt: (rows, columns) of truth values."""
    fits = _tissue(brain, answer, plane, place) if family == "tissue" else cut(brain.t1, plane, place) > 0
    if family == "side":
        to_patients_left = np.arange(SIDE) - HALF  # mm, by column
        fits = fits & ((to_patients_left if answer == "left" else -to_patients_left) >= OFF_MIDLINE)
    edge = round(RING[1] * SIDE / SIZE) + 1  # the ring lies inside the picture
    inner = np.zeros_like(fits)
    inner[edge:-edge, edge:-edge] = fits[edge:-edge, edge:-edge]
    return inner


def _tissue(brain: Brain, tissue: str, plane: str, place: int) -> np.ndarray:
    """Where a slice shows this tissue beyond doubt: (rows, columns) of truth values."""
    inside = cut(brain.t1, plane, place) > 0
    grey, white = (cut(volume, plane, place).astype(np.int16) for volume in (brain.grey, brain.white))
    if tissue == OUTSIDE:
        brainlike = inside | (grey + white >= (1 - CERTAIN) * 255)
        return _filtered(brainlike, ImageFilter.MaxFilter(AWAY)) == 0
    share = {"grey matter": grey, "white matter": white, FLUID: np.where(inside, 255 - grey - white, 0)}[tissue]
    return _filtered(share, ImageFilter.MinFilter(AROUND)) >= CERTAIN * 255


def _filtered(values: np.ndarray, by: ImageFilter.Filter) -> np.ndarray:
    return np.asarray(Image.fromarray(values.astype(np.uint8)).filter(by))


def draw(brain: Brain, plane: str, place: int, row: int, column: int) -> Image.Image:
    """A slice as a picture of SIZE x SIZE pixels, with the ring around a point."""
    slice_ = Image.fromarray(np.ascontiguousarray(cut(brain.t1, plane, place)))
    image = slice_.resize((SIZE, SIZE), Image.Resampling.BILINEAR).convert("RGB")
    fine, scale = 4, SIZE / SIDE  # the ring is drawn four times as large and reduced, so that it has no steps
    ring = Image.new("L", (fine * SIZE, fine * SIZE))
    x, y = (fine * scale * (value + 0.5) for value in (column, row))
    inside, outside = (fine * radius for radius in RING)
    pen = ImageDraw.Draw(ring)
    pen.ellipse((x - outside, y - outside, x + outside, y + outside), fill=255)
    pen.ellipse((x - inside, y - inside, x + inside, y + inside), fill=0)
    image.paste(RED, mask=ring.reduce(fine))
    return image


def _family_questions(
    brain: Brain, family: str, slices: dict[str, list[int]], split: str, seed: int
) -> Iterator[Question]:
    rng = Random(f"{brain.source['name']}:{family}:{split}:{seed}")
    used = defaultdict(lambda: np.zeros((SIDE, SIDE), bool))
    for number, (answer, letter) in enumerate(_answers_at_letters(family, rng)):
        planes = {"plane": [answer], "side": ["axial", "coronal"]}.get(family, list(AXES))
        plane, place, row, column = _new_point(brain, family, answer, {p: slices[p] for p in planes}, rng, used)
        used[plane, place][row, column] = True
        options = [text for text in ANSWERS[family] if text != answer]
        rng.shuffle(options)
        options.insert(letter, answer)
        image = draw(brain, plane, place, row, column)
        at = voxel(plane, place, row, column)
        yield Question(
            id=f"{brain.source['name']}-{family}-{split}-{seed}-{number}",
            dataset=brain.source["name"],
            split=split,
            modality="image",
            image_modality="MRI",
            images=[png(image, compress_level=1)],
            image_ids=[pixel_id(image)],
            question=QUESTIONS[family],
            options=dict(zip(LETTERS, options, strict=False)),
            answer_label=LETTERS[letter],
            answer=answer,
            family=family,
            source={**brain.source, "row": number},
            extra={"plane": plane, "ring_mm": [v - HALF + m for v, m in zip(at, brain.middle, strict=True)]},
        )


def _answers_at_letters(family: str, rng: Random) -> Iterator[tuple[str, int]]:
    """Answers with the place of their letter: of k answers, every k² in a row hold each answer once at each letter, so
    that neither an answer nor a letter is right more often than the others."""
    pairs = list(product(ANSWERS[family], range(len(ANSWERS[family]))))
    while True:
        yield from rng.sample(pairs, len(pairs))


def _new_point(
    brain: Brain, family: str, answer: str, slices: dict[str, list[int]], rng: Random, used: dict
) -> tuple[str, int, int, int]:
    """A plane of those given, one of its slices and a point of it, each uniformly among those that have a new one."""
    for plane in rng.sample(list(slices), len(slices)):
        for place in rng.sample(slices[plane], len(slices[plane])):
            new = np.argwhere(points(brain, family, answer, plane, place) & ~used[plane, place])
            if len(new):
                row, column = new[rng.randrange(len(new))].tolist()
                return plane, place, row, column
    raise UserError(f"there are no more {family} questions with the answer {answer}; ask for fewer.")
