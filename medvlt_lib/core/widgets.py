"""Whether a notebook's sliders and buttons can move. No torch here."""

from __future__ import annotations

import os
from importlib.util import find_spec


def widgets_move() -> bool:
    """Whether ipywidgets is installed and somebody may be there to move one. `medvlt course` sets MEDVLT_HEADLESS:
    nobody is, and the executed file would keep a widget that no kernel answers."""
    return find_spec("ipywidgets") is not None and "MEDVLT_HEADLESS" not in os.environ
