"""Which questions a GRPO step asks: an online curriculum from the rollouts that were paid for anyway.

A group teaches most where its question is passed about half the time: with pass rate p the variance of the reward is
p (1 - p). Every question keeps a Beta posterior of its pass rate, and questions are drawn in proportion to the expected
variance a b / ((a + b)(a + b + 1)). Old answers fade (`forget`), since the policy moves. This is the
paper's own named limit (MedVLThinker, section 5: the filter is made once, with the 3B model, and does not follow
training). No torch here.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Curriculum:
    """Beta posteriors of `size` questions, from uniform priors; draws are named by seed and step, so that every process
    and every resumed run draws the same questions."""

    def __init__(self, size: int, seed: int, forget: float = 0.98) -> None:
        self.passed, self.failed = np.zeros(size), np.zeros(size)
        self.seed, self.forget = seed, forget

    def expected_variance(self) -> np.ndarray:
        """E[p (1 - p)] of every question under its Beta posterior."""
        a, b = 1 + self.passed, 1 + self.failed
        return a * b / ((a + b) * (a + b + 1))

    def draw(self, count: int, step: int) -> list[int]:
        """`count` different questions, drawn in proportion to their expected variance."""
        weights = self.expected_variance()
        stream = np.random.default_rng([self.seed, step])
        return stream.choice(len(weights), count, replace=False, p=weights / weights.sum()).tolist()

    def record(self, questions: list[int], passed: list[float], samples: int) -> None:
        """Add the answers of one step: of `samples` answers to each question, `passed` were right. Older ones fade."""
        self.passed *= self.forget
        self.failed *= self.forget
        np.add.at(self.passed, questions, passed)
        np.add.at(self.failed, questions, samples - np.asarray(passed))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"passed": self.passed.tolist(), "failed": self.failed.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        self.passed, self.failed = np.array(state["passed"]), np.array(state["failed"])
