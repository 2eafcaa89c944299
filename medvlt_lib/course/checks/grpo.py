"""Checks of the exercises in notebook 04."""

from __future__ import annotations

import copy
import math
import warnings
from functools import cache
from typing import Any

from medvlt_lib.course.curves import CAUSES, RUNS
from medvlt_lib.course.telling import tell, tell_names


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


def picture_loss(function: Any) -> None:
    """picture_loss(model, prompt, answers, mask, old, rewards, eps): GRPO's loss of one group that sees one picture.

    Tried on the small tiny model; what must come back is computed by `by_hand.py`, with a row for each completion.
    """
    import torch

    model = _small()[0]

    def tried(group: str) -> Any:
        loss = function(model, *copy.deepcopy(_picture_group(group)[0]))
        if not isinstance(loss, torch.Tensor) or "gradient" not in group:
            return loss
        return _at_the_eye(loss, model) if loss.requires_grad else None

    looks = {
        "one right of three": "Has each row the prompt, its picture and its answer? Which logit is whose?",
        "two right of three, another picture": "Does every row see the picture, or does one of them alone?",
        "two right of five": "The picture's pixels, and its size in patches, come once for each answer.",
        "one right of three, ratios": "Ratios outside the range: compare with exercises 2 and 3.",
        "one right of three, ratios, narrow": "The width of the range is an argument.",
        "none right of three": "Equal rewards: all advantages are 0, and so is the loss.",
        "one right of three, gradient": "The value is right, but how does its gradient reach the vision tower?",
    }
    tried.__name__ = "picture_loss"
    cases = [((group,), _picture_group(group)[1], look) for group, look in looks.items()]
    tell(tried if callable(function) else function, cases, "With a picture it is the loss of `by_hand.py`, too.", 1e-4)


def _small() -> tuple[Any, Any]:
    """The small tiny model and its processor, loaded without bars and what is said of them: a check says one line."""
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, where ipywidgets is not installed
    from transformers.utils import logging

    from medvlt_lib.models.loading import load_model, shipped
    from medvlt_lib.models.processor import load_processor

    logging.disable_progress_bar()
    return load_model(shipped("small")), load_processor(shipped("small"))


def _at_the_eye(loss: Any, model: Any) -> Any:
    """The norm of a loss's gradient where the vision tower reads the pixels; None where it does not get there."""
    import torch

    [eye] = [weight for name, weight in model.named_parameters() if name.endswith("patch_embed.proj.weight")]
    slope = torch.autograd.grad(loss, eye, allow_unused=True)[0]
    return None if slope is None else slope.norm()


@cache
def _picture_group(kind: str) -> tuple[tuple, float]:
    """(prompt, answers, mask, old, rewards, eps) of a group about a drawn picture; its loss, or the gradient's norm."""
    import torch

    from medvlt_lib.core.images import load_image
    from medvlt_lib.core.prompts import messages
    from medvlt_lib.core.records import Completion
    from medvlt_lib.core.sections import Grpo
    from medvlt_lib.models.supervised import END, chat_prompt
    from medvlt_lib.phantom.questions import make_questions
    from medvlt_lib.training import by_hand

    model, processor = _small()
    question = make_questions("nodule_count", "train", 2, seed=1)["another" in kind]
    picture = load_image(question.images[0])
    prompt = dict(processor(text=[chat_prompt(processor, messages(question))], images=[picture], return_tensors="pt"))
    told = ["at a glance 3. A. 3 yes.", "right lung 2. left lung 1. total 3.", "total 1. B. 1 yes. A. 3 no. C. 2 no."]
    told += ["right lung 0. left lung 2.", "at a glance 0."] if "five" in kind else []
    rows = [processor.tokenizer(f"<think> {text} </think>{END}").input_ids for text in told]
    asked = prompt["input_ids"][0].tolist()
    completions = [Completion("", i, told[i], row, None, "stop", asked) for i, row in enumerate(rows)]
    inputs, mask = by_hand.as_rows(model, processor, completions, [picture] * len(rows))
    new = by_hand.token_logprobs(model, inputs, mask)
    away = torch.randn(new.shape, generator=torch.Generator().manual_seed(0)) if "ratios" in kind else 0
    right = {"none": 0, "one": 1, "two": 2}[kind.split()[0]]
    rewards = torch.tensor([1.0] * right + [0.0] * (len(rows) - right))
    settings = Grpo(learning_rate=1e-6, loss_type="dapo", epsilon=0.05 if "narrow" in kind else 0.2)
    old = new.detach() + 0.3 * away
    loss, _ = by_hand.policy_loss(new, old, None, by_hand.group_advantages(rewards[None])[0], mask, settings)
    truth = _at_the_eye(loss, model) if "gradient" in kind else loss
    return (prompt, inputs["input_ids"][:, len(asked) :], mask, old, rewards, settings.epsilon), truth.item()


def curves(answer: Any) -> None:
    """curves(answer): {run: cause} for the five runs of `curves.py`."""
    tell_names(answer, RUNS, CAUSES, "You read the reward beside what else was measured, not alone.")
