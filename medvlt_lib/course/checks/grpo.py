"""Checks of the exercises in notebook 04."""

from __future__ import annotations

import math
from typing import Any

from medvlt_lib.course.curves import CAUSES, RUNS
from medvlt_lib.course.telling import tell, tell_value


def advantages(function: Any) -> None:
    """advantages(rewards): each minus the group's mean, over its standard deviation (n - 1); equal rewards give 0."""

    def off(got: Any) -> str:
        values = got.tolist() if hasattr(got, "tolist") else got
        if not isinstance(values, list | tuple) or [isinstance(v, int | float) for v in values] != [True] * 4:
            return "Every completion gets one advantage, a number."
        if values[0] * values[1] > 0 or abs(sum(values)) > 0.01:
            return "The advantages of a group sum to 0: what is taken off each reward?"
        return "The deviation: is the sum of squares divided by n, or by n - 1? And is the right one up?"

    root = math.sqrt
    cases = [
        (([1.0, 0.0, 0.0, 1.0],), [root(3) / 2, -root(3) / 2, -root(3) / 2, root(3) / 2], off),
        (([1.0, 0.0, 0.0, 0.0],), [1.5, -0.5, -0.5, -0.5], "A rare success counts more than a frequent one."),
        (([1.0, 0.0],), [root(0.5), -root(0.5)], "A group may be as small as two."),
        (([0.0, 0.0, 0.0],), [0.0, 0.0, 0.0], "Equal rewards have no deviation to divide by: all advantages are 0."),
        (([1.0, 1.0],), [0.0, 0.0], "All right is as silent as all wrong."),
        (([-2.0, 0.0, 2.0],), [-1.0, 0.0, 1.0], "Rewards may be negative, or larger than 1."),
    ]
    tell(function, cases, "A group is its own baseline, and an equal group says nothing.", within=2e-3)


def clipped(function: Any) -> None:
    """clipped(ratio, advantage, eps): what one token adds to the objective (to be climbed)."""
    cases = [
        ((1.0, 1.0, 0.2), 1.0, "At ratio 1 a token adds its advantage; the objective is climbed, so no minus."),
        ((1.1, 2.0, 0.2), 2.2, "Inside the range the ratio multiplies the advantage."),
        ((1.5, 1.0, 0.2), 1.2, "A good token earns nothing more beyond the upper end of the range."),
        ((0.5, 1.0, 0.2), 0.5, "A good token that has become rarer must feel all of it, below the range, too."),
        ((0.5, -1.0, 0.2), -0.8, "A bad token earns nothing more below the lower end of the range."),
        ((1.5, -1.0, 0.2), -1.5, "A bad token that has become likelier must feel all of it."),
        ((1.4, 1.0, 0.5), 1.4, "The width of the range is an argument."),
        ((1.5, 0.0, 0.2), 0.0, "Without advantage a token adds nothing."),
    ]
    tell(function, cases, "Clipping takes the reason to go further, never the way back.")


def grpo_loss(function: Any) -> None:
    """grpo_loss(new, old, advantages, mask, eps): the loss of one group, the mean over all its tokens; a tensor."""
    import torch

    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    old = torch.log(torch.tensor([[0.5, 0.4, 0.3, 0.2], [0.6, 0.5, 1.0, 1.0], [0.4, 1.0, 1.0, 1.0]]))
    shift = torch.tensor([[0.05, -0.1, 0.5, -0.5], [0.5, -0.5, 0.7, 0.7], [0.1, 0.7, -0.7, 0.7]])
    group = torch.tensor([1.2, -0.7, -0.2])

    def case(new: Any, look: str, mask: Any = mask, slope: bool = False, eps: float = 0.2) -> tuple:
        start = new.clone().requires_grad_()
        ratio, gain = (start - old).exp(), group[:, None]
        terms = torch.min(ratio * gain, ratio.clamp(1 - eps, 1 + eps) * gain)
        loss = -terms[mask.bool()].mean()
        [gradient] = torch.autograd.grad(loss, start)
        return (new, old, group, mask, eps, slope), gradient if slope else loss.detach(), look

    def tried(new: Any, old: Any, group: Any, mask: Any, eps: float, slope: bool) -> Any:
        start = new.clone().requires_grad_()
        loss = function(start, old, group, mask.bool(), eps)
        if not isinstance(loss, torch.Tensor):
            return loss
        if not slope:
            return loss.detach()
        return torch.autograd.grad(loss, start)[0] if loss.requires_grad else None

    everywhere = torch.ones_like(mask)
    cases = [
        case(old, "All ratios are 1. What goes down when the objective goes up?", everywhere),
        case(old, "The mean is over all real tokens of the group: padding is none, and a long answer has more."),
        case(old + shift / 5, "Ratios inside the range: is it new over old, and has each row its own advantage?"),
        case(old + shift, "Ratios outside the range: compare with your clipped term, for both signs."),
        case(old + shift, "The width of the range is an argument.", eps=0.05),
        case(old, "The value is right, its gradient is not. Is anything detached on the way?", slope=True),
        case(old + shift, "The value is right, its gradient is not. Does clipping change what it should?", slope=True),
    ]
    tried.__name__ = "grpo_loss"
    tell(tried if callable(function) else function, cases, "Value and gradient are those of `by_hand.py`.", within=1e-5)


def curves(answer: Any) -> None:
    """curves(answer): {run: cause} for the five runs of `curves.py`."""
    if not isinstance(answer, dict):
        wrong = [f"A dictionary is asked for, with a cause for each of {', '.join(RUNS)}."]
    elif all(value in (None, ...) for value in answer.values()):
        answer, wrong = None, []
    else:
        wrong = [_misread(run, answer.get(run)) for run, (cause, _) in RUNS.items() if answer.get(run) != cause]
    tell_value(answer, wrong[0] if wrong else None, "You read the reward beside what else was measured, not alone.")


def _misread(run: str, cause: Any) -> str:
    if cause not in CAUSES:
        return f"Run {run}: {cause!r} is none of the causes; they are {', '.join(CAUSES)}."
    return f"Run {run} is not {cause!r}: {RUNS[run][1]}"
