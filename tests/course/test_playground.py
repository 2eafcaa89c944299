"""The playground: its arithmetic against numbers worked out by hand and against autograd, its drawings, its widget."""

import math
import os
import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from medvlt_lib.core import widgets
from medvlt_lib.core.plot_style import GREEN, GREY, ORANGE, RED
from medvlt_lib.core.sections import Grpo
from medvlt_lib.course import playground, playing
from medvlt_lib.course.playground import Group
from medvlt_lib.training.by_hand import policy_loss

GROUP = Group([1.0, 0.0, 0.0, 1.0], [["a", "<b>"], ["c"], ["d"], ["e", "f"]], [[0.9, 1.5], [0.7], [1.4], [1.0, 1.1]])


def test_advantages_and_silent_groups_by_hand():
    assert playground.advantages([1, 0, 0, 1]) == pytest.approx([0.866, -0.866, -0.866, 0.866], abs=1e-3)
    assert playground.advantages([1, 0, 0, 0]) == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-3)
    assert playground.advantages([1, 1, 1]) == [0, 0, 0]
    assert playground.silent_share(0.5, 2) == 0.5 and playground.silent_share(0, 8) == 1
    assert playground.silent_share(0.25, 2) == 0.25**2 + 0.75**2


def test_the_clipped_objective_by_hand():
    assert playground.objective([0.5, 0.9, 1, 1.1, 1.5], 1, 0.2) == pytest.approx([0.5, 0.9, 1, 1.1, 1.2])
    assert playground.objective([0.5, 0.9, 1, 1.1, 1.5], -2, 0.2) == pytest.approx([-1.6, -1.8, -2, -2.2, -3])
    assert playground.objective([1.5], 1, 0.4) == pytest.approx([1.4])


@pytest.mark.parametrize("advantage", [1.5, -0.5, 0.0])
@pytest.mark.parametrize("ratio", [0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0])
def test_a_token_pushes_where_the_loss_has_a_gradient(ratio, advantage):
    new = torch.tensor([[math.log(ratio)]], requires_grad=True)
    parts = (torch.zeros(1, 1), None, torch.tensor([advantage]), torch.ones(1, 1, dtype=torch.bool))
    [slope] = torch.autograd.grad(policy_loss(new, *parts, Grpo(learning_rate=1e-6, epsilon=0.2))[0], new)
    assert playground.pushes(ratio, advantage, 0.2) == (slope.item() != 0)


def test_a_made_up_group_is_right_as_often_as_p_and_only_more_so_with_a_higher_p():
    many = [reward for seed in range(200) for reward in playground.drawn(0.3, 16, seed).rewards]
    assert np.mean(many) == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 3200) ** 0.5) and set(many) == {0.0, 1.0}
    low, high = (np.array(playground.drawn(p, 16, 3).rewards) for p in (0.3, 0.6))
    assert (low <= high).all() and low.sum() < high.sum()
    assert playground.drawn(1, 4).rewards == [1, 1, 1, 1] and playground.drawn(0, 4).rewards == [0, 0, 0, 0]


def test_the_arithmetic_is_told():
    said = playground.told(Group([1, 0, 0, 0], [], []), 0)
    assert "reward 1" in said and "(1 − 0.25) / 0.50 = +1.50" in said
    assert "(0 − 0.25) / 0.50 = -0.50" in playground.told(Group([1, 0, 0, 0], [], []), 3)
    assert "teaches nothing" in playground.told(Group([1, 1], [], []), 1)


def test_the_drawing_of_a_group_shows_its_numbers():
    left, right = playground.draw_group(GROUP, 2, 0.25).axes
    assert left.lines[1].get_xydata().tolist() == [[0.25, 0.25**4 + 0.75**4]]
    assert [bar.get_height() for bar in right.patches] == pytest.approx(playground.advantages(GROUP.rewards))
    assert [to_hex(bar.get_facecolor()).upper() for bar in right.patches] == [GREEN, RED, RED, GREEN]
    assert [bar.get_edgecolor()[3] for bar in right.patches] == [0, 0, 1, 0]  # a frame around the chosen one


def test_the_drawing_of_a_completion_shows_its_tokens():
    right = playground.draw_objective(GROUP, 0, 0.2).axes[1]
    own = playground.advantages(GROUP.rewards)[0]
    [dots] = right.collections
    assert dots.get_offsets().tolist() == pytest.approx(np.array([[0.9, 0.9 * own], [1.5, 1.2 * own]]))
    assert [to_hex(colour).upper() for colour in dots.get_facecolors()] == [ORANGE, GREY]
    assert "1 of 2 tokens held" in right.get_title()
    assert playground.draw_objective(GROUP, 0, 0.5).axes[1].get_title().endswith("0 of 2 tokens held")


def test_tokens_are_coloured_underlined_where_held_and_escaped():
    boxes = re.findall(r"<span title='ratio ([\d.]+)' style='background:rgba\((\d+),.+?decoration:(\w+)",
                       playground.tokens_html(GROUP, 0, 0.2))  # fmt: skip
    assert boxes == [("0.900", "213", "none"), ("1.500", "0", "underline")]
    assert "&lt;b&gt;" in playground.tokens_html(GROUP, 0, 0.2)


@pytest.fixture
def shown(monkeypatch):
    """What is displayed."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    monkeypatch.delenv("MEDVLT_HEADLESS", raising=False)
    return bundles


def play() -> None:
    playing.play_with_a_group(0.25, 8)
    playing.play_with_completions(GROUP)


def test_without_a_front_end_or_without_widgets_there_is_a_figure(shown, monkeypatch):
    monkeypatch.setenv("MEDVLT_HEADLESS", "1")
    play()
    monkeypatch.delenv("MEDVLT_HEADLESS")
    monkeypatch.setattr(widgets, "find_spec", lambda name: None)
    play()
    assert len(shown) == 4 and all(set(bundle) == {"image/png", "text/plain"} for bundle in shown)


def controls(box) -> dict:
    """The controls inside a widget, by their description or kind."""
    found = {getattr(box, "description", "") or type(box).__name__: box}
    for child in getattr(box, "children", ()):
        found |= controls(child)
    return found


def test_the_widget_stands_beside_the_figure_and_follows_its_controls(shown):
    pytest.importorskip("ipywidgets")
    from ipywidgets.widgets.widget import _instances

    play()
    assert all({"image/png", playing.WIDGET} < set(bundle) for bundle in shown)
    group, completions = (_instances[bundle[playing.WIDGET]["model_id"]] for bundle in shown)
    now = controls(group)
    first = now["Image"].value
    now["G"].value = 4
    assert len(now["ToggleButtons"].options) == 4
    now["ToggleButtons"].value = 3
    now = controls(group)
    assert now["Image"].value != first and now["HTML"].value == playground.told(playground.drawn(0.25, 4), 3)
    now["another group"].click()
    assert controls(group)["HTML"].value == playground.told(playground.drawn(0.25, 4, 1), 3)
    now = controls(completions)
    assert now["paid"].value is True
    now["ToggleButtons"].value = 1
    assert now["paid"].value is False
    now["paid"].value = True  # three of four are paid now
    said = [child.value for child in completions.children[-1].children[1:]]
    assert said[0] == playground.told(Group([1, 1, 0, 1], [], []), 1)
    assert GROUP.rewards == [1.0, 0.0, 0.0, 1.0]


def test_the_course_runs_notebooks_as_without_a_front_end(monkeypatch, tmp_path):
    import papermill

    from medvlt_lib.core.errors import UserError
    from medvlt_lib.course.runner import notebooks, run_notebook

    def execute(*_, **__):
        raise RuntimeError(f"headless: {os.environ.get('MEDVLT_HEADLESS')}")

    monkeypatch.setenv("MEDVLT_HEADLESS", "")  # so that it is put back afterwards
    monkeypatch.delenv("MEDVLT_HEADLESS")
    monkeypatch.setattr(papermill, "execute_notebook", execute)
    monkeypatch.setattr("medvlt_lib.course.runner._place", lambda executed: "0")
    with pytest.raises(UserError, match="headless: 1"):
        run_notebook(notebooks("02", "02")[0], tmp_path, {})
