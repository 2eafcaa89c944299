"""Figures of evaluation: what is drawn where, read off the axes."""

import re
import xml.etree.ElementTree as xml
from functools import partial

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medvlt_lib.core import plot_style, plots
from medvlt_lib.core.records import Question

LONG = ["an_arm_whose_name_has_no_blanks_and_goes_on", "costs $5 or $6 & more, in rather many words of all kinds", "b"]
TEN = [f"{name} {i}" for i in range(4) for name in LONG][:7]


def results_of(names: list[str], sets: list[str]) -> list[dict]:
    one = {"questions": 4000, "accuracy": 0.6, "interval": (0.52, 0.7)}
    row = {"questions": 40000, "macro": 0.5, "interval": (0.4, 0.61), "datasets": dict.fromkeys(sets, one)}
    return [{**row, "arm": name} for name in names]


LOG = [{"step": i, "loss": 1 / i, "reward": i / 30, "b": 0.1} for i in range(1, 31)]
POINTS = [(0, 0.2, 0.1, 0.4), (1000, 1.0, 0.9, 1.0)]
SPANS = [(float(i), i - 3.0, i + 3.0) for i in range(7)]
LINES = {name: {other: [(0, 0.1), (9, 0.9)] for other in LONG} for name in LONG}
COUNTS = {name: {letter: 3 for letter in LONG} for name in LONG}
WIDE = {  # what is drawn at a given width
    "shares": partial(plots.shares, COUNTS, " ".join(LONG), LONG[1]),
    "pass_counts": partial(plots.pass_counts, {key: [0, 3, 16] for key in LONG}, 16, 1, 12),
    "panels": partial(plots.panels, LOG, {LONG[0]: {"reward": LONG[1], "b": LONG[0]}, "loss": {"loss": LONG[2]}}),
    "curves": partial(plots.curves, LOG, {"reward": LONG[1], "loss": LONG[0], "b": "b", "missing": LONG[1]}),
    "by_step": partial(plots.by_step, LINES, LONG[1]),
    "bars_over_steps": partial(plots.bars_over_steps, {key: [0.1, 0.9] for key in range(5)}, "AB", LONG[1]),
    "loss_and_accuracy": partial(plots.loss_and_accuracy, LOG, POINTS),
    "accuracy": partial(plots.accuracy, results_of(TEN, LONG)),
    "one arm": partial(plots.accuracy, results_of(["base"], ["a set"])),
    "differences": partial(plots.differences, {LONG[0]: SPANS, LONG[1]: SPANS}, TEN, " ".join(LONG)),
    "heat_map": partial(plots.heat_map, {key: [0.1, 0.3, 0.9] for key in TEN}, LONG, 0.3, {(TEN[0], LONG[0])}),
    "resampled": partial(plots.resampled, {key: np.linspace(0, 1, 99) for key in LONG}, " ".join(LONG)),
}


def outside(figure: Figure) -> list[str]:
    """What is wrong with a figure's frame: letters, legends or marks that leave it, and panels without room."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    over = {"left": -drawn.x0, "below": -drawn.y0, "right": drawn.x1 - width, "above": drawn.y1 - height}
    found = [f"{inches:.2f} inches too far {side}" for side, inches in over.items() if inches > 0.01]
    return found + [
        f"{axis} is too small" for axis in figure.axes if axis.axison and min(axis.bbox.width, axis.bbox.height) < 45
    ]


@pytest.mark.filterwarnings("error:constrained_layout")
@pytest.mark.parametrize("width", [plots.NOTEBOOK, plots.REPORT, plots.PHONE])
@pytest.mark.parametrize("name", WIDE)
def test_nothing_leaves_the_frame_at_any_width(name, width):
    figure = WIDE[name](width=width)
    assert outside(figure) == []
    assert figure.get_figwidth() <= width + 1e-9
    assert all(axis.get_xlabel() or axis.get_xticklabels() for axis in figure.axes)


def test_the_frame_test_finds_what_sticks_out():
    figure = Figure(figsize=(3, 2))
    figure.add_axes((0.2, 0.3, 0.6, 0.5)).set_yticks([0], [LONG[1]])
    assert [found.split()[-1] for found in outside(figure)] == ["left"]


def test_long_questions_stay_in_the_gallery():
    options = {letter: " ".join(LONG) for letter in "ABCDE"}
    question = Question("1", LONG[0], "test", "text", " ".join(LONG * 9), options, "B", options["B"])
    figure = plots.gallery([question] * 5)
    assert outside(figure) == [] and outside(plots.pipeline("all")) == []
    words = [text.get_window_extent() for axis in figure.axes for text in axis.texts]
    assert len(words) == 5 and all(figure.bbox.contains(*corner) for box in words for corner in box.corners())
    assert not any(a.overlaps(b) for i, a in enumerate(words) for b in words[:i])


def test_an_interval_is_drawn_where_it_lies():
    rows = results_of(["base", "rl"], ["one", "two"])
    left, right = plots.accuracy(rows).axes
    ends = [bar for c in (*left.containers, *right.containers) for bar in c.lines[2][0].get_segments()]
    assert [(round(a[0]), round(b[0])) for a, b in ends] == [(40, 61)] * 2 + [(52, 70)] * 4
    assert "n = 40000" in left.get_xlabel().translate({10: " ", 160: " "})
    assert "n = 4000" in right.get_yticklabels()[0].get_text().translate({10: " ", 160: " "})


def test_svg_takes_the_colour_of_the_page_and_escapes_its_name():
    drawn = plot_style.svg(plots.differences({"": SPANS}, TEN, "points"), '"><script>alert(1)</script>')
    root = xml.fromstring(drawn)  # it is well-formed
    assert root.get("aria-label") == '"><script>alert(1)</script>'
    assert "<script" not in drawn and "currentColor" in drawn and plots.INK not in drawn
    assert not re.search(r'(?:href|src)="(?!#)', drawn)  # nothing is fetched


def test_differences_draw_each_interval_in_its_row():
    groups = {"unpaired": [(2.0, -4.0, 8.0), (-1.0, -3.0, 1.0)], "paired": [(2.0, 1.0, 3.0), (-1.0, -2.0, 0.5)]}
    axis = plots.differences(groups, ["first", "second"], "points").axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["first", "second"]
    drawn = []
    for container in axis.containers:
        _, _, (bars,) = container.lines
        for row, bar in enumerate(bars.get_segments()):
            assert bar[0][1] == pytest.approx(row, abs=0.4)
            drawn.append((container.get_label(), row, bar[0][0], bar[1][0]))
    assert drawn == [
        (name, row, low, high) for name, points in groups.items() for row, (_, low, high) in enumerate(points)
    ]
    assert axis.yaxis_inverted()  # the first stands at the top


def test_a_heat_map_is_white_at_chance_and_frames_what_it_is_told():
    shares = {"as asked": [0.9, 0.3], "grey picture": [0.3, 0.1]}
    axis = plots.heat_map(shares, ["base", "rl_text"], 0.3, {("grey picture", "rl_text")}).axes[0]
    image = axis.images[0]
    colours = image.cmap(image.norm(image.get_array()))
    assert colours[0, 1][:3] == pytest.approx(colours[1, 0][:3]) and min(colours[0, 1][:3]) > 0.95
    assert colours[0, 0][2] > colours[0, 0][1] and colours[1, 1][0] > colours[1, 1][2]  # violet, orange
    assert [text.get_text() for text in axis.texts] == ["90", "30", "30", "10"]
    [frame] = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    assert round(frame.get_x() + frame.get_width() / 2) == 1 and round(frame.get_y() + frame.get_height() / 2) == 1


def test_resampled_marks_the_middle_95_percent():
    values = [float(i) for i in range(1001)]
    axis = plots.resampled({"one": values, "two": [v / 2 for v in values]}, "accuracy, %").axes[0]
    ends = [tuple(line.get_xdata()) for line in axis.lines if len(set(line.get_xdata())) > 1][:2]
    assert ends == [pytest.approx((25, 975)), pytest.approx((12.5, 487.5))]
    bars = [line.get_ydata()[0] for line in axis.lines if len(set(line.get_xdata())) > 1][:2]
    assert 0 > bars[0] > bars[1]  # one below the other
    assert sum(patch.get_height() for patch in axis.patches) == 2 * len(values)
