"""The playground's sliders and buttons: a thin face on `playground.py`.

Each function shows one output. Where a front end runs widgets, it is the widget; elsewhere (an executed file, a page
made from it, an environment without ipywidgets) it is the figure as it stands at the beginning.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.widgets import widgets_move
from medvlt_lib.course import playground

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDGET = "application/vnd.jupyter.widget-view+json"


def play_with_a_group(p: float = 0.25, size: int = 8) -> None:
    """p, G and another draw of the group; a click on a completion shows its advantage."""
    first = playground.drawn(p, size)
    figure = playground.draw_group(first, 0, p)

    def widget(widgets: Any) -> Any:
        share = widgets.FloatSlider(p, min=0, max=1, step=0.01, description="p", continuous_update=False)
        number = widgets.IntSlider(size, min=2, max=16, description="G", continuous_update=False)
        again = widgets.Button(description="another group")
        seed, picks, shown = [0], widgets.ToggleButtons(), widgets.VBox()
        picks.style.button_width = "3.2em"

        def draw(_: Any = None) -> None:
            group = playground.drawn(share.value, number.value, seed[0])
            drawing = _image(widgets, playground.draw_group(group, picks.value, share.value))
            shown.children = [drawing, widgets.HTML(playground.told(group, picks.value))]

        def resize(_: Any = None) -> None:
            picks.unobserve(draw, "value")
            picks.options = [(str(i + 1), i) for i in range(number.value)]
            picks.value = 0
            picks.observe(draw, "value")
            draw()

        def draw_again(_: Any) -> None:
            seed[0] += 1
            draw()

        share.observe(draw, "value")
        number.observe(resize, "value")
        again.on_click(draw_again)
        picks.observe(draw, "value")
        resize()
        return widgets.VBox([widgets.HBox([share, number, again]), picks, shown])

    _show(figure, widget)


def play_with_completions(group: playground.Group, epsilon: float = 0.2) -> None:
    """The model's own group: ε, and a click on a completion shows its advantage, its tokens and their ratios. A box
    pays the chosen completion, or does not."""
    figure = playground.draw_objective(group, 0, epsilon)

    def widget(widgets: Any) -> Any:
        width = widgets.FloatSlider(epsilon, min=0.05, max=0.5, step=0.05, description="ε", continuous_update=False)
        picks = widgets.ToggleButtons(options=[(str(i + 1), i) for i in range(len(group.rewards))])
        paid, rewards = widgets.Checkbox(description="paid", indent=False), list(group.rewards)
        shown = widgets.VBox()

        def draw() -> None:
            now = playground.Group(list(rewards), group.tokens, group.ratios)
            parts = [playground.told(now, picks.value), playground.tokens_html(now, picks.value, width.value)]
            drawing = _image(widgets, playground.draw_objective(now, picks.value, width.value))
            shown.children = [drawing, *map(widgets.HTML, parts)]

        def pick(_: Any = None) -> None:
            paid.value = rewards[picks.value] > 0
            draw()

        def pay(_: Any) -> None:
            rewards[picks.value] = (group.rewards[picks.value] or 1.0) if paid.value else 0.0
            draw()

        picks.observe(pick, "value")
        paid.observe(pay, "value")
        width.observe(lambda _: draw(), "value")
        picks.style.button_width = "3.2em"
        pick()
        return widgets.VBox([widgets.HBox([width, paid]), picks, shown])

    _show(figure, widget)


def _show(figure: Figure, widget: Callable[[Any], Any]) -> None:
    """Display the figure, and in the same output the widget for front ends that can run it."""
    from IPython.display import display

    shown: dict[str, Any] = {"image/png": base64.b64encode(_png(figure)).decode(), "text/plain": "a figure"}
    if widgets_move():
        import ipywidgets

        shown[WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": widget(ipywidgets).model_id}
    display(shown, raw=True)


def _image(widgets: Any, figure: Figure) -> Any:
    return widgets.Image(value=_png(figure), format="png")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
