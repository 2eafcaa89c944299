"""Figures of one run's arms: how they were trained, how long their answers are, and the steps that these state.

Each function returns a matplotlib figure, at most `width` inches wide, in the style of medvlt_lib.core.plot_style.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medvlt_lib.core import plot_style as style
from medvlt_lib.core.plot_style import BLUE, COLOURS, INK, MARKS, NOTEBOOK, ORANGE, RED
from medvlt_lib.phantom.true_steps import FIRST_ERRORS

MODALITIES = {"text": (BLUE, "o", "questions in words"), "image": (ORANGE, "s", "questions on pictures")}
SHOWN = {"works": "states a working", "all_true": "of these: all steps true", "follows": "of these: answer follows"}
NO_STEPS = "Nothing to draw: only on questions of the embedded world can steps be checked."
ERROR_COLOURS = tuple(colour for colour in COLOURS if colour != RED)


@style.styled
def training(logs: dict[str, Sequence[dict]], width: float = NOTEBOOK) -> Figure:
    """Loss, reward and validation accuracy over steps: a panel for each that was logged, in it a line for each arm."""
    measures = {"loss": "training loss (SFT)", "reward": "mean reward (GRPO)"}
    measures["validation_accuracy"] = "validation accuracy\n(95 % interval)"
    drawn = {key: {arm: _points(log, key) for arm, log in logs.items()} for key in measures}
    drawn = {key: {arm: own for arm, own in arms.items() if own} for key, arms in drawn.items()}
    drawn = {key: arms for key, arms in drawn.items() if arms}
    if not drawn:
        return style.nothing_to_draw("Nothing to draw: no step of training was logged.")
    figure, axes = style.panels_in_rows(len(drawn), width, 2.7, 2.6)
    looks = {arm: (COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]) for i, arm in enumerate(logs)}
    for axis, (key, arms) in zip(axes, drawn.items(), strict=True):
        for arm, points in arms.items():
            colour, mark = looks[arm]
            steps, values = zip(*points, strict=True)
            if key == "validation_accuracy":
                rows = [row for row in logs[arm] if key in row]
                spans = [(row[key], row["validation_low"], row["validation_high"]) for row in rows]
                style.upright_marks(axis, spans, steps, color=colour, fmt=f"{mark}-", capsize=3, markersize=4)
                continue
            axis.plot(steps, values, color=colour, alpha=0.35, linewidth=0.8)
            axis.plot(steps, style.running_mean(values), color=colour)
        axis.set(xlabel="step", ylabel=measures[key], ylim=(0, None if key == "loss" else 1.02))
    for arm, (colour, mark) in looks.items():  # every arm once, whatever was logged of it
        axes[0].plot([], [], color=colour, marker=mark, label=arm)
    style.legend_above(figure, axes[0])
    return figure


def _points(log: Sequence[dict], key: str) -> list[tuple[int, float]]:
    """(step, value) of each row that has `key`; the loss of GRPO is about 0 by its nature and tells nothing."""
    if key == "loss" and any("reward" in row for row in log):
        return []
    return [(row.get("step", i), float(row[key])) for i, row in enumerate(log) if key in row]


@style.styled
def lengths(answers: dict[str, Sequence[dict]], width: float = NOTEBOOK) -> Figure:
    """Tokens an answer of each arm: the median and the middle 80 % of the right and of the wrong ones, a panel for
    questions in words and one for those on pictures. answers: rows of answers.parquet by arm."""
    kinds = [k for k in MODALITIES if any(row["modality"] == k for rows in answers.values() for row in rows)]
    figure, axes = style.panels_in_rows(len(kinds), width, 3.2, 1 + 0.45 * len(answers))
    for axis, kind in zip(axes, kinds, strict=True):
        axis.set_title(MODALITIES[kind][2])
        for shift, right, colour, mark in ((-0.14, True, BLUE, "o"), (0.14, False, ORANGE, "s")):
            places, points, numbers = [], [], []
            for place, rows in enumerate(answers.values()):
                own = [r["tokens"] for r in rows if r["modality"] == kind and bool(r["correct"]) == right]
                if own:
                    low, middle, high = np.percentile(own, [10, 50, 90])
                    places.append(place + shift)
                    points.append((middle, low, high))
                    numbers.append(len(own))
            if points:
                label = "right answers" if right else "wrong answers"
                style.interval_marks(axis, points, places, color=colour, fmt=mark, label=label)
                _numbers(axis, points, places, numbers)
        style.name_rows(axis, list(answers), 1.2)
        axis.set_xlabel("tokens an answer: median and middle 80 %; beside it n")
        axis.set_xlim(0, 1.12 * axis.get_xlim()[1])
    style.legend_above(figure, axes[0])
    return figure


@style.styled
def stated_steps(stated: Sequence[dict], width: float = NOTEBOOK) -> Figure:
    """The shares of SHOWN by arm with their 95 % intervals, a panel each; beside every mark its number of answers.
    stated: rows of medvlt_lib.stages.steps.arm_steps."""
    if not stated:
        return style.nothing_to_draw(NO_STEPS)
    arms = list(dict.fromkeys(row["arm"] for row in stated))
    figure, axes = style.panels_in_rows(len(SHOWN), width, 2.6, 1 + 0.45 * len(arms))
    for axis, (share, title) in zip(axes, SHOWN.items(), strict=True):
        for shift, (kind, (colour, mark, label)) in zip((-0.14, 0.14), MODALITIES.items(), strict=True):
            own = [(arms.index(r["arm"]) + shift, r[share]) for r in stated if r["modality"] == kind and r[share]]
            if own:
                places = [place for place, _ in own]
                points = [(100 * s["share"], *(100 * end for end in s["interval"])) for _, s in own]
                style.interval_marks(axis, points, places, color=colour, fmt=mark, label=label)
                _numbers(axis, points, places, [s["answers"] for _, s in own])
        axis.set_title(title)
        style.name_rows(axis, arms, 1.0)
        axis.set(xlabel="% (95 % interval); beside it n", xlim=(-3, 118))
        axis.set_xticks([0, 25, 50, 75, 100])
    style.legend_above(figure, axes[0])
    return figure


def _numbers(axis: Axes, points: Sequence[tuple], places: Sequence[float], numbers: Sequence[int]) -> None:
    """How many there are, to the right of each mark's interval."""
    for (_, _, high), place, number in zip(points, places, numbers, strict=True):
        axis.annotate(f"{number}", (high, place), (4, 0), textcoords="offset points", va="center", fontsize=7)


@style.styled
def first_errors(stated: Sequence[dict], width: float = NOTEBOOK) -> Figure:
    """Where answers first went wrong, in percent of all answers: a bar for each arm and kind of question."""
    rows = [row for row in stated if row["modality"] in MODALITIES]
    if not rows:
        return style.nothing_to_draw(NO_STEPS)
    figure = Figure(figsize=(width, 1.1 + 0.3 * len(rows)), layout="constrained")
    axis = figure.subplots()
    left = np.zeros(len(rows))
    for (kind, name), colour in zip(FIRST_ERRORS.items(), ERROR_COLOURS, strict=True):
        shares = np.array([100 * row["first_errors"][kind] / row["answers"] for row in rows])
        axis.barh(range(len(rows)), shares, 0.7, left, color=colour, label=name, edgecolor="white", linewidth=0.6)
        for place, (start, share) in enumerate(zip(left, shares, strict=True)):
            if share >= 3:
                ink = "white" if colour == BLUE else INK
                axis.text(start + share / 2, place, f"{share:.0f}", ha="center", va="center", fontsize=7, color=ink)
        left += shares
    style.name_rows(axis, [f"{r['arm']}, {r['modality']} (n = {r['answers']})" for r in rows], 0.3 * width)
    axis.set_xlabel("% of all answers, by the first thing that is wrong in them")
    style.legend_above(figure, axis)
    return figure
