"""What a text family is: a vignette over a published clinical score or formula whose answer is computed.

Each family is one class. The facts of a vignette are drawn until the rule gives the wanted value, so the gold value is
uniform whatever the rule. `level` (1-3) sets how close findings lie to a threshold, or how round the numbers are.
Synthetic, for learning the method; not for clinical use.
"""

from __future__ import annotations

from random import Random
from typing import Any

from medvlt_lib.phantom.mistakes import one_off

Facts = dict[str, Any]  # what a vignette tells, by name


class TextFamily:
    """One kind of vignette. `reference` says where its rule was published. `values` are the answers that occur, whole
    numbers; `draw` must reach each of them with many different vignettes."""

    name: str
    reference: str
    values: tuple[int, ...]
    modality = "text"
    image_modality = None

    def draw(self, rng: Random, level: int, aim: int) -> Facts:
        """Facts whose answer is likely to be `aim`."""
        raise NotImplementedError

    def rule(self, f: Facts) -> int:
        """The answer, or -1 for facts that no patient has."""
        raise NotImplementedError

    def stem(self, f: Facts) -> str:
        """The question."""
        raise NotImplementedError

    def steps(self, f: Facts) -> list[str]:
        """The teacher's working: each step a sentence without its full stop, beginning in one of the ways that
        phantom/rationale.py knows (OPENINGS); a part of a sum ends with its points and the total so far."""
        raise NotImplementedError

    def text(self, value: int) -> str:
        """An answer value as option text."""
        return str(value)

    def mistaken(self, value: int) -> int:
        """What a writer with a habit takes the answer for: the next on the scale, the last for the one before it."""
        return one_off(self.values, value)

    @staticmethod
    def person(f: Facts) -> str:
        """The person in the vignette."""
        return f"{f['sex'].capitalize()} of {f['age']}"


def draw_person(rng: Random) -> Facts:
    return {"age": rng.randint(20, 95), "sex": rng.choice(["man", "woman"])}


def draw_near(rng: Random, limit: int, met: bool, level: int, spread: int, above: bool = True) -> int:
    """A whole number that meets or misses `>= limit` (`<= limit` without `above`), nearer to it at a higher level."""
    gap = rng.randint(0, max(2, spread // level))
    if above:
        return limit + gap if met else limit - 1 - gap
    return limit - gap if met else limit + 1 + gap
