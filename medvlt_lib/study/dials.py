"""The study `noise` as dials that move, where the notebook has a kernel and ipywidgets is installed; `figures.noise`
shows all of their positions at once. No torch here."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from medvlt_lib.core.widgets import widgets_move
from medvlt_lib.study import figures
from medvlt_lib.study.noise import GROUPS, METHODS, NOISES, SHARES, noise_points, reading
from medvlt_lib.study.results import SHIPPED

if TYPE_CHECKING:
    from ipywidgets import interactive


def noise_dials(folder: Path = SHIPPED) -> interactive | None:
    """The dials: method, kind and share of wrong labels, and where accuracy is measured; where they cannot move (no
    ipywidgets, or a page made of a notebook that ran by itself), a printed line that says so."""
    if not widgets_move():
        print("The dials need a running kernel and ipywidgets; the figure above has all of their positions.")
        return None
    from IPython.display import display
    from ipywidgets import Dropdown, SelectionSlider, ToggleButtons, interactive

    points = {name: noise_points(group, folder) for name, group in GROUPS.items()}

    def draw(method: str, kind: str, share: int, group: str) -> None:
        print(fill(reading(points[group][0], method, kind, share, group), 88))
        display(figures.noise({group: points[group]}, (METHODS[method], kind, share)))

    wide, whole = {"button_width": "auto"}, {"description_width": "initial"}  # no word is cut
    return interactive(
        draw,
        method=ToggleButtons(options=list(METHODS), description="method", style=wide),
        kind=ToggleButtons(options=[(words, kind) for kind, words in NOISES.items()], description="labels", style=wide),
        share=SelectionSlider(options=SHARES, value=40, description="wrong, %"),
        group=Dropdown(options=list(GROUPS), description="measured on", style=whole),
    )
