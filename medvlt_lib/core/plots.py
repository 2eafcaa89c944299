"""The course's charts; each function returns a matplotlib figure, at most `width` inches wide.

What they have in common (colours, letters, panels that wrap) stands in medvlt_lib.core.plot_style;
what is drawn but no chart, in medvlt_lib.core.plot_drawings.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from medvlt_lib.core import plot_style as style
from medvlt_lib.core.plot_drawings import gallery as gallery
from medvlt_lib.core.plot_drawings import pipeline as pipeline
from medvlt_lib.core.plot_style import BLUE, COLOURS, GREY, INK, MARKS, NOTEBOOK, PHONE, REPORT

GREEN, RED = style.GREEN, style.RED  # with those above, for figures that notebooks draw themselves


@style.styled
def shares(groups: dict[str, dict[str, int]], label: str, height: str, width: float = REPORT) -> Figure:
    """Bars of each group's shares side by side: `groups` maps a group to its counts by category."""
    names = sorted({name for counts in groups.values() for name in counts})
    figure = Figure(figsize=(width, 3), layout="constrained")
    axis = figure.subplots()
    for i, (group, counts) in enumerate(groups.items()):
        total, bar = sum(counts.values()), 0.8 / len(groups)
        places = [x + (i - (len(groups) - 1) / 2) * bar for x in range(len(names))]
        heights = [counts.get(n, 0) / total for n in names]
        axis.bar(places, heights, bar, label=f"{group} (n = {total})", color=COLOURS[i % len(COLOURS)])
    axis.set_xticks(range(len(names)), [style.wrapped(n, (width - 0.8) / len(names) - 0.05) for n in names])
    axis.set(xlabel=style.wrapped(label, width - 1), ylabel=style.wrapped(height, 2))
    style.legend_above(figure, axis)
    return figure


@style.styled
def pass_counts(
    counts: dict[str, Sequence[int]], samples: int, keep_from: int, keep_to: int, width: float = NOTEBOOK
) -> Figure:
    """A histogram of pass counts for each group of questions: what is kept in blue, what is left out in grey."""
    figure, axes = style.panels_in_rows(len(counts), width, 2.8, 2.9, sharey=True)
    for axis, (name, values) in zip(axes, counts.items(), strict=True):
        for inside, colour, label in ((True, BLUE, f"kept: {keep_from} to {keep_to}"), (False, GREY, "left out")):
            shown = [c for c in range(samples + 1) if (keep_from <= c <= keep_to) == inside]
            axis.bar(shown, [list(values).count(c) for c in shown], color=colour, label=label)
        each = figure.get_figwidth() / len(counts) if width > PHONE else width
        axis.set_title(style.wrapped(f"{name} (n = {len(values)} questions)", each - 0.8))
        axis.set(xlabel=f"right answers of {samples}", ylabel="questions")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.legend_above(figure, axes[0])
    return figure


def curves(
    log: Sequence[dict], keys: dict[str, str], total: int | None = None, smooth: int = 5, width: float = NOTEBOOK
) -> Figure:
    """Training curves over steps: one panel for every `key: label`, with a running mean over `smooth` rows."""
    named = {label: {key: f"mean of {smooth} steps"} for key, label in keys.items()}
    return panels(log, named, total, smooth, width)


@style.styled
def panels(
    log: Sequence[dict],
    keys: dict[str, dict[str, str]],
    total: int | None = None,
    smooth: int = 5,
    width: float = NOTEBOOK,
) -> Figure:
    """Training curves as `curves`, with several in a panel: `keys` maps a panel's label to its `key: name`."""
    figure, axes = style.panels_in_rows(len(keys), width, 2.2, 2.4)
    for axis, (label, lines) in zip(axes, keys.items(), strict=True):
        for (key, name), colour in zip(lines.items(), COLOURS * len(lines), strict=False):
            own = [row for row in log if key in row]
            values = [float(row[key]) for row in own]
            steps = [row.get("step", i + 1) for i, row in enumerate(own)]
            if len(lines) == 1:
                axis.plot(steps, values, color=GREY, linewidth=0.8, alpha=0.8, label="each step")
            axis.plot(steps, style.running_mean(values, smooth), color=colour, linewidth=2, label=name)
        style.legend_inside(axis, 2.2)
        axis.set(xlabel="step", ylabel=style.wrapped(label, 1.6))
        if total:
            axis.set_xlim(0, total)
    return figure


@style.styled
def by_step(lines: dict[str, dict[str, list[tuple[int, float]]]], height: str, width: float = NOTEBOOK) -> Figure:
    """Shares over steps: `lines` maps a panel's title to its lines, a name and (step, share) each."""
    figure, axes = style.panels_in_rows(len(lines), width, 2.6, 2.8, sharey=True)
    for axis, (title, own) in zip(axes, lines.items(), strict=True):
        for (name, points), colour, mark in zip(own.items(), COLOURS, MARKS, strict=False):
            axis.plot(*zip(*points, strict=True), color=colour, marker=mark, markersize=4, label=name)
        axis.set(title=style.wrapped(title, 2.4), xlabel="step", ylim=(-0.03, 1.03))
    axes[0].set_ylabel(style.wrapped(height, 1.8))
    style.legend_above(figure, axes[0])
    return figure


@style.styled
def bars_over_steps(
    steps: dict[int, Sequence[float]], names: Sequence[str], height: str, width: float = NOTEBOOK
) -> Figure:
    """A bar chart that moves: one panel a step, and in each a bar for every name."""
    figure, axes = style.panels_in_rows(len(steps), width, 1.6, 2.1, sharey=True)
    for axis, (step, values) in zip(axes, steps.items(), strict=True):
        axis.bar(list(names), values, color=BLUE)
        axis.set(title=f"step {step}", ylim=(0, 1))
    axes[0].set_ylabel(style.wrapped(height, 1.4))
    return figure


@style.styled
def loss_and_accuracy(
    log: Sequence[dict], points: Sequence[tuple[int, float, float, float]], width: float = NOTEBOOK
) -> Figure:
    """The training loss over steps, and beside it an accuracy with its interval: (step, accuracy, low, high) each."""
    figure, (left, right) = style.panels_in_rows(2, width, 3, 2.8)
    rows = [row for row in log if "loss" in row]
    left.plot([row["step"] for row in rows], [float(row["loss"]) for row in rows], color=BLUE)
    left.set(xlabel="step", ylabel="training loss, nats a token", ylim=(0, None))
    _validated(right, points)
    return figure


@style.styled
def validation(points: Sequence[tuple[int, float, float, float]], width: float = PHONE) -> Figure:
    """Validation accuracy over steps, with its interval: (step, accuracy, low, high) each."""
    figure, [axis] = style.panels_in_rows(1, width, 2.2, 2.4)
    _validated(axis, points)
    return figure


def _validated(axis: Axes, points: Sequence[tuple[int, float, float, float]]) -> None:
    style.upright_marks(axis, [own[1:] for own in points], [own[0] for own in points], color=BLUE)
    axis.set(xlabel="step", ylabel="validation accuracy\n(95 % interval)", ylim=(0, 1.02))


@style.styled
def accuracy(rows: Sequence[dict], width: float = NOTEBOOK) -> Figure:
    """Macro accuracy of the arms with 95 % intervals, and with the same marks accuracy by data set.

    `rows`: what medvlt_lib.core.results.results returns.
    """
    names, arms = list(rows[0]["datasets"]), [row["arm"] for row in rows]
    sizes = [f"{name.replace('_', ' ')}, n = {rows[0]['datasets'][name]['questions']}" for name in names]
    beside, lines = width > 5, (style.most_lines(arms, 1.3), style.most_lines(sizes, 1.2))
    heights = [
        1 + (0.18 + 0.15 * lines[0]) * len(arms),
        1 + len(names) * (0.1 + max(0.15 * lines[1], 0.13 * len(arms))),
    ]
    figure = Figure(figsize=(width, max(heights) if beside else sum(heights)), layout="constrained")
    one, two = figure.subplots(1, 2) if beside else figure.subplots(2, 1, height_ratios=heights)
    for i, row in enumerate(rows):
        look = {"color": COLOURS[i % len(COLOURS)], "fmt": MARKS[i % len(MARKS)]}
        style.interval_marks(one, [_in_percent(row["macro"], row["interval"])], [i], **look)
        sets = [row["datasets"][name] for name in names]
        places = [y + (i - (len(rows) - 1) / 2) * 0.8 / len(rows) for y in range(len(names))]
        style.interval_marks(two, [_in_percent(s["accuracy"], s["interval"]) for s in sets], places, **look)
    style.name_rows(one, arms, 1.3)
    asked = rows[0]["questions"]
    one.set_xlabel(style.wrapped(f"macro accuracy, % (95 % interval), n = {asked} questions", 2.1))
    style.name_rows(two, sizes, 1.2)
    two.set_xlabel(style.wrapped("accuracy by data set, % (95 % interval)", 2.1))
    return figure


def _in_percent(share: float, interval: Sequence[float]) -> tuple[float, float, float]:
    return 100 * share, 100 * interval[0], 100 * interval[1]


@style.styled
def differences(
    groups: dict[str, Sequence[tuple[float, float, float]]], names: Sequence[str], label: str, width: float = REPORT
) -> Figure:
    """Differences with their intervals: a row for each of `names`, in it a (value, low, high) of each group, and a line
    at 0."""
    each = max(0.1 + 0.15 * style.most_lines(names, 0.35 * width), 0.28 + 0.18 * len(groups))
    figure = Figure(figsize=(width, 1 + each * len(names)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color=GREY, linewidth=1)
    for i, (group, points) in enumerate(groups.items()):
        rows = [row + (i - (len(groups) - 1) / 2) * 0.24 for row in range(len(names))]
        style.interval_marks(
            axis, points, rows, color=COLOURS[i % len(COLOURS)], fmt=MARKS[i % len(MARKS)], label=group
        )
    style.name_rows(axis, names, 0.35 * width)
    axis.set_xlabel(style.wrapped(label, 0.6 * width))
    if len(groups) > 1:
        style.legend_above(figure, axis)
    return figure


@style.styled
def heat_map(
    shares: dict[str, Sequence[float]],
    names: Sequence[str],
    chance: float,
    framed: Collection[tuple[str, str]],
    width: float = REPORT,
) -> Figure:
    """Accuracies in percent, a row for each key of `shares` and a column for each of `names`: white at `chance`, violet
    above it, orange below it. `framed`: which cells, as (row, column), have a black frame."""
    side = min(1.7, 0.35 * width)
    width = min(width, side + 0.3 + 1.5 * len(names))
    each = (width - side - 0.3) / len(names)
    heads = [style.wrapped(name, each - 0.05) for name in names]
    room = 0.5 + 0.16 * max(head.count("\n") for head in heads)
    figure = Figure(
        figsize=(width, room + max(0.42, 0.1 + 0.15 * style.most_lines(list(shares), side)) * len(shares)),
        layout="constrained",
    )
    axis = figure.subplots()
    norm = TwoSlopeNorm(chance, 0, 1)
    axis.imshow(list(shares.values()), cmap="PuOr", norm=norm, aspect="auto")
    for row, (key, values) in enumerate(shares.items()):
        for column, (name, value) in enumerate(zip(names, values, strict=True)):
            dark = abs(norm(value) - 0.5) > 0.3
            axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color="white" if dark else "black")
            if (key, name) in framed:
                axis.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, linewidth=2.2))
    axis.set_yticks(range(len(shares)), [style.wrapped(key, side) for key in shares])
    axis.set_xticks(range(len(names)), heads)
    axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)
    return figure


@style.styled
def resampled(means: dict[str, Sequence[float]], label: str, width: float = REPORT) -> Figure:
    """Histograms over one another, each with the range that holds the middle 95 % of its values below it."""
    figure = Figure(figsize=(width, 2.8), layout="constrained")
    axis = figure.subplots()
    edges = np.histogram_bin_edges(np.concatenate(list(means.values())), 50).tolist()
    highest = max(np.histogram(values, edges)[0].max() for values in means.values())
    for i, (name, values) in enumerate(means.items()):
        colour = COLOURS[i % len(COLOURS)]
        axis.hist(values, edges, color=colour, alpha=0.6, label=f"{name} (n = {len(values)})")
        below = -0.09 * (i + 1) * highest
        axis.plot(np.percentile(values, [2.5, 97.5]), [below, below], color=colour, linewidth=4)
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set(xlabel=style.wrapped(f"{label}; lines below: the middle 95 %", width - 1), ylabel="resamples")
    axis.set_yticks([tick for tick in axis.get_yticks() if tick >= 0])
    style.legend_above(figure, axis)
    return figure
