"""Figures that are no charts: the course's six stages, and questions with their pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure

from medvlt_lib.core import plot_style as style
from medvlt_lib.core.images import load_image
from medvlt_lib.core.plot_style import GREY, INK, ORANGE
from medvlt_lib.core.records import Question

PLACES = {  # the six stages: (right, up)
    "data": (0, 0),
    "filtering": (1, -0.5),
    "SFT": (1.5, 0.5),
    "GRPO": (2, -0.5),
    "evaluation": (3, 0),
    "analysis": (4, 0),
}
WAYS = (
    ("data", "SFT"), ("data", "filtering"), ("filtering", "GRPO"), ("SFT", "evaluation"), ("GRPO", "evaluation"),
    ("evaluation", "analysis"),
)  # fmt: skip


@style.styled
def pipeline(lit: str) -> Figure:
    """The six stages, SFT and GRPO side by side, with one of PLACES lit ('all' lights every one)."""
    figure = Figure(figsize=(8, 1.7), layout="constrained")
    axes = figure.subplots()
    boxes = {}
    for step, (right, up) in PLACES.items():
        face, edge, weight = (ORANGE, INK, "bold") if lit in (step, "all") else ("#eeeeee", GREY, "normal")
        box = {"boxstyle": "round,pad=0.5", "facecolor": face, "edgecolor": edge}
        text = axes.text(right, up, step, ha="center", va="center", bbox=box, fontsize=11, weight=weight)
        boxes[step] = text.get_bbox_patch()
    for start, end in WAYS:
        arrow = {"arrowstyle": "->", "color": GREY, "patchA": boxes[start], "patchB": boxes[end], "shrinkB": 3}
        axes.annotate("", PLACES[end], PLACES[start], arrowprops=arrow)
    axes.set(xlim=(-0.4, 4.5), ylim=(-0.95, 0.95))
    axes.axis("off")
    return figure


@style.styled
def gallery(questions: Sequence[Question], columns: int = 3) -> Figure:
    """Questions side by side: the picture where there is one, the stem, the options with the gold one marked. A long
    stem is cut after seven lines, a long option after one."""
    rows = -(-len(questions) // columns)
    heights: list[float] = []  # in inches: in turn a row of pictures and the row of words below it
    for row in range(rows):
        own = questions[row * columns : (row + 1) * columns]
        lines = max(min(7, len(textwrap.wrap(q.question, 44))) + len(q.options) + 1 for q in own)
        heights += [1.9, 0.15 * lines] if any(q.images for q in own) else [0.35 + 0.15 * lines, 0.01]
    figure = Figure(figsize=(3.2 * columns, sum(heights)), layout="constrained")
    panels = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=heights)
    for axis in panels.flat:
        axis.axis("off")
    for i, question in enumerate(questions):
        picture, words = panels[2 * (i // columns), i % columns], panels[2 * (i // columns) + 1, i % columns]
        if question.images:
            picture.imshow(load_image(question.images[0]))
        else:
            words = picture  # they stand at the top, where others have their picture
        picture.set_title(style.wrapped(question.group.replace("_", " "), 2.6))
        lines = textwrap.wrap(question.question, 44)[:7]
        lines.append("")
        for letter, text in question.options.items():
            option = textwrap.shorten(text, 38, placeholder=" …") if len(text) > 38 else text
            lines.append(f"{'→' if letter == question.answer_label else '   '} {letter}. {option[:38]}")
        words.text(
            0.02,
            1,
            "\n".join(lines).replace("$", r"\$"),
            va="top",
            fontsize=8,
            transform=words.transAxes,
            in_layout=False,
        )
    return figure
