"""What TRL's trainer is given to reward with: checked functions, and the columns of a question that they read.

TRL takes a reward that is no number as absent, and sums the others without a word; here it is a sentence.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import Question
from medvlt_lib.grading import rewards
from medvlt_lib.phantom import rationale

if TYPE_CHECKING:
    import torch

SOFT_LIMIT = 0.8  # of the longest completion: DAPO punishes from 16,384 of 20,480 tokens on (section 3.4)
FORM_ALONE = {"published_medvlm_r1": 1.0}  # what a reward pays for a wrong answer in form, where it pays for that
Reward = Callable[..., list[float]]


def reward_functions(names: Iterable[str], longest: int) -> list[Any]:
    """The rewards of these names for TRL's trainer; `longest` is the most tokens a completion may have."""
    limits = {"soft_limit": SOFT_LIMIT * longest, "cap": longest}
    modules = {"grounded": rationale}
    return [checked(getattr(modules.get(name, rewards), name.replace("-", "_")), **limits) for name in names]


def checked(reward: Reward, **limits: float) -> Reward:
    """`reward`, called with `limits` as well. Raises UserError when it does not give one finite number a completion."""

    @functools.wraps(reward)
    def call(completions: list, **columns: Any) -> list[float]:
        values = reward(completions=completions, **columns, **limits)
        name = getattr(reward, "__name__", "given")
        if len(values) != len(completions):
            raise UserError(
                f"the reward {name} gave {len(values)} numbers for {len(completions)} completions; "
                "it must return one for each."
            )
        for place, value in enumerate(values):
            if not isinstance(value, Real) or not math.isfinite(value):
                raise UserError(
                    f"the reward {name} gave {value} for completion {place + 1} of {len(values)}; "
                    "it must return a finite number, 0 where it has nothing to say."
                )
        return values

    return call


def counted_right(rewards: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """Which answers count as right (rows,): those that earn more than form alone, by the first reward that pays for
    answers. `rewards` (rows, rewards), in the order of `names`, which are those of the functions."""
    place = next(place for place, name in enumerate(names) if name != "overlong")
    return rewards[:, place] > FORM_ALONE.get(names[place], 0.0)


def reward_columns(question: Question) -> dict[str, str | None]:
    """What the rewards read of a question, as text for a column each; options and facts as JSON."""
    facts = question.extra.get("facts")
    return {
        "answer_label": question.answer_label,
        "answer": question.answer,
        "options": json.dumps(question.options, ensure_ascii=False),
        "family": question.family,
        "facts": json.dumps(facts, ensure_ascii=False) if facts else None,
    }


def scorable(questions: Iterable[Question], names: Iterable[str], path: Path) -> Iterator[Question]:
    """The questions of the file `path`, each checked to have what these rewards need. Raises UserError for the first
    that has not."""
    grounded = "grounded" in names
    for question in questions:
        if question.answer_label not in question.options:
            raise UserError(
                f"{path}: question {question.id} has no answer to reward; give every row its answer_label and answer."
            )
        if grounded and not rationale.has_facts(question):
            raise UserError(
                f"{path}: question {question.id} has no facts that the reward grounded could check steps against; "
                f"{rationale.NO_FACTS}."
            )
        yield question
