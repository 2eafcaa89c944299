"""Which exercises a learner has passed.

A page of exercises begins with `begin`; from then on each check that is passed in that kernel leaves a small file of
its own, so that two kernels never write the same one. Nothing is noted anywhere else: not in the notebooks, where the
solutions are in force, not in runs, and not in tests.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import write_text

_page: list[str] = []  # the notebook whose page runs in this kernel


def passed_folder() -> Path:
    """Where passes are noted: $MEDVLT_LESSON, or medvlt/passed in the user's folder for the state of programs."""
    from platformdirs import user_state_dir

    return Path(os.environ.get("MEDVLT_LESSON") or Path(user_state_dir("medvlt"), "passed"))


def begin(notebook: str) -> None:
    """Note from now on which checks of this notebook's exercises are passed in this kernel."""
    _page[:] = [notebook]


def passed(notebook: str, check: str) -> Path:
    """The file that is there once a check of this notebook's exercises was passed; it holds the last time."""
    return passed_folder() / f"{notebook}.{check}"


def note(check: str) -> None:
    """Note that a check was passed, where a page has begun. A folder that cannot be written is no learner's mistake, so
    nothing is said of it."""
    if _page:
        with suppress(UserError):
            write_text(passed(_page[0], check), datetime.now().isoformat(timespec="minutes") + "\n")
