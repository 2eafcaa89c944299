"""A contact sheet: every image family with its picture, question, options, gold answer and teacher's trace."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from medvlt_lib.core.files import atomic_write
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Question
from medvlt_lib.phantom.questions import family_names, make_questions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTICE = "Synthetic phantoms, for learning the method. Not medical knowledge, not for clinical use."


def preview(path: str, seed: int = 0, columns: int = 3) -> None:
    """Write a PNG with `columns` examples of every image family."""
    from matplotlib.figure import Figure

    names = family_names("image")
    questions = make_questions("image", "train", len(names) * columns, seed)
    figure = Figure(figsize=(4.6 * columns, 2.1 * len(names)), layout="constrained")
    figure.suptitle(NOTICE, fontsize=11, color="firebrick")
    axes = figure.subplots(len(names), 2 * columns, width_ratios=[1, 1.25] * columns)
    for row, name in zip(axes, names, strict=True):
        for k, question in enumerate(q for q in questions if q.family == name):
            _panel(row[2 * k], row[2 * k + 1], question)
    atomic_write(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))


def _panel(picture: Axes, words: Axes, question: Question) -> None:
    """One question: its picture with a title on the left, its words on the right."""
    picture.imshow(load_image(question.images[0]))
    picture.set_title(f"{question.family}\n{question.image_modality}, level {question.difficulty}", fontsize=7)
    lines = [*textwrap.wrap(question.question, 34), ""]
    lines += [f"{'►' if k == question.answer_label else '   '} {k}. {text}" for k, text in question.options.items()]
    lines += ["", *textwrap.wrap(question.reasoning, 38)]
    words.text(0, 1, "\n".join(lines), va="top", fontsize=7, transform=words.transAxes)
    for axis in (picture, words):
        axis.axis("off")
