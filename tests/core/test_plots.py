"""Figures of evaluation: what is drawn where, read off the axes."""

import pytest
from matplotlib.patches import Rectangle

from medvlt_lib.core import plots


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
