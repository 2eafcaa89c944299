"""What a picture's gold answer is measured from, drawn into the picture: widths for a ratio, rings for a count.

Places are computed from the scene as image_families.py draws it, and turned with it. Synthetic, not for clinical use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Question
from medvlt_lib.phantom.image_families import SIZE, ChestFilm, Point, Scene
from medvlt_lib.phantom.questions import FAMILIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Mark(NamedTuple):
    """Something measured: a line from `start` to `end`, in pixels from the picture's upper left corner.

    A `ring` is what is counted: a circle whose diameter is that line.
    """

    start: Point
    end: Point
    ring: bool = False

    @property
    def length(self) -> float:
        """In pixels of the picture."""
        return math.dist(self.start, self.end)


def measured(question: Question) -> list[Mark]:
    """What the answer of a picture question is measured from.

    cardiothoracic_ratio: the chest's width, then the heart's; cup_to_disc_ratio: the disc's, then the cup's;
    nodule_count: one ring a nodule. Raises UserError for another family.
    """
    if question.family not in MEASURED:
        raise UserError(f"no measure is known for family {question.family}; choose from {', '.join(MEASURED)}.")
    scene = question.extra["facts"]
    return [Mark(_turned(m.start, scene), _turned(m.end, scene), m.ring) for m in MEASURED[question.family](scene)]


def _chest_and_heart(s: Scene) -> list[Mark]:
    cx, cy, half = 56 + s["dx"], 56 + s["dy"], s["chest_cm"] * ChestFilm.PX / 2
    heart = s["cardiothoracic_ratio"] / 100 * 2 * half
    middle = cx + 0.14 * heart  # the heart reaches further to the patient's left, which is the picture's right
    return [_across(cx, cy + 30, half), _across(middle, cy + 20, heart / 2)]


def _disc_and_cup(s: Scene) -> list[Mark]:
    cx, cy, disc = 56 + s["dx"], 56 + s["dy"], s["disc"] / 2
    return [_across(cx, cy, disc), _across(cx, cy, disc * s["cup_to_disc_ratio"] / 10)]


def _nodules(s: Scene) -> list[Mark]:
    return [_across(56 + s["dx"] + x, 56 + s["dy"] + y, radius, ring=True) for x, y, radius in s["nodules"]]


MEASURED: dict[str, Callable[[Scene], list[Mark]]] = {
    "cardiothoracic_ratio": _chest_and_heart,
    "nodule_count": _nodules,
    "cup_to_disc_ratio": _disc_and_cup,
}


def _across(x: float, y: float, half: float, ring: bool = False) -> Mark:
    return Mark((x - half, y), (x + half, y), ring)


def _turned(point: Point, s: Scene) -> Point:
    """Where a point lies after the picture was turned against the clock by the scene's tilt, around its middle."""
    angle, middle = math.radians(s["tilt"]), SIZE / 2
    x, y = point[0] - middle, point[1] - middle
    return middle + x * math.cos(angle) + y * math.sin(angle), middle - x * math.sin(angle) + y * math.cos(angle)


def annotated(questions: Sequence[Question]) -> Figure:
    """Picture questions side by side with what is measured drawn in, and below each its working and its answer."""
    from matplotlib import patheffects
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    from medvlt_lib.core.plot_style import BLUE, RED

    outline = [patheffects.withStroke(linewidth=5, foreground="white")]
    figure = Figure(figsize=(3.4 * len(questions), 4.4), layout="constrained")
    for axis, question in zip(figure.subplots(1, len(questions), squeeze=False)[0], questions, strict=True):
        family = FAMILIES[question.family or ""]
        axis.imshow(load_image(question.images[0]), extent=(0, SIZE, SIZE, 0))
        steps = family.steps(question.extra["facts"])
        for mark, colour, label in zip(measured(question), (BLUE, RED) * SIZE, steps * SIZE, strict=False):
            (x, y), (a, b) = mark.start, mark.end
            if mark.ring:
                circle = ((x + a) / 2, (y + b) / 2)
                axis.add_patch(Circle(circle, mark.length / 2 + 2, fill=False, color=RED, linewidth=2.5))
                continue
            axis.plot([x, a], [y, b], color=colour, linewidth=2.5, marker="|", markersize=10, path_effects=outline)
            axis.plot([], [], color=colour, linewidth=2.5, label=label)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=9, loc="upper left")
        axis.set_title(question.group.replace("_", " "), fontsize=11)
        axis.set_xlabel("\n".join([*steps, f"answer: {question.answer_label}. {question.answer}"]), fontsize=10)
        axis.set(xticks=[], yticks=[], xlim=(0, SIZE), ylim=(SIZE, 0))
    return figure
