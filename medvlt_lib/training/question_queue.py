"""Which questions GRPO asks next: in random order, easy ones first, or those that are worth most now.

`online` keeps a Beta posterior of every question's pass rate p, from rollouts that were made anyway: those of
filtering, then those of training. It draws questions in proportion to the expected variance of a reward,
E[p(1 - p)] = a b / ((a + b)(a + b + 1)), which is largest where half of the answers are right: a group whose answers
are all right or all wrong has no gradient. In training an answer counts as right by the reward that pays for it
(`counted_right` in medvlt_lib/training/rewarding.py). The policy moves, so what was counted fades. A filter that is
fixed before training is a limit that MedVLThinker names itself (section 5).

Cost: a few microseconds a question and step. No torch but for the permutation, which is that of TRL's own sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

Order = Literal["shuffled", "easy-first", "online"]
FORGETTING = 0.98  # what is left of a count after every draw of questions


class QuestionQueue:
    """The order of `count` questions, named by their numbers from 0. Every process of a run has an equal one.

    `pass_counts`: for every question (right answers, answers) of filtering; `easy-first` needs them, `online` begins
    with them. `state()` and `restore()` carry everything over to a run that goes on.
    """

    def __init__(
        self, count: int, order: Order = "shuffled", seed: int = 0, pass_counts: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.count, self.order, self.seed = count, order, seed
        counts = np.array(pass_counts or [(0, 0)] * count, dtype=float)
        self.right, self.wrong = counts[:, 0], counts[:, 1] - counts[:, 0]
        self.rates = (self.right + 1) / (counts[:, 1] + 2)
        self.draws = self.taken = 0  # draws made, questions handed out
        self.rounds, self.place = 0, 0  # times that all questions were gone through before, place in this time
        self.generator = torch.Generator().manual_seed(seed)
        self.line = self._next_line()

    def take(self, number: int, asked: Sequence[int] = ()) -> list[int]:
        """The next `number` questions, all different, and none of those that this step has `asked`. Raises ValueError
        where there are not so many."""
        if len(asked) + number > self.count:
            raise ValueError(f"{len(asked) + number} different questions were asked of {self.count}")
        self.taken += number
        self.draws += 1
        if self.order == "online":
            random = np.random.default_rng([self.seed, self.draws])
            worth = self.worth()
            worth[list(asked)] = 0
            return random.choice(self.count, number, replace=False, p=worth / worth.sum()).tolist()
        chosen = self._ahead(asked)[:number]
        if len(chosen) < number:  # a step never asks a question twice; the rest of the line is left out
            self.rounds, self.place, self.line = self.rounds + 1, 0, self._next_line()
            chosen = self._ahead(asked)[:number]
        self.place = self.line.index(chosen[-1]) + 1
        return chosen

    def _ahead(self, asked: Sequence[int]) -> list[int]:
        """What is left of the line, without the questions in `asked`."""
        left_out = set(asked)
        return [question for question in self.line[self.place :] if question not in left_out]

    def worth(self) -> np.ndarray:
        """The expected variance of one reward of every question, (count,)."""
        a, b = self.right + 1, self.wrong + 1
        return a * b / ((a + b) * (a + b + 1))

    def learn(self, questions: Sequence[int], right: Sequence[int], answers: int) -> None:
        """Count `right` of `answers` answers for each of the questions just asked; what was known of all fades."""
        self.right *= FORGETTING
        self.wrong *= FORGETTING
        places = np.asarray(questions, dtype=int)
        np.add.at(self.right, places, np.asarray(right, dtype=float))
        np.add.at(self.wrong, places, answers - np.asarray(right, dtype=float))

    def state(self) -> dict[str, Any]:
        """What differs from a new queue of the same settings, for JSON."""
        state: dict[str, Any] = {"draws": self.draws, "taken": self.taken, "rounds": self.rounds, "place": self.place}
        if self.order == "online":
            state |= {"right": self.right.tolist(), "wrong": self.wrong.tolist()}
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken from an equal queue."""
        self.generator.manual_seed(self.seed)
        for _ in range(state["rounds"] + 1):
            self.line = self._next_line()
        self.draws, self.taken = state["draws"], state["taken"]
        self.rounds, self.place = state["rounds"], state["place"]
        if self.order == "online":
            self.right, self.wrong = np.array(state["right"]), np.array(state["wrong"])

    def _next_line(self) -> list[int]:
        """All questions in the order of this time through; easy ones first, equal pass rates at random."""
        line = torch.randperm(self.count, generator=self.generator).tolist()
        return sorted(line, key=lambda i: -self.rates[i]) if self.order == "easy-first" else line
