"""The checks of the exercises in notebooks 01 to 04, one function each; `telling.py` says how they look and speak.

Each takes what the learner wrote and prints one line. What it must do is tried on several inputs, among them the ends
and the empty cases; how it is written does not matter.
"""

from __future__ import annotations

import math
from typing import Any

from medvlt_lib.course.curves import CAUSES, RUNS
from medvlt_lib.course.telling import tell, tell_value

# 01: data


def copies(function: Any) -> None:
    """copies(train, held_out): names of the training texts that are copies of a held-out one; from {name: text}."""
    test = {"t": "A man of 70 coughs. Urea is 7.5 mmol/l."}

    def case(text: str, found: set, look: str) -> tuple:
        return ({"a": text, "b": "Who was it?"}, test), found, look

    cases = [
        case(test["t"], {"a"}, "A training text that equals a held-out text is a copy; return its name."),
        case("a man of 70 COUGHS. urea is 7.5 mmol/l.", {"a"}, "Other capitals do not make another question."),
        case("A man  of 70\ncoughs.  Urea is 7.5 mmol/l. ", {"a"}, "Other spaces do not make another question."),
        case("A man of 70 coughs; urea is 7.5 mmol/l", {"a"}, "Other punctuation does not make another question."),
        case("A man of 71 coughs. Urea is 7.5 mmol/l.", set(), "Another number makes another question."),
        case("A man of 70 coughs. Urea is 75 mmol/l.", set(), "What does your code do to the point inside 7.5?"),
        case("A man coughs. Urea of 70 is 7.5 mmol/l.", set(), "The same words in another order are no copy."),
        case(f"{test['t']} He smokes.", set(), "A text that says more than the held-out one is no copy."),
        case("A man of 70 coughs.", set(), "A text that says less than the held-out one is no copy."),
        (({"a": "One.", "b": "Two.", "c": "one"}, {"x": "ONE", "b": "three"}), {"a", "c"}, "Compare texts, not names."),
        (({}, test), set(), "Without training texts there is no copy."),
        (({"a": "One."}, {}), set(), "Without held-out texts there is no copy."),
    ]
    tell(function, cases, "Copies are found whatever their form, and variations with another number are left alone.")


def boxed_letter(function: Any) -> None:
    r"""boxed_letter(text): the letter A to E in the last \boxed{...} of a response, upper case, or None."""
    cases = [
        ((r"So it is \boxed{B}.",), "B", "The letter stands between the braces."),
        ((r"\boxed{c}",), "C", "A lower-case letter is an answer, too; return it in upper case."),
        ((r"\boxed{ D }",), "D", "Spaces around the letter do not matter."),
        ((r"\boxed{A}? No, \boxed{B}.",), "B", "A model that corrects itself means its last box."),
        ((r"\boxed{B. Lung}",), "B", "After the letter the option's text may follow."),
        ((r"\boxed{e) Skin}",), "E", "The text of the option may follow after a bracket, too."),
        ((r"\boxed{Brain}",), None, "A word that begins with B is not the letter B."),
        ((r"\boxed{A or B}",), None, "Two letters are no answer; a letter stands alone, or before one of . ) :"),
        ((r"\boxed{F}",), None, "Only A to E are options."),
        ((r"\boxed{}",), None, "A box may be empty: then there is no answer."),
        ((r"\boxed{A}, or rather \boxed{none of them}",), None, "If the last box holds no letter, there is no answer."),
        (("The answer is B.",), None, "Without a box there is no answer, so None."),
        (("",), None, "A response may be empty: then there is no answer."),
    ]
    tell(function, cases, "Your grader reads the last box, and takes nothing else for an answer.")


def true_accuracy(function: Any) -> None:
    """true_accuracy(seen, noise, options): how often the model is really right; None where labels say nothing."""

    def case(ability: float, noise: float, options: int, look: str) -> tuple:
        seen = ability * (1 - noise) + (1 - ability) * noise / (options - 1)
        return (seen, noise, options), ability, look

    cases = [
        case(0.7, 0.0, 4, "Without noise, what is seen is true."),
        case(0.8, 0.2, 4, "Put your result back into the formula of section 7: it must give what was seen."),
        case(0.8, 0.2, 2, "Fewer options: a wrong label falls on a wrong answer more often."),
        case(0.25, 0.5, 4, "A model that guesses is right one time in four, with any noise."),
        case(0.0, 0.3, 5, "A model that is never right still earns a little."),
        case(0.6, 0.9, 4, "Beyond the point without signal the slope is negative, and can still be solved."),
        ((0.25, 0.75, 4), None, "Here every ability is paid alike: nothing can be said, so None."),
        ((0.5, 0.5, 2), None, "With two options half of the labels wrong say nothing."),
    ]
    tell(function, cases, "From a noisy reward you read the accuracy, and you know where nothing can be read.")


# 02: filtering


def keep(function: Any) -> None:
    """keep(counts, low, high): the names whose pass count lies in the band, easy first; from {name: count}."""
    cases = [
        (({"a": 3, "b": 16}, 1, 7), ["a"], "Only what lies inside the band is kept."),
        (({"a": 7, "b": 8}, 1, 7), ["a"], "The upper end belongs to the band."),
        (({"a": 1, "b": 0}, 1, 7), ["a"], "The lower end belongs to the band."),
        (({"a": 3, "b": 6, "c": 5}, 1, 7), ["b", "c", "a"], "Easy questions come first. Which count is an easy one's?"),
        (({"z": 4, "a": 4, "m": 4}, 1, 7), ["z", "a", "m"], "Questions with equal counts stay in their order."),
        (({"a": 0, "b": 16}, 0, 16), ["b", "a"], "A count of 0 is a count like any other."),
        (({}, 1, 7), [], "Without questions nothing is kept, and nothing goes wrong."),
    ]
    tell(function, cases, "The band with both its ends, easy before hard.")


def pass_at_k(function: Any) -> None:
    """pass_at_k(right, answers, k): the chance that k answers drawn from `answers` hold at least one right one."""

    def case(right: int, answers: int, k: int, look: str) -> tuple:
        return (right, answers, k), 1 - math.comb(answers - right, k) / math.comb(answers, k), look

    cases = [
        case(4, 16, 1, "One draw: this is the share of right answers."),
        case(1, 16, 4, "The answers are drawn without putting any back."),
        case(2, 4, 2, "Count the draws that hold wrong answers alone, among all draws."),
        case(0, 16, 4, "Where nothing is right, no draw holds a right answer."),
        case(13, 16, 4, "With fewer than k wrong answers every draw holds a right one."),
        case(16, 16, 1, "Where all are right, every draw is."),
        case(2, 400, 100, "Large numbers: factorials outgrow a float, whole numbers do not."),
    ]
    tell(function, cases, "This is pass@k, at the ends and for large numbers, too.")


def smallest_group(function: Any) -> None:
    """smallest_group(p, share): the smallest G from 2 to 256 with at most that share of silent groups, or None."""
    cases = [
        ((0.5, 0.05), 6, "The share of groups without signal for G = 2, 3, 4 and so on: where does it get so small?"),
        ((0.05, 0.5), 14, "Groups that are all wrong are silent, too."),
        ((0.95, 0.5), 14, "Groups that are all right are silent, too."),
        ((0.5, 0.5), 2, "A share that is just reached is enough."),
        ((0.3, 1.0), 2, "A group of one has nothing to compare with: begin at 2."),
        ((0.0, 0.5), None, "A question that is never right is silent in every group, so None."),
        ((1.0, 0.5), None, "A question that is always right is silent in every group, so None."),
        ((0.001, 0.5), None, "No group may be larger than 256."),
    ]
    tell(function, cases, "The harder, or the easier, the question, the larger the group it needs.")


# 03: SFT


def label_mask(function: Any) -> None:
    """label_mask(ids, header, end): the ids of the assistant's turns after their header, end included; else -100."""
    head, end, no = [1, 2], 3, -100

    def case(ids: list[int], labels: list[int], look: Any) -> tuple:
        return (ids, head, end), labels, look

    def first(got: Any) -> str:
        values = got.tolist() if hasattr(got, "tolist") else got
        if not isinstance(values, list | tuple) or len(values) != 10:
            return "Every token needs one label: as many labels as ids."
        if values[6] != no:
            return "The header is given to the model, not learned."
        if values[9] == no:
            return "Without a label on the closing token the model would never learn to stop."
        return "Labels stand on the assistant's words alone, each at its own token's place; all others are -100."

    cases = [
        case([1, 9, 7, 8, 3, 1, 2, 5, 6, 3], [no] * 7 + [5, 6, 3], first),
        case([1, 9, 7, 3, 1, 2, 5, 3, 3, 3], [no] * 6 + [5, 3, no, no], "Padding may use the closing token's id."),
        case([1, 2, 5, 3, 1, 9, 3, 1, 2, 6, 3], [no, no, 5, 3, *[no] * 5, 6, 3], "The assistant may speak twice."),
        case([1, 9, 2, 7, 3, 1, 2, 5, 3], [no] * 7 + [5, 3], "A token of the header alone opens no turn."),
        case([1, 9, 7, 3], [no] * 4, "A row may have no turn of the assistant."),
        case([1, 2, 5, 6], [no, no, 5, 6], "An answer that was cut off has no closing token."),
        case([], [], "A row may be empty."),
        (([7, 4, 4, 8, 5, 6], [4, 4, 8], 6), [no] * 4 + [5, 6], "A header may be longer than two tokens."),
    ]
    tell(function, cases, "Loss on the assistant's words and on the token that ends them, and on nothing else.")


def qlora_bytes(function: Any) -> None:
    """qlora_bytes(layers, rank): bytes of NF4 weights, and of LoRA adapters in training; layers (outputs, inputs)."""

    def case(layers: list[tuple[int, int]], rank: int, look: str) -> tuple:
        frozen = sum(out * into for out, into in layers)
        return (layers, rank), frozen * 4.5 / 8 + sum(16 * rank * (out + into) for out, into in layers), look

    adapter = "The adapter: two small matrices a layer. How many bytes does training keep for each of their weights?"
    cases = [
        case([(64, 64)], 0, "Frozen weights: half a byte each. What else does NF4 keep, and for how many weights?"),
        case([(64, 64)], 1, adapter),
        case([(64, 64)], 8, "How does the adapter grow with the rank?"),
        case([(256, 64)], 8, "A layer may have more outputs than inputs; each small matrix has one of them as a side."),
        case([(256, 64), (64, 256), (64, 64)], 4, "Every layer has an adapter of its own."),
        case([], 8, "Without layers there are no bytes."),
    ]
    tell(function, cases, "Frozen weights are cheap, and the few trained ones cost 16 bytes each.")


def whole_loss(function: Any) -> None:
    """whole_loss(parts): the loss of all micro-batches as of one batch; parts (mean loss, tokens with loss)."""
    cases = [
        (([(2.0, 10)],), 2.0, "One part is the whole batch."),
        (([(1.0, 10), (3.0, 10)],), 2.0, "Parts of equal size weigh alike, and it is a mean, not a sum."),
        (([(1.0, 30), (3.0, 10)],), 1.5, "Every token weighs alike. Do yours?"),
        (([(4.0, 1), (1.0, 4), (2.0, 5)],), 1.8, "Every token weighs alike, in any number of parts."),
        (([(1.0, 5), (math.nan, 0)],), 1.0, "A part without such tokens has no mean (nan): what does it spoil?"),
    ]
    tell(function, cases, "Cut a batch as you like: the loss stays the same.")


# 04: GRPO


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
