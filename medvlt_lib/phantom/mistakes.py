"""What a writer with a habit takes a value for: the same mistake wherever it is made. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def one_off(values: Sequence, value: Any) -> Any:
    """The next value on a family's scale; for the last one the value before it."""
    place = values.index(value)
    return values[place + 1] if place + 1 < len(values) else values[place - 1]


def other_side(_: Any, value: str) -> str | None:
    """A finding with left for right and right for left; None where it has no side. A method of a family."""
    sides = {"left": "right", "right": "left"}
    swapped = " ".join(sides.get(word, word) for word in value.split())
    return swapped if swapped != value else None
