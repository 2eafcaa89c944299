"""The comparison of a run's arms in a notebook: a thin face on stages/comparing.py, as the page is."""

from __future__ import annotations

from typing import Any

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.runs import Run
from medvlt_lib.phantom.redraw import drawable_values
from medvlt_lib.stages.compare_app import columns
from medvlt_lib.stages.comparing import DRAWN, MOST, ON, PICTURES, open_comparison


def compare(run: Run, arms: list[str] | None = None, live: bool | None = None) -> Any:
    """A widget: question, picture, the value that the picture is drawn with, and samples; the answers below.

    `arms`, `live`: as in `open_comparison`. Raises UserError as it does.
    """
    import ipywidgets as widgets

    comparison = open_comparison(run, arms, live)
    labels = [(f"{q.group.replace('_', ' ')}: {q.question[:60]}", name) for name, q in comparison.questions.items()]
    question = widgets.Dropdown(options=labels, description="question")
    picture = widgets.ToggleButtons(options=[(label, key) for key, label in PICTURES.items()], description="picture")
    value = widgets.SelectionSlider(options=["-"], description="drawn with", continuous_update=False)
    samples = widgets.BoundedIntText(1, min=1, max=MOST, description="samples")
    shown = widgets.HTML()

    def draw(_: Any = None) -> None:
        shown.value = "<p>asking ...</p>"
        try:
            shown.value = str(columns(comparison.view(question.value, picture.value, value.value, samples.value)))
        except UserError as mistake:
            from html import escape

            shown.value = f"<p>{escape(str(mistake))}</p>"

    def choose(_: Any = None) -> None:
        own = comparison.questions[question.value]
        values = drawable_values(own) if comparison.live else []
        value.unobserve(redraw, "value")
        value.options = values or ["-"]
        value.value = own.answer if own.answer in values else value.options[0]
        value.disabled = not values
        value.observe(redraw, "value")
        if picture.value != ON:
            picture.value = ON  # which draws
        else:
            draw()

    def redraw(_: Any) -> None:
        if picture.value != DRAWN:
            picture.value = DRAWN  # which draws
        else:
            draw()

    value.observe(redraw, "value")
    question.observe(choose, "value")
    picture.observe(draw, "value")
    samples.observe(draw, "value")
    choose()
    return widgets.VBox([question, picture, value, samples, shown])
