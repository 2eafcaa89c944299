"""Where the shipped tiny models lie."""

from __future__ import annotations

from pathlib import Path

from medvlt_lib.core.errors import UserError

WEIGHTS = Path(__file__).parents[1] / "tiny" / "weights"


def shipped(size: str) -> Path:
    """The folder of a shipped tiny model. Raises UserError for an unknown size."""
    sizes = sorted(p.name for p in WEIGHTS.iterdir())
    if size not in sizes:
        raise UserError(f"unknown model size '{size}'; choose one of {', '.join(sizes)}.")
    return WEIGHTS / size
