"""The one style of the course's figures: colours, widths, panels that go below one another where there is no room, and
a figure as SVG for a page.

Colours are Okabe and Ito's, safe for colour-blind readers; where several lines share a panel, their marks differ too.
"""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medvlt_lib.core.tables import visible

BLUE, ORANGE, GREEN, RED, GREY, INK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8A8A", "#222222"
COLOURS = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", GREY)
MARKS = "osD^vPX"
NOTEBOOK, REPORT, PHONE = 9.0, 7.4, 3.7  # inches: a notebook's output, a page's text, a phone of 390 pixels
LETTER = 0.075  # inches that a letter of 9 points takes on average, and a little more

styled = mpl.rc_context({
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8, "legend.frameon": False,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.spines.top": False, "axes.spines.right": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "lines.linewidth": 1.6, "figure.facecolor": "white", "axes.facecolor": "none",
})  # fmt: skip


def wrapped(text: object, inches: float) -> str:
    """A label in lines that fit so many inches at 9 points; a long word is broken. What it holds is shown as it is:
    a `$` begins no formula."""
    text = visible(text).replace("n = ", "n\u00a0=\u00a0").replace(" %", "\u00a0%")  # these stay together
    lines = textwrap.wrap(text, max(6, int(inches / LETTER))) or [""]
    return "\n".join(lines).replace("$", r"\$")


def most_lines(names: Sequence[str], inches: float) -> int:
    """How many lines the longest of some labels takes, wrapped to so many inches."""
    return max(wrapped(name, inches).count("\n") + 1 for name in names)


def panels_in_rows(
    number: int, width: float, least: float, height: float, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with `number` panels, as many side by side as are `least` inches wide each, each row `height` inches."""
    rows = -(-number // max(1, min(number, int(width // least))))
    columns = -(-number // rows)
    figure = Figure(figsize=(min(width, columns * 2 * least), rows * height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for spare in axes[number:]:
        spare.remove()
    return figure, axes[:number]


def legend_above(figure: Figure, axis: Axes) -> None:
    """One legend above the whole figure, which grows by its height, in as many columns as fit its width."""
    handles, names = axis.get_legend_handles_labels()
    width = figure.get_figwidth() - 0.3
    names = [wrapped(name, width - 0.5) for name in names]
    longest = max(len(line) for name in names for line in name.split("\n"))
    columns = max(1, min(len(names), int(width / (longest * LETTER + 0.5))))
    lines = max(name.count("\n") + 1 for name in names) * -(-len(names) // columns)
    figure.set_figheight(figure.get_figheight() + 0.16 * lines)
    figure.legend(handles, names, loc="outside upper center", ncols=columns)


def legend_inside(axis: Axes, inches: float) -> None:
    """A legend in a panel of so many inches, where it hides the least."""
    handles, names = axis.get_legend_handles_labels()
    axis.legend(handles, [wrapped(name, inches - 0.9) for name in names])


def name_rows(axis: Axes, names: Sequence[str], inches: float) -> None:
    """Rows of a panel, the first at the top, each with its name to the left in at most so many inches."""
    axis.set_yticks(range(len(names)), [wrapped(name, inches) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params("y", length=0)
    axis.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)


def interval_marks(
    axis: Axes, points: Sequence[tuple[float, float, float]], rows: Sequence[float], **look: Any
) -> None:
    """A mark and its interval at each height of `rows`. points: (value, low, high) each."""
    middle, reach = _reach(points)
    axis.errorbar(middle, rows, xerr=reach, capsize=3, markersize=5, **{"fmt": "o", **look})


def upright_marks(
    axis: Axes, points: Sequence[tuple[float, float, float]], places: Sequence[float], **look: Any
) -> None:
    """A mark and its interval above each place of `places`. points: (value, low, high) each."""
    middle, reach = _reach(points)
    axis.errorbar(places, middle, yerr=reach, **{"fmt": "o-", "capsize": 4, **look})


def _reach(points: Sequence[tuple[float, float, float]]) -> tuple[tuple[float, ...], list[list[float]]]:
    """The values, and how far their intervals reach to each side."""
    middle, low, high = zip(*points, strict=True)
    below = [max(0.0, m - end) for m, end in zip(middle, low, strict=True)]
    above = [max(0.0, end - m) for m, end in zip(middle, high, strict=True)]
    return middle, [below, above]


def running_mean(values: Sequence[float], over: int = 5) -> list[float]:
    """The mean of each value and those before it, `over` at most."""
    return [fmean(values[max(0, i - over + 1) : i + 1]) for i in range(len(values))]


def nothing_to_draw(why: str) -> Figure:
    """A figure that only says in one line why there is nothing in it."""
    figure = Figure(figsize=(REPORT, 0.5))
    axis = figure.subplots()  # without one Jupyter shows no picture
    axis.axis("off")
    axis.text(0, 0.5, why, transform=axis.transAxes)
    return figure


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for a page: no background, its ink in the page's text colour, so that it is right in
    light and dark; letters are drawn as shapes, so that no font is needed. `name` says what it shows, to readers that
    cannot see it; it is escaped here."""
    from xml.sax.saxutils import escape, quoteattr

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "medvlt", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace(INK.lower(), "currentColor")
    drawn = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    own = hashlib.sha256(drawn.encode()).hexdigest()[:8]  # so that the figures of a page do not share names
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{own}-", drawn)
    head = f'<svg role="img" aria-label={quoteattr(name)}'
    return drawn.replace("<svg", head, 1).replace("<defs>", f"<title>{escape(name)}</title><defs>", 1)
