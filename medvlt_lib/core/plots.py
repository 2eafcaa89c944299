"""The course's figures; each function returns a matplotlib figure.

Colours are Okabe and Ito's, safe for colour-blind readers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Question

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
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


def pipeline(lit: str) -> Figure:
    """The six stages, SFT and GRPO side by side, with one of PLACES lit ('all' lights every one)."""
    figure = Figure(figsize=(8, 1.7), layout="constrained")
    axes = figure.subplots()
    boxes = {}
    for step, (right, up) in PLACES.items():
        face, edge, weight = (ORANGE, "black", "bold") if lit in (step, "all") else ("#eeeeee", GREY, "normal")
        box = {"boxstyle": "round,pad=0.5", "facecolor": face, "edgecolor": edge}
        text = axes.text(right, up, step, ha="center", va="center", bbox=box, fontsize=11, weight=weight)
        boxes[step] = text.get_bbox_patch()
    for start, end in WAYS:
        arrow = {"arrowstyle": "->", "color": GREY, "patchA": boxes[start], "patchB": boxes[end], "shrinkB": 3}
        axes.annotate("", PLACES[end], PLACES[start], arrowprops=arrow)
    axes.set(xlim=(-0.4, 4.5), ylim=(-0.95, 0.95))
    axes.axis("off")
    return figure


def gallery(questions: Sequence[Question], columns: int = 3) -> Figure:
    """Questions side by side: the picture where there is one, the stem, the options with the gold one marked."""
    rows = -(-len(questions) // columns)
    heights: list[float] = []  # in inches: in turn a row of pictures and the row of words below it
    for row in range(rows):
        pictured = any(q.images for q in questions[row * columns : (row + 1) * columns])
        heights += [1.9, 1.6] if pictured else [2.0, 0.01]
    figure = Figure(figsize=(3.6 * columns, sum(heights)), layout="constrained")
    panels = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=heights)
    for axis in panels.flat:
        axis.axis("off")
    for i, question in enumerate(questions):
        picture, words = panels[2 * (i // columns), i % columns], panels[2 * (i // columns) + 1, i % columns]
        if question.images:
            picture.imshow(load_image(question.images[0]))
        else:
            words = picture  # they stand at the top, where others have their picture
        picture.set_title(question.group.replace("_", " "), fontsize=10)
        lines = textwrap.wrap(question.question, 44)[:7]
        lines.append("")
        for letter, text in question.options.items():
            lines.append(f"{'→' if letter == question.answer_label else '   '} {letter}. {text}")
        words.text(0.02, 1, "\n".join(lines), va="top", fontsize=8, transform=words.transAxes)
    return figure


def shares(groups: dict[str, dict[str, int]], label: str, height: str) -> Figure:
    """Bars of each group's shares side by side: `groups` maps a group to its counts by category."""
    names = sorted({name for counts in groups.values() for name in counts})
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axis = figure.subplots()
    colours = [BLUE, ORANGE, GREEN, RED, GREY]
    for i, (group, counts) in enumerate(groups.items()):
        places = [x + (i - (len(groups) - 1) / 2) * 0.8 / len(groups) for x in range(len(names))]
        axis.bar(
            places,
            [counts.get(n, 0) / sum(counts.values()) for n in names],
            0.8 / len(groups),
            label=group,
            color=colours[i % len(colours)],
        )
    axis.set_xticks(range(len(names)), names)
    axis.set(xlabel=label, ylabel=height)
    axis.legend(fontsize=8)
    return figure


def pass_counts(counts: dict[str, Sequence[int]], samples: int, keep_from: int, keep_to: int) -> Figure:
    """A histogram of pass counts for each group of questions: what is kept in blue, what is left out in grey."""
    figure = Figure(figsize=(4.2 * len(counts), 3), layout="constrained")
    for axis, (name, values) in zip(
        figure.subplots(1, len(counts), sharey=True, squeeze=False)[0], counts.items(), strict=True
    ):
        for inside, colour, label in ((True, BLUE, f"kept: {keep_from} to {keep_to}"), (False, GREY, "left out")):
            shown = [c for c in range(samples + 1) if (keep_from <= c <= keep_to) == inside]
            axis.bar(shown, [list(values).count(c) for c in shown], color=colour, label=label)
        axis.set(title=f"{name} ({len(values)} questions)", xlabel=f"right answers of {samples}")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=8)
    figure.axes[0].set_ylabel("questions")
    return figure


def curves(log: Sequence[dict], keys: dict[str, str], total: int | None = None, smooth: int = 5) -> Figure:
    """Training curves over steps: one panel for every `key: label`, with a running mean over `smooth` rows."""
    return panels(log, {label: {key: f"mean of {smooth} steps"} for key, label in keys.items()}, total, smooth)


def panels(log: Sequence[dict], keys: dict[str, dict[str, str]], total: int | None = None, smooth: int = 5) -> Figure:
    """Training curves as `curves`, with several in a panel: `keys` maps a panel's label to its `key: name`."""
    figure = Figure(figsize=(3.4 * len(keys), 2.6), layout="constrained")
    for axis, (label, lines) in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys.items(), strict=True):
        for (key, name), colour in zip(lines.items(), (BLUE, ORANGE, GREEN, RED) * len(lines), strict=False):
            own = [row for row in log if key in row]
            values = [float(row[key]) for row in own]
            steps = [row.get("step", i + 1) for i, row in enumerate(own)]
            running = [sum(values[max(0, i - smooth + 1) : i + 1]) / min(i + 1, smooth) for i in range(len(values))]
            if len(lines) == 1:
                axis.plot(steps, values, color=GREY, linewidth=0.8)
            axis.plot(steps, running, color=colour, linewidth=2, label=name)
        axis.legend(fontsize=8)
        axis.set(xlabel="step", ylabel=label)
        if total:
            axis.set_xlim(0, total)
    return figure


def by_step(lines: dict[str, dict[str, list[tuple[int, float]]]], height: str) -> Figure:
    """Shares over steps: `lines` maps a panel's title to its lines, a name and (step, share) each."""
    figure = Figure(figsize=(3.8 * len(lines), 2.8), layout="constrained")
    for axis, (title, own) in zip(
        figure.subplots(1, len(lines), sharey=True, squeeze=False)[0], lines.items(), strict=True
    ):
        for (name, points), colour in zip(own.items(), (BLUE, ORANGE, GREEN, RED), strict=False):
            axis.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=name)
        axis.set(title=title, xlabel="step", ylim=(-0.03, 1.03))
    figure.axes[0].set_ylabel(height)
    figure.axes[0].legend(fontsize=8)
    return figure


def bars_over_steps(steps: dict[int, Sequence[float]], names: Sequence[str], height: str) -> Figure:
    """A bar chart that moves: one panel a step, and in each a bar for every name."""
    figure = Figure(figsize=(1.9 * len(steps), 2.3), layout="constrained")
    for axis, (step, values) in zip(figure.subplots(1, len(steps), sharey=True), steps.items(), strict=True):
        axis.bar(list(names), values, color=BLUE)
        axis.set(title=f"step {step}", ylim=(0, 1))
    figure.axes[0].set_ylabel(height)
    return figure


def loss_and_accuracy(log: Sequence[dict], points: Sequence[tuple[int, float, float, float]]) -> Figure:
    """The training loss over steps, and beside it an accuracy with its interval: (step, accuracy, low, high) each."""
    figure = Figure(figsize=(7.6, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = [row for row in log if "loss" in row]
    left.plot([row["step"] for row in rows], [float(row["loss"]) for row in rows], color=BLUE)
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    steps, shares_, low, high = zip(*points, strict=True)
    below = [share - end for share, end in zip(shares_, low, strict=True)]
    above = [end - share for share, end in zip(shares_, high, strict=True)]
    right.errorbar(steps, shares_, [below, above], fmt="o-", capsize=4, color=BLUE)
    right.set(xlabel="step", ylabel="validation accuracy", ylim=(0, 1))
    return figure


def accuracy(rows: Sequence[dict]) -> Figure:
    """Macro accuracy of the arms with 95 % intervals, and accuracy by data set.

    `rows`: what medvlt_lib.core.results.results returns.
    """
    names = list(rows[0]["datasets"])
    figure = Figure(figsize=(3.6 + 1.5 * len(names), 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, max(1, len(names) / 2)])
    colours = [GREY, ORANGE, BLUE, GREEN, RED, "#CC79A7", "#56B4E9"]
    for i, row in enumerate(rows):
        colour, value, (low, high) = colours[i % len(colours)], 100 * row["macro"], row["interval"]
        left.errorbar(i, value, [[value - 100 * low], [100 * high - value]], fmt="o", capsize=4, color=colour)
        width = 0.8 / len(rows)
        places = [x + (i - (len(rows) - 1) / 2) * width for x in range(len(names))]
        right.bar(places, [100 * row["datasets"][n]["accuracy"] for n in names], width, label=row["arm"], color=colour)
    left.set_xticks(range(len(rows)), [r["arm"] for r in rows], rotation=30, ha="right")
    left.set(ylabel="macro accuracy, % (95 % interval)", xlim=(-0.5, len(rows) - 0.5))
    right.set_xticks(range(len(names)), [textwrap.fill(n.replace("_", " "), 15) for n in names], fontsize=8)
    right.set_ylabel("accuracy, %")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=len(rows), fontsize=8)
    return figure


def differences(groups: dict[str, Sequence[tuple[float, float, float]]], names: Sequence[str], label: str) -> Figure:
    """Differences with their intervals: a row for each of `names`, in it a (value, low, high) of each group, and a line
    at 0."""
    figure = Figure(figsize=(7.4, 1 + (0.28 + 0.18 * len(groups)) * len(names)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color=GREY, linewidth=1)
    for i, ((group, points), colour) in enumerate(zip(groups.items(), (ORANGE, BLUE, GREEN, RED), strict=False)):
        rows = [row + (i - (len(groups) - 1) / 2) * 0.24 for row in range(len(names))]
        middle, low, high = zip(*points, strict=True)
        below = [m - end for m, end in zip(middle, low, strict=True)]
        above = [end - m for m, end in zip(middle, high, strict=True)]
        axis.errorbar(middle, rows, xerr=[below, above], fmt="o", capsize=4, color=colour, label=group)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
    if len(groups) > 1:
        figure.legend(loc="outside upper center", ncols=len(groups), fontsize=9)
    return figure


def heat_map(
    shares: dict[str, Sequence[float]], names: Sequence[str], chance: float, framed: Collection[tuple[str, str]]
) -> Figure:
    """Accuracies in percent, a row for each key of `shares` and a column for each of `names`: white at `chance`, violet
    above it, orange below it. `framed`: which cells, as (row, column), have a black frame."""
    figure = Figure(figsize=(2.6 + 1.5 * len(names), 0.7 + 0.42 * len(shares)), layout="constrained")
    axis = figure.subplots()
    norm = TwoSlopeNorm(chance, 0, 1)
    axis.imshow(list(shares.values()), cmap="PuOr", norm=norm, aspect="auto")
    for row, (key, values) in enumerate(shares.items()):
        for column, (name, value) in enumerate(zip(names, values, strict=True)):
            dark = abs(norm(value) - 0.5) > 0.3
            axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color="white" if dark else "black")
            if (key, name) in framed:
                axis.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, linewidth=2.2))
    axis.set_yticks(range(len(shares)), shares)
    axis.set_xticks(range(len(names)), names)
    axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)
    return figure


def resampled(means: dict[str, Sequence[float]], label: str) -> Figure:
    """Histograms over one another, each with the range that holds the middle 95 % of its values below it."""
    figure = Figure(figsize=(7.4, 2.6), layout="constrained")
    axis = figure.subplots()
    edges = np.histogram_bin_edges(np.concatenate(list(means.values())), 50).tolist()
    highest = max(np.histogram(values, edges)[0].max() for values in means.values())
    for i, ((name, values), colour) in enumerate(zip(means.items(), (ORANGE, BLUE, GREEN, RED), strict=False)):
        axis.hist(values, edges, color=colour, alpha=0.6, label=name)
        below = -0.09 * (i + 1) * highest
        axis.plot(np.percentile(values, [2.5, 97.5]), [below, below], color=colour, linewidth=4)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set(xlabel=label, ylabel="resamples")
    axis.set_yticks([tick for tick in axis.get_yticks() if tick >= 0])
    axis.legend(fontsize=9)
    return figure
