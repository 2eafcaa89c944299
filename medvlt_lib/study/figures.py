"""Figures of the studies; each function returns a matplotlib figure, at most `width` inches wide, in the style of
medvlt_lib.core.plot_style. What was not run leaves a gap, and where all is missing the figure says so. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medvlt_lib.core import plot_style as style
from medvlt_lib.core.plot_style import BLUE, COLOURS, GREEN, GREY, INK, MARKS, NOTEBOOK, ORANGE, RED, REPORT
from medvlt_lib.study.findings import CANNOT_TELL, DOES_NOT, HOLDS, NOT_RUN, Verdict, claims_file
from medvlt_lib.study.noise import METHODS, NOISES, Points
from medvlt_lib.study.reach import Reach

VERDICTS = {HOLDS: (BLUE, "o"), DOES_NOT: (RED, "s"), CANNOT_TELL: (GREY, "D")}
LINES = {"random": ("o", "-"), "systematic": ("s", "--")}
AFTER = {"rl_image": ORANGE, "sft_image": GREEN}
TITLES = {"text": "questions in words", "image": "questions on pictures"}


@style.styled
def noise(
    panels: dict[str, tuple[Points, dict[str, float]]],
    lit: tuple[str, str, int] | None = None,
    width: float = NOTEBOOK,
) -> Figure:
    """Accuracy over the share of wrong labels: a panel for each of `panels`, whose values `noise_points` gives.

    A line joins the means over seeds, small dots are single seeds. `lit`: (method, kind, share) of a point that is
    ringed, whose line stands out.
    """
    if not any(own for points, _ in panels.values() for own in points.values()):
        return _not_run("accuracy over the share of wrong labels", "noise")
    figure, axes = style.panels_in_rows(len(panels), width, 2.7 if len(panels) > 1 else 3.8, 2.9, sharey=True)
    names = {arm: name for name, arm in METHODS.items()}
    for axis, (title, (points, others)) in zip(axes, panels.items(), strict=True):
        for (method, kind), own in points.items():
            mark, dashes = LINES[kind]
            faint = lit is not None and lit[:2] != (method, kind)
            look = {"color": AFTER[method], "alpha": 0.3 if faint else 1.0}
            means = {share: 100 * fmean(values) for share, values in own.items()}
            label = f"{names[method]}, {NOISES[kind]}"
            axis.plot(list(means), list(means.values()), marker=mark, linestyle=dashes, label=label, **look)
            for share, values in own.items():
                axis.plot([share] * len(values), [100 * v for v in values], ".", markersize=4, **look)
            ringed = lit[2] if lit and lit[:2] == (method, kind) else None
            if ringed in means:
                axis.plot(ringed, means[ringed], "o", markersize=14, fillstyle="none", color=INK)
        for (arm, share), dots in zip(others.items(), (":", "-."), strict=False):
            axis.axhline(100 * share, color=BLUE if arm == "rl_text" else GREY, linestyle=dots, label=arm)
        axis.set(xlabel="wrong labels in training, %", title=title, xticks=[0, 20, 40, 60])
    axes[0].set_ylabel("accuracy, %; small dots: single seeds")
    style.legend_above(figure, axes[0])
    return figure


@style.styled
def pass_at_k(reach: Reach | None, width: float = NOTEBOOK) -> Figure:
    """pass@k of each arm beside what guessing gives, a panel for each kind of question."""
    if reach is None:
        return _not_run("pass@k after training", "diversity")
    figure, axes = style.panels_in_rows(len(reach.counts), width, 3.2, 2.7, sharey=True)
    ks = range(1, reach.samples + 1)
    for axis, (kind, arms) in zip(axes, reach.counts.items(), strict=True):
        for i, (arm, counts) in enumerate(arms.items()):
            values = [100 * reach.pass_at(kind, arm, k) for k in ks]
            axis.plot(ks, values, color=COLOURS[i], marker=MARKS[i], markersize=3, label=arm)
            numbers = len(counts)
        axis.plot(ks, [100 * reach.chance_at(kind, k) for k in ks], color=GREY, linestyle="--", label="guessing")
        axis.set(xlabel="k answers", title=f"{TITLES[kind]} (n = {numbers})", ylim=(0, 102))
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("pass@k, %")
    style.legend_above(figure, axes[0])
    return figure


@style.styled
def pass_counts(reach: Reach | None, width: float = NOTEBOOK) -> Figure:
    """How many questions each pass count has, before training and after: a panel for each arm and kind of question, the
    base's counts behind each."""
    if reach is None:
        return _not_run("pass counts after training", "diversity")
    pairs = [(kind, arm) for kind, arms in reach.counts.items() for arm in arms if arm != "base" and "base" in arms]
    if not pairs:
        return _not_run("pass counts of the base and another arm", "diversity")
    figure, axes = style.panels_in_rows(len(pairs), width, 2.8, 2.3)
    edges = np.arange(reach.samples + 2) - 0.5
    for axis, (kind, arm) in zip(axes, pairs, strict=True):
        before, after = (list(reach.counts[kind][name].values()) for name in ("base", arm))
        axis.hist(before, edges.tolist(), color=GREY, alpha=0.6, label="base, before")
        axis.hist(after, edges.tolist(), histtype="step", color=BLUE, linewidth=1.8, label="after training")
        axis.set(xlabel=f"right answers of {reach.samples}", title=f"{arm}, {kind} (n = {len(after)})")
        axis.set_ylabel("questions")
        axis.xaxis.get_major_locator().set_params(integer=True)
    style.legend_above(figure, axes[0])
    return figure


@style.styled
def claims(verdicts: Sequence[Verdict], width: float = REPORT) -> Figure:
    """Claims with their differences and intervals in points, marked by verdict; the band is what does not matter."""
    shown = [v for v in verdicts if v.verdict != NOT_RUN]
    if not shown:
        return _not_run("these claims", "NAME")
    names = [v.claim["claim"] for v in shown]
    inches, matters = 0.45 * width, 100 * claims_file()["matters"]
    each = max(0.34, 0.12 + 0.15 * style.most_lines(names, inches))
    figure = Figure(figsize=(width, 0.9 + each * len(shown)), layout="constrained")
    axis: Axes = figure.subplots()
    axis.axvspan(-matters, matters, color=GREY, alpha=0.18, linewidth=0)
    axis.axvline(0, color=GREY, linewidth=1)
    for verdict, (colour, mark) in VERDICTS.items():
        own = [i for i, v in enumerate(shown) if v.verdict == verdict]
        if own:
            points = [(100 * shown[i].mean, 100 * shown[i].low, 100 * shown[i].high) for i in own]
            style.interval_marks(axis, points, own, color=colour, fmt=mark, label=verdict)
    style.name_rows(axis, names, inches)
    seeds = " or ".join(map(str, sorted({v.seeds for v in shown})))
    axis.set_xlabel(style.wrapped(f"difference, points (95 % interval over {seeds} seeds)", 0.5 * width))
    style.legend_above(figure, axis)
    return figure


def _not_run(what: str, study: str) -> Figure:
    return style.nothing_to_draw(f"Not run: {what} (medvlt study {study}).")
